"""Options of ``tape-embed``, parsed into :class:`EmbedConfig`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tape.errors import ConfigError, quoted
from tape.inference.config import EmbedConfig
from tape.inference.embedded_proteins import DTYPES
from tape.inference.embedding_hdf5 import LAYOUTS
from tape.registry import registry

from .options import (
    Arguments,
    add_batch_size,
    add_column_options,
    add_format,
    add_forward_options,
    add_optional_model_directory,
    create_base_parser,
    inference_config,
    model_source,
    note_output_dir,
    parse_with_default_model,
    process_config,
    record_options,
)
from .parser import ArgumentParser


def embed_config(arguments: Arguments = None) -> EmbedConfig:
    """Configuration of ``tape-embed``.

    Raises:
        ConfigError: an option can't be used, or there is no such model.
    """
    options = parse_with_default_model(create_embed_parser(), arguments)
    note_output_dir(options, f"the embeddings are written to {options['out_file']}")
    registry.get_task_spec("embed").get_model(options["model_type"])
    return EmbedConfig(
        model=model_source(options),
        data_file=options["data_file"],
        out_file=Path(options["out_file"]),
        records=record_options(options),
        full_sequence=options["full_sequence_embed"],
        layers=_layers(options["layers"]),
        dtype=options["dtype"],
        hdf5_layout=options["hdf5_layout"],
        length=options["length"],
        inference=inference_config(options),
        process=process_config(options),
    )


def create_embed_parser(parents: Sequence[argparse.ArgumentParser] = ()) -> ArgumentParser:
    """``model_type data_file out_file [from_pretrained]`` and the options of embedding."""
    parser = ArgumentParser(
        prog="tape-embed", description="Write embeddings of proteins.", parents=list(parents) or [create_base_parser()]
    )
    parser.add_argument(
        "data_file",
        help="FASTA, a3m, Stockholm, .csv, .tsv, .json, .jsonl, .txt, .lmdb, a directory of .npz, or - for the standard"
        " input; a stop * at the end of a protein is removed",
    )
    parser.add_argument(
        "out_file",
        help=".npz (TAPE's layout; appended to a name without a suffix), .h5 (as of biotrainer and bio_embeddings; pip"
        " install 'proteinlm[hdf5]') or .parquet (pip install 'proteinlm[parquet]'); the same command resumes an"
        " interrupted one",
    )
    add_optional_model_directory(parser)
    add_batch_size(parser)
    parser.add_argument(
        "--full_sequence_embed", action="store_true", help="store the states of all tokens instead of their mean"
    )
    parser.add_argument(
        "--layers",
        nargs="+",
        type=_layer,
        default=[-1],
        metavar="N",
        help="layers to store instead of the output: all, or numbers, 0 for the embeddings, -1 or last for the output;"
        " with several, the layer is the first dimension (default: last)",
    )
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="type of the numbers (default: float32)")
    parser.add_argument(
        "--hdf5_layout",
        "--hdf5-layout",
        choices=LAYOUTS,
        help="data sets of .h5: one per protein named by biotrainer's hash of its sequence (default) or by its id, or"
        " one table of all proteins",
    )
    group = parser.add_argument_group("proteins")
    add_forward_options(group)
    add_format(group, "data_file")
    add_column_options(group)
    parser.set_defaults(task="embed")
    return parser


def _layer(text: str) -> int | None:
    """A layer's number; None for all."""
    if text in ("all", "last"):
        return None if text == "all" else -1
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be last, all or whole numbers, not {quoted(text)}; give the positional arguments before it"
        ) from None


def _layers(given: list[int | None]) -> tuple[int, ...] | None:
    numbers = tuple(number for number in given if number is not None)
    if len(numbers) == len(given):
        return numbers
    if numbers:
        raise ConfigError("--layers all includes every layer; give no number with it")
    return None
