#!/usr/bin/env python
"""How far attention heads look, and how much of the residual stream the position is.

    python benchmarks/attention_distance.py PROTEINS MODEL [MODEL ...] [--within 8] [--json RESULT.json]
    python benchmarks/attention_distance.py PROTEINS MODEL --restore-initial OUT [--residual-multiplier 0.12]

A line per block and model: the root mean square of the residual stream before the block, of the position embeddings
that are a part of it, and each head's mean attention to the residues at most ``--within`` away (a head that attends to
all equally has (2 within + 1) / L). Proteins are the first ones of a file with 150 to 300 residues.

``--restore-initial`` writes a model with the weights of MODEL, but in all blocks after the first, queries, keys and the
layer norm before them are those of a new model of its configuration. With ``--residual-multiplier``, what every block
adds to the residual stream is multiplied by it, so that the position is as large a part as in a new model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

import torch
from torch import Tensor

from benchmarks.peers.comparison import option_values
from tape import ProteinBertModel
from tape.cli.parser import ArgumentParser
from tape.errors import ConfigError, DataError, run_cli
from tape.evaluation.config import ModelSource
from tape.evaluation.load_model import load_encoder, model_directory
from tape.evaluation.results import model_hash
from tape.io.records import open_records
from tape.io.writing import check_output_directory, check_output_file, write_json
from tape.tokenizers import TAPETokenizer

_RESTORED = ("attention.self.query.", "attention.self.key.", "input_ln.")
_MULTIPLIED = ("attention.dense.", "mlp.dense_4h_h.")


@dataclass(frozen=True)
class BlockAttention:
    """What is measured before and in one block.

    Attributes:
        stream: root mean square of the residual stream before the block.
        position: root mean square of the position embeddings of the same positions.
        within: of each head, the mean share of attention to the residues nearby.
    """

    stream: float
    position: float
    within: tuple[float, ...]


@torch.no_grad()
def attention_of_blocks(model: ProteinBertModel, proteins: Sequence[Tensor], within: int) -> list[BlockAttention]:
    """Measure each block.

    Args:
        model: with ``output_attentions`` and ``output_hidden_states``.
        proteins: (L,) token ids of each.
        within: distance in positions.
    """
    squares = torch.zeros(model.config.num_hidden_layers + 1, dtype=torch.float64)
    shares = torch.zeros(model.config.num_hidden_layers, model.config.num_attention_heads, dtype=torch.float64)
    for ids in proteins:
        _, _, states, maps = model(ids[None])
        positions = model.embeddings.position_embeddings.weight[: len(ids)]
        streams = [*states[: len(maps)], positions]
        squares += torch.stack([stream.double().square().mean() for stream in streams])
        near = (torch.arange(len(ids))[:, None] - torch.arange(len(ids))).abs() <= within
        shares += torch.stack([(attention[0] * near).sum(-1).double().mean(-1) for attention in maps])
    means = (shares / len(proteins)).tolist()
    *streams, position = (squares / len(proteins)).sqrt().tolist()
    return [BlockAttention(*found) for found in zip(streams, [position] * len(means), map(tuple, means), strict=True)]


@torch.no_grad()
def restore_initial(model: ProteinBertModel, multiplier: float, seed: int) -> None:
    """See the top of this file; in place."""
    torch.manual_seed(seed)
    new = dict(ProteinBertModel(model.config).named_parameters())
    for name, parameter in model.named_parameters():
        if any(part in name for part in _MULTIPLIED):
            parameter.mul_(multiplier)
        elif any(part in name for part in _RESTORED) and not name.startswith("encoder.layer.0."):
            parameter.copy_(new[name])


def read_proteins(path: Path, number: int, shortest: int, longest: int) -> list[Tensor]:
    """Token ids of the first proteins of a file that are long and short enough.

    Raises:
        DataError: the file can't be read, or has fewer. Names it.
    """
    tokenizer = TAPETokenizer()
    fitting = (record.sequence for record in open_records(path) if shortest <= len(record.sequence) <= longest)
    found = [torch.as_tensor(tokenizer.encode(sequence)) for sequence in islice(fitting, number)]
    if len(found) < number:
        raise DataError(f"{path}: {len(found)} proteins of {shortest} to {longest} residues; {number} are needed")
    return found


def load(name: str, **overrides: Any) -> tuple[Path, ProteinBertModel]:
    """A model's directory and its encoder.

    Raises:
        ProteinLMError: it can't be loaded, or is in the post arrangement.
    """
    source = ModelSource("transformer", name)
    directory = model_directory(source)
    encoder = load_encoder(source, directory, **overrides)
    if not isinstance(encoder, ProteinBertModel) or encoder.config.layer_norm_position != "pre":
        raise ConfigError(f"{name}: not a transformer with the layer norm before attention and MLP")
    return directory, encoder.eval()


def measure(name: str, proteins: Sequence[Tensor], within: int) -> dict[str, Any]:
    """Measure one model and print its lines."""
    directory, encoder = load(name, output_attentions=True, output_hidden_states=True)
    blocks = attention_of_blocks(encoder, proteins, within)
    for number, block in enumerate(blocks, start=1):
        heads = " ".join(f"{share:.2f}" for share in block.within)
        print(f"| {name} | {number} | {block.stream:.2f} | {block.position:.2f} | {heads} |", flush=True)
    return {"model": name, "sha256": model_hash(directory), "blocks": [vars(block) for block in blocks]}


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proteins", type=Path, help="FASTA or another file of proteins")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="directory or name of a model")
    parser.add_argument("--within", type=int, default=8, help="distance in residues (default: %(default)s)")
    parser.add_argument("--number", type=int, default=12, help="proteins (default: %(default)s)")
    parser.add_argument("--lengths", type=int, nargs=2, default=(150, 300), metavar="N", help="default: 150 300")
    parser.add_argument("--restore-initial", type=Path, metavar="OUT", help="write the model described above")
    parser.add_argument("--residual-multiplier", type=float, default=1.0, metavar="F", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the new weights (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args(words)
    if options.number < 1 or options.within < 0:
        raise ConfigError("--number must be at least 1, and --within at least 0")
    if options.restore_initial is None and options.residual_multiplier != 1:
        raise ConfigError("--residual-multiplier needs --restore-initial")
    if options.restore_initial is not None and len(options.models) > 1:
        raise ConfigError("--restore-initial takes one MODEL")
    return options


def main(words: Sequence[str] | None = None) -> None:
    """Print a table with a line per model and block."""
    options = parse(words)
    if options.json is not None:
        check_output_file(options.json, "--json")
    proteins = read_proteins(options.proteins, options.number, *options.lengths)
    names = list(options.models)
    if options.restore_initial is not None:
        check_output_directory(options.restore_initial, "--restore-initial")
        _, model = load(names[0])
        restore_initial(model, options.residual_multiplier, options.seed)
        model.save_pretrained(options.restore_initial)
        names.append(str(options.restore_initial))
    print(f"| model | block | residual stream | position | attention within {options.within}, by head |")
    print("|:--|--:|--:|--:|:--|", flush=True)
    results = [measure(name, proteins, options.within) for name in names]
    if options.json is not None:
        write_json(options.json, {"options": option_values(options), "results": results})


if __name__ == "__main__":
    sys.exit(run_cli(main))
