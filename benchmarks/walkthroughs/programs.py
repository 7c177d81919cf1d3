"""The walkthroughs: what is typed and written for each job with each program, and how its score is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .inputs import COLUMN, FASTA, NEW_CHAINS, NEW_FASTA, STRUCTURES, TABLE
from .scores import Score, of_biotrainer, of_embeddings, of_evaluation, of_transformers

FILES = Path(__file__).parent / "files"
MODEL = "proteinlm-mini-hf"  # the bundled model in the layout of transformers
VALUES, EMBEDDINGS, CONTACTS = JOBS = ("values", "embeddings", "contacts")
OURS, BIOTRAINER, TRANSFORMERS = PROGRAMS = ("proteinlm", "biotrainer", "transformers")
_RHO, _PRECISION = "rho", "P@L/5"


@dataclass(frozen=True)
class Walkthrough:
    """A job with a program.

    Attributes:
        program, job: which.
        commands: as typed, in a folder with the inputs.
        score: reads the score from that folder.
        results: the files that a person wanted, as patterns below the folder.
        files: what is written for it, below ``files/``.
        remarks: what it has or lacks besides.
    """

    program: str
    job: str
    commands: tuple[str, ...]
    score: Callable[[Path], Score]
    results: tuple[str, ...]
    files: tuple[str, ...] = ()
    remarks: str = ""


_VALUES_RUN = f"results/{Path(TABLE).stem}_{COLUMN}_transformer_1"
_CONTACTS_RUN = f"results/{STRUCTURES}_contact_transformer_1"

WALKTHROUGHS = (
    Walkthrough(
        OURS,
        VALUES,
        (
            f"tape-train transformer --data {TABLE} --target {COLUMN} --time_or_name 1",
            f"tape-eval transformer {_VALUES_RUN} --predict {NEW_FASTA} --predict_out predictions.csv",
        ),
        lambda folder: of_evaluation(folder / _VALUES_RUN, "spearmanr", _RHO),
        ("predictions.csv",),
        remarks="standardizes the values; intervals of 1,000 resamples; draws splits, if the table has none",
    ),
    Walkthrough(
        BIOTRAINER,
        VALUES,
        (
            "python biotrainer_fasta.py",
            "tape-embed transformer my.fasta my.h5",
            "biotrainer train --config biotrainer_values.yml",
        ),
        lambda folder: of_biotrainer(folder / "output" / "out.yml"),
        ("output/out.yml",),
        ("biotrainer_fasta.py", "biotrainer_values.yml"),
        "frozen embeddings, by tape-embed; raw values; intervals of 30 resamples, baselines; splits must be given",
    ),
    Walkthrough(
        TRANSFORMERS,
        VALUES,
        ("python transformers_values.py",),
        lambda folder: of_transformers(folder / "transformers_values" / "test_results.json", "test_spearmanr", _RHO),
        ("transformers_predictions.csv",),
        ("transformers_values.py",),
        "raw values; no intervals; splits are code of one's own",
    ),
    Walkthrough(
        OURS,
        EMBEDDINGS,
        (
            f"tape-embed transformer {FASTA} embeddings.h5",
            f"tape-embed transformer {FASTA} embeddings.parquet",
            "python read_hdf5.py",
            "python read_parquet.py",
        ),
        partial(of_embeddings, pattern="embeddings.h5"),
        ("embeddings.h5", "embeddings.parquet"),
        ("read_hdf5.py", "read_parquet.py"),
        "biotrainer's layout, or Parquet; resumes",
    ),
    Walkthrough(
        BIOTRAINER,
        EMBEDDINGS,
        ("python biotrainer_embed.py",),
        partial(of_embeddings, pattern="embeddings/**/*.h5"),
        ("embeddings/**/*.h5",),
        ("biotrainer_embed.py",),
        "chooses T5, ESM or BERT by the name of the tokenizer's class; this directory's fits none and is read as T5,"
        " with random weights",
    ),
    Walkthrough(
        TRANSFORMERS,
        EMBEDDINGS,
        ("python transformers_embed.py",),
        partial(of_embeddings, pattern="transformers_embeddings.h5"),
        ("transformers_embeddings.h5",),
        ("transformers_embed.py",),
        "padding, special tokens and the file's layout are code of one's own",
    ),
    Walkthrough(
        OURS,
        CONTACTS,
        (
            f"tape-train transformer --data {STRUCTURES} --task-type contact --time_or_name 1",
            f"tape-contacts transformer {_CONTACTS_RUN} --predict {NEW_CHAINS} --predict_out contacts.csv --plot",
        ),
        lambda folder: of_evaluation(folder / _CONTACTS_RUN, "precision_at_l5", _PRECISION),
        ("contacts.csv", "contacts_maps/*.png"),
        remarks="maps, tables of pairs and pictures; intervals of 1,000 resamples",
    ),
    Walkthrough(
        TRANSFORMERS,
        CONTACTS,
        ("python transformers_contacts.py",),
        lambda folder: of_transformers(
            folder / "transformers_contacts" / "test_results.json", "test_precision_at_l5", _PRECISION
        ),
        ("transformers_*.png",),
        ("transformers_contacts.py",),
        "structures, labels, head, metric and picture are code of one's own; no intervals",
    ),
)
NOT_POSSIBLE = {(BIOTRAINER, CONTACTS): "has no task of contacts"}
