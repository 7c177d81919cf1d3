#!/usr/bin/env python
"""Converts a pretraining checkpoint into a TAPE model and proves that both compute the same.

    python converter/megatron-converter.py -src checkpoints/ -out models/out
    python converter/megatron-converter.py -src model_optim_rng.pt -out models/out/pytorch_model.bin -dtp torch.float16

`-src` is a `--save` directory of pretrain_tape.py, a Megatron-LM checkpoint directory, or one `.pt` file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# The script is called by path from any directory; the packages stand beside its folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from converter.conversion import Request, convert
from converter.options import SourceOptions, parse_dtype
from tape.errors import run_cli
from tape.vocabulary_files import read_vocabulary_file


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("-src", "--src", type=Path, required=True, help="the pretraining checkpoint: a directory or a .pt file")
    add("-out", "--out", type=Path, required=True, help="model directory to write, or a .bin or .safetensors file")
    add("-dst", "--dst", type=Path, help="existing TAPE checkpoint whose names and shapes the result must have")
    add(
        "-dtp",
        "--dtype",
        default="torch.float32",
        help="data type, such as torch.float16 or bf16 (default %(default)s)",
    )
    checked = "read from the checkpoint; an option that contradicts it is an error"
    add("-hidden", "--hidden_dim", type=int, help=f"hidden size: {checked}")
    add("-heads", "--num_heads", type=int, help=f"attention heads: {checked}; needed where it states none")
    add("-layers", "--num_layers", type=int, help=f"layers: {checked}")
    add("--overwrite", action="store_true", help="replace an output that is not an earlier conversion")
    group = parser.add_argument_group("what a Megatron checkpoint without its arguments leaves open")
    add = group.add_argument
    add("--checkpoint-version", type=float, help="0, 1, 2 or 3: order of the query/key/value rows")
    add("--vocab-file", type=Path, help="tokens of the embedding rows, one a line (usual: iupac_vocab.txt)")
    add("--gelu", choices=("tanh", "erf"), help="GELU of the blocks (usual: tanh)")
    add("--layernorm-epsilon", type=float, help="usual: 1e-12")
    add("--hidden-dropout", type=float, help="usual: 0.1")
    add("--attention-dropout", type=float, help="usual: 0.1")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    options = SourceOptions(
        hidden_size=arguments.hidden_dim,
        heads=arguments.num_heads,
        layers=arguments.num_layers,
        checkpoint_version=arguments.checkpoint_version,
        vocabulary=None if arguments.vocab_file is None else read_vocabulary_file(arguments.vocab_file).tokens,
        gelu={None: None, "tanh": "gelu_tanh", "erf": "gelu"}[arguments.gelu],
        layernorm_epsilon=arguments.layernorm_epsilon,
        hidden_dropout=arguments.hidden_dropout,
        attention_dropout=arguments.attention_dropout,
    )
    request = Request(
        source=arguments.src,
        out=arguments.out,
        dtype=parse_dtype(arguments.dtype),
        reference=arguments.dst,
        overwrite=arguments.overwrite,
        options=options,
    )
    convert(request, progress=lambda line: print(line, flush=True))


if __name__ == "__main__":
    sys.exit(run_cli(main))
