"""Configuration of the inference commands. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tape.evaluation.config import InferenceConfig, ModelSource
from tape.io.records import RecordOptions
from tape.metrics.bootstrap import Bootstrap
from tape.runtime.process import ProcessConfig


@dataclass(frozen=True)
class EmbedConfig:
    """Embeddings of the proteins of a file (``tape-embed``).

    Attributes:
        model: the encoder.
        data_file: sequences; ``-`` is the standard input.
        out_file: where embeddings are written.
        records: format and columns of ``data_file``.
        full_sequence: store the states of all tokens instead of their mean over residues.
        layers: numbers of the layers (:mod:`tape.inference.hidden_layers`); None: all.
        dtype: type of the values in ``out_file``: float32 or float16.
        hdf5_layout: layout of an HDF5 file (:mod:`tape.inference.embedding_hdf5`); None: its default.
        length: what to do with proteins longer than the model's position table: error, crop or window.
        inference: batches, workers and precision.
        process: device and logging.
    """

    model: ModelSource
    data_file: str
    out_file: Path
    records: RecordOptions = RecordOptions()
    full_sequence: bool = False
    layers: tuple[int, ...] | None = (-1,)
    dtype: str = "float32"
    hdf5_layout: str | None = None
    length: str = "error"
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    process: ProcessConfig = field(default_factory=ProcessConfig)


@dataclass(frozen=True)
class PredictConfig:
    """Predictions of a finetuned model for the proteins of a file (``tape-eval --predict``).

    Attributes:
        task: a registered task.
        model: the finetuned model.
        data_file: sequences; ``-`` is the standard input.
        records: format and columns of ``data_file``.
        out_file: .csv or .json to write; None: ``predictions_FILE.csv`` in ``output_dir``.
        output_dir: directory of the default ``out_file``; None: beside the model.
        data_dir, split: a data set of the task, which shows the task type if the task was registered without one.
        length: what to do with proteins longer than the model's position table: error, crop or window.
        inference: batches, workers and precision.
        process: device and logging.
    """

    task: str
    model: ModelSource
    data_file: Path
    records: RecordOptions = RecordOptions()
    out_file: Path | None = None
    output_dir: Path | None = None
    data_dir: str = "./data"
    split: str = "test"
    length: str = "error"
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    process: ProcessConfig = field(default_factory=ProcessConfig)


@dataclass(frozen=True)
class ScoreConfig:
    """Effects of variants from a masked language model (``tape-score``).

    Attributes:
        model: the masked language model.
        variants_file: table of variants, or with ``all_singles`` the proteins: a file, or the residues of one.
        out_file: .csv to write.
        wild_type: sequence file, or the residues of the wild type; not used with ``all_singles``.
        methods: names of the scores.
        all_singles: score all single substitutions of the proteins.
        plot: .png or .svg of a heat map of all single substitutions; None: no heat map.
        strict: refuse variants that can't be scored, instead of marking them.
        first_residue: number of the first residue of the wild type.
        variants_format: format of ``variants_file``; None: according to its suffix.
        mutation_column: column with the mutations; None: the one that exists.
        wild_type_columns: columns of the sequence file.
        compare: column with measured effects to correlate the scores with; None: no comparison.
        length: what to do with proteins longer than the model's position table: error or window.
        inference: batch size and precision.
        process: device and logging.
    """

    model: ModelSource
    variants_file: str
    out_file: Path
    wild_type: str
    methods: tuple[str, ...]
    all_singles: bool = False
    plot: Path | None = None
    strict: bool = False
    first_residue: int = 1
    variants_format: str | None = None
    mutation_column: str | None = None
    wild_type_columns: RecordOptions = RecordOptions()
    compare: str | None = None
    length: str = "window"
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    process: ProcessConfig = field(default_factory=ProcessConfig)


@dataclass(frozen=True)
class ContactMapsConfig:
    """Contacts of unlabeled proteins (``tape-contacts --predict``).

    Attributes:
        prediction: proteins, model and output; the task is contact prediction.
        regression: file of a regression on attention maps; None: the model's own head or regression.
        plot: draw the maps.
    """

    prediction: PredictConfig
    regression: Path | None = None
    plot: bool = False

    @property
    def process(self) -> ProcessConfig:
        """Device and logging."""
        return self.prediction.process


@dataclass(frozen=True)
class ContactsConfig:
    """Contacts from attention maps by logistic regression (``tape-contacts``).

    Attributes:
        model: a pretrained transformer.
        output_dir, time_or_name, exp_name, overwrite: the result directory, as of a finetuning run.
        data_dir: directory with the folder ``proteinnet``.
        fit_split, fit_proteins, seed: split and number of the proteins to fit on, and the seed of their choice.
        inverse_penalty: weight C of the logistic loss against the L1 penalty.
        split: split to evaluate.
        records: columns of the sequence and the id.
        bootstrap: resampling for the metrics' intervals; None: no intervals.
        groups: table of groups of proteins that are resampled as wholes; None: the one beside the split, if any.
        leakage: table of ``tape-leakage`` for metrics in bins of identity; None: the one beside the split, if any.
        precision: precision of the forward passes: fp32, fp16 or bf16; auto until the command has chosen one.
        arguments: all options by name, as JSON values, for ``args.json``.
        process: device and logging.
    """

    model: ModelSource
    output_dir: str = "./results"
    time_or_name: str = "time"
    exp_name: str | None = None
    overwrite: bool = False
    data_dir: str = "./data"
    fit_split: str = "train"
    fit_proteins: int = 20
    seed: int = 42
    inverse_penalty: float = 0.15
    split: str = "test"
    records: RecordOptions = RecordOptions()
    bootstrap: Bootstrap | None = None
    groups: Path | None = None
    leakage: Path | None = None
    precision: str = "fp32"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    process: ProcessConfig = field(default_factory=ProcessConfig)
