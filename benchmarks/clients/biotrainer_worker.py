"""Worker of biotrainer, run in the environment of the clients with a folder as its argument."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from .inputs import write_outputs


def main(folder: Path) -> None:
    service: Any = import_module("biotrainer.embedders").EmbeddingService
    records = import_module("biotrainer.input_files").read_FASTA(folder / "proteins.fasta")
    hashes = [record.get_hash() for record in records]
    outputs = {}
    for name in ("residues", "proteins", "half"):  # as EmbeddingStep does
        found = service.load_embeddings(str(folder / f"{name}.h5"), hashes)
        outputs |= {f"{name}_{number}": found[key].numpy() for number, key in enumerate(hashes)}
    write_outputs(folder, outputs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
