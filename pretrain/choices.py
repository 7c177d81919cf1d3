"""Values of the flags that choose an implementation. They are apart from it, so that ``--help`` needs no torch."""

from __future__ import annotations

ATTENTION_BACKENDS = ("auto", "flash", "padded")
BACKENDS = ("nccl", "gloo")
OPTIMIZERS = ("adam", "sgd", "muon")
PIPELINE_SCHEDULES = ("1f1b", "gpipe")
RECOMPUTATIONS = ("full", "selective")
