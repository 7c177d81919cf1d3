"""The names of the stages of gpu.py, without the imports that running them takes."""

from __future__ import annotations


def stage_names() -> list[str]:
    """The stages in the order in which they run: what has never been measured, and what the targets ask for, first."""
    return [
        "environment",
        "matrix_rate",
        "tests",
        "nccl",
        "pretrain/200M",
        "pretrain/200M/compile",
        "pretrain/650M",
        "pretrain/650M/compile",
        "profile/200M",
        "pretrain/200M/padded attention",
        "pretrain/200M/checkpointing",
        "finetune/secondary_structure",
        "finetune/contact_prediction",
        "embed",
        "pretrain/35M",
        "pretrain/35M/compile",
        "pretrain/650M/checkpointing",
        "pretrain/650M/compile/checkpointing",
        "pretrain/200M/dropout 0",
        "pretrain/200M/compile/checkpointing",
        "pretrain/35M/checkpointing",
        "pretrain/35M/compile/checkpointing",
    ]
