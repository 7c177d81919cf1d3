#!/usr/bin/env python
"""Converts a protein language model between checkpoint formats and verifies that both compute the same.

    python converter/megatron-converter.py -src checkpoints/ -out models/out
    python converter/megatron-converter.py -src model_optim_rng.pt -out models/out/pytorch_model.bin -dtp torch.float16
    python converter/megatron-converter.py -src models/out -out mega --to megatron --tensor-model-parallel-size 2
    python converter/megatron-converter.py -src models/out -out hf --to huggingface
    python converter/megatron-converter.py -src models/out -out weights --to pretraining
    python converter/megatron-converter.py --verify-only models/out hf
    python converter/megatron-converter.py --check models/out

`-src` is a `--save` directory of pretrain_tape.py, a Megatron-LM checkpoint directory, a single `.pt` file, a TAPE
model directory (of this project, ProteinLM or tape-proteins 0.5), or a Hugging Face directory of a MegatronBert or Bert
model.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

from converter.options import FORMATS, LM_HEADS, SourceOptions, parse_dtype
from tape.cli.parser import ArgumentParser
from tape.errors import print_notice, run_cli
from tape.io.vocabulary_files import read_vocabulary_file
from tape.runtime.memory import return_large_blocks

# torch is imported inside the functions, so that ``--help`` and errors in options need no time.

# options that only apply when a result is written
WRITING = {
    "src": "-src",
    "out": "-out",
    "to": "--to",
    "dst": "-dst",
    "dtype": "-dtp",
    "tensor_model_parallel_size": "--tensor-model-parallel-size",
    "pipeline_model_parallel_size": "--pipeline-model-parallel-size",
    "lm_head": "--lm-head",
    "overwrite": "--overwrite",
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("-src", "--src", type=Path, help="the model to convert: a directory, or a .pt, .bin or .safetensors file")
    add(
        "-out",
        "--out",
        type=Path,
        help="directory to write, or a .bin, .safetensors (tape) or .pt (megatron, megatron-core) file",
    )
    add("--to", choices=FORMATS, default="tape", help="format to write (default %(default)s)")
    add(
        "--verify-only",
        nargs=2,
        type=Path,
        metavar=("A", "B"),
        help="write nothing; compare two existing models in any formats. Options about the source apply to A, whose"
        " weights are rounded to B's data type if that is half precision",
    )
    add(
        "--check",
        type=Path,
        metavar="RESULT",
        help="write nothing; compare the files of a conversion, and of its source, with the hashes in conversion.json",
    )
    add("-dst", "--dst", type=Path, help="existing TAPE checkpoint whose names and shapes the result must have")
    add(
        "-dtp",
        "--dtype",
        default="torch.float32",
        help="data type, such as torch.float16 or bf16 (default %(default)s)",
    )
    checked = "read from the checkpoint; a contradicting option is an error"
    add("-hidden", "--hidden_dim", type=int, help=f"hidden size: {checked}")
    add(
        "-heads",
        "--num_heads",
        type=int,
        help=f"attention heads: {checked}; required if the checkpoint does not state it",
    )
    add("-layers", "--num_layers", type=int, help=f"layers: {checked}")
    add(
        "--tensor-model-parallel-size",
        type=int,
        default=1,
        help="tensor-parallel ranks of a Megatron result (default 1)",
    )
    add("--pipeline-model-parallel-size", type=int, default=1, help="pipeline stages of a Megatron result (default 1)")
    add(
        "--lm-head",
        choices=LM_HEADS,
        default="keep",
        help="keep, drop, or (huggingface) approximate a head with another activation than the blocks (default keep)",
    )
    add("--overwrite", action="store_true", help="replace a model that is not an earlier conversion")
    add("--no-verify", action="store_true", help="read files that differ from SHA256SUMS or conversion.json")
    group = parser.add_argument_group("settings of a Megatron checkpoint that was saved without its arguments")
    add = group.add_argument
    add("--checkpoint-version", type=float, help="0, 1, 2 or 3: order of the query/key/value rows")
    add("--vocab-file", type=Path, help="tokens of the embedding rows, one per line (default: iupac_vocab.txt)")
    add("--gelu", choices=("tanh", "erf"), help="GELU of the blocks (default: tanh)")
    add("--layernorm-epsilon", type=float, help="epsilon of the layer norms (default: 1e-12)")
    add("--hidden-dropout", type=float, help="hidden dropout (default: 0.1)")
    add("--attention-dropout", type=float, help="attention dropout (default: 0.1)")
    add(
        "--assume-neutral",
        action="append",
        metavar="NAME",
        help="convert although this argument of the checkpoint is unknown or not supported, because it does not change"
        " what the model computes (repeatable; recorded in conversion.json)",
    )
    return parser


def source_options(arguments: argparse.Namespace) -> SourceOptions:
    """The options about the source."""
    vocabulary = None if arguments.vocab_file is None else read_vocabulary_file(arguments.vocab_file).tokens
    return SourceOptions(
        hidden_size=arguments.hidden_dim,
        heads=arguments.num_heads,
        layers=arguments.num_layers,
        checkpoint_version=arguments.checkpoint_version,
        vocabulary=vocabulary,
        gelu={None: None, "tanh": "gelu_tanh", "erf": "gelu"}[arguments.gelu],
        layernorm_epsilon=arguments.layernorm_epsilon,
        hidden_dropout=arguments.hidden_dropout,
        attention_dropout=arguments.attention_dropout,
        assume_neutral=_argument_names(arguments.assume_neutral),
        verify=not arguments.no_verify,
    )


def _argument_names(given: list[str] | None) -> tuple[str, ...] | None:
    """Names as in a checkpoint's arguments, from names or options of Megatron-LM."""
    return None if given is None else tuple(name.lstrip("-").replace("-", "_") for name in given)


def reject_writing_options(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Reject options about the result where nothing is written, which would otherwise be ignored silently."""
    given = [flag for name, flag in WRITING.items() if getattr(arguments, name) != parser.get_default(name)]
    if arguments.check and arguments.verify_only:
        given.append("--verify-only")
    if given:
        mode = "--check names the result" if arguments.check else "--verify-only names both models"
        parser.error(f"{mode} and writes nothing; remove {', '.join(given)}")


def show(line: str) -> None:
    print(line, flush=True)


def verify(arguments: argparse.Namespace) -> None:
    """Print the certificate of two models as JSON, and its summary on stderr."""
    from converter.convert import verify_only

    one, other = arguments.verify_only
    certificate = verify_only(one, other, source_options(arguments))
    for line in certificate.summary():
        print_notice(line)
    show(json.dumps(certificate.as_json(), indent=2))


def check(result: Path) -> None:
    """Print whether the files of a conversion are unchanged, one per line."""
    from converter.formats.record import check_files

    for line in check_files(result):
        show(line)


def main() -> None:
    """The command line."""
    return_large_blocks()
    parser = make_parser()
    arguments = parser.parse_args()
    if arguments.check or arguments.verify_only:
        reject_writing_options(parser, arguments)
    if arguments.check:
        return check(arguments.check)
    if arguments.verify_only:
        return verify(arguments)
    if not arguments.src or not arguments.out:
        parser.error("give -src and -out, --verify-only A B, or --check RESULT")
    from converter.convert import ConversionRequest, convert

    request = ConversionRequest(
        source=arguments.src,
        out=arguments.out,
        format=arguments.to,
        dtype=parse_dtype(arguments.dtype),
        tensor_parallel=arguments.tensor_model_parallel_size,
        pipeline_parallel=arguments.pipeline_model_parallel_size,
        lm_head=arguments.lm_head,
        reference=arguments.dst,
        overwrite=arguments.overwrite,
        options=source_options(arguments),
    )
    convert(request, progress=show)


if __name__ == "__main__":
    sys.exit(run_cli(main))
