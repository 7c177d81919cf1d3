#!/usr/bin/env python
"""Converts a model of this family from any of its forms into any other, and proves that both compute the same.

    python converter/megatron-converter.py -src checkpoints/ -out models/out
    python converter/megatron-converter.py -src model_optim_rng.pt -out models/out/pytorch_model.bin -dtp torch.float16
    python converter/megatron-converter.py -src models/out -out mega --to megatron --tensor-model-parallel-size 2
    python converter/megatron-converter.py -src models/out -out hf --to huggingface
    python converter/megatron-converter.py --verify-only models/out hf

`-src` is a `--save` directory of pretrain_tape.py, a Megatron-LM checkpoint directory, one `.pt` file, a TAPE model
directory (ours, ProteinLM's, or tape-proteins 0.5's), or a Hugging Face directory of a MegatronBert or Bert.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

# The script is called by path from any directory; the packages stand beside its folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from converter.convert import LM_HEADS, ConversionRequest, convert, summary, verify_only
from converter.formats.targets import FORMS
from converter.options import SourceOptions, parse_dtype
from tape.errors import run_cli
from tape.io.vocabulary_files import read_vocabulary_file
from tape.runtime.memory import return_large_blocks

# options of what is written
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


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("-src", "--src", type=Path, help="the model to convert: a directory, or a .pt, .bin or .safetensors file")
    add("-out", "--out", type=Path, help="directory to write, or a .bin, .safetensors (tape) or .pt (megatron) file")
    add("--to", choices=FORMS, default="tape", help="form to write (default %(default)s)")
    add(
        "--verify-only",
        nargs=2,
        type=Path,
        metavar=("A", "B"),
        help="write nothing: compare two models that exist, in any forms; options about a source are about A, whose"
        " weights are rounded as B's where those are half precision",
    )
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
    add("--tensor-model-parallel-size", type=int, default=1, help="tensor-parallel ranks of --to megatron (default 1)")
    add("--pipeline-model-parallel-size", type=int, default=1, help="pipeline stages of --to megatron (default 1)")
    add(
        "--lm-head",
        choices=LM_HEADS,
        default="keep",
        help="keep it, drop it, or (huggingface) approximate one whose activation isn't the blocks' (default keep)",
    )
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


def source_options(arguments: argparse.Namespace) -> SourceOptions:
    """What the user says of the source."""
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
    )


def refuse_writing(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """``--verify-only`` writes nothing: an option of what is written would be passed over in silence."""
    given = [flag for name, flag in WRITING.items() if getattr(arguments, name) != parser.get_default(name)]
    if given:
        parser.error(f"--verify-only takes its two models itself and writes nothing: no {', '.join(given)}")


def show(line: str) -> None:
    print(line, flush=True)


def verify(arguments: argparse.Namespace) -> None:
    """Print the certificate of two models as JSON, after its summary on stderr."""
    one, other = arguments.verify_only
    certificate = verify_only(one, other, source_options(arguments))
    for line in summary(certificate):
        print(line, file=sys.stderr)
    show(json.dumps(certificate.as_json(), indent=2))


def main() -> None:
    parser = build_parser()
    arguments = parser.parse_args()
    if arguments.verify_only:
        refuse_writing(parser, arguments)
        return verify(arguments)
    if not arguments.src or not arguments.out:
        parser.error("-src and -out are needed, or --verify-only A B")
    request = ConversionRequest(
        source=arguments.src,
        out=arguments.out,
        form=arguments.to,
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
    return_large_blocks()
    sys.exit(run_cli(main))
