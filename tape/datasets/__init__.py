"""Data sets: files of records, the data sets of the tasks, and the planning and loading of batches."""

from __future__ import annotations

from tape import installation
from tape.compatibility.names import names_of

from .contacts import ProteinnetDataset
from .embedding import EmbedDataset
from .language_modeling import LanguageModelingDataset, MaskedLanguageModelingDataset
from .residue import SecondaryStructureDataset
from .sources import FastaDataset, JSONDataset, LMDBDataset, NPZDataset, TableDataset, dataset_factory
from .task_dataset import pad_sequences
from .trrosetta import TRRosettaDataset
from .whole_protein import FluorescenceDataset, RemoteHomologyDataset, StabilityDataset

__all__ = [
    "EmbedDataset",
    "FastaDataset",
    "FluorescenceDataset",
    "JSONDataset",
    "LMDBDataset",
    "LanguageModelingDataset",
    "MaskedLanguageModelingDataset",
    "NPZDataset",
    "ProteinnetDataset",
    "RemoteHomologyDataset",
    "SecondaryStructureDataset",
    "StabilityDataset",
    "TRRosettaDataset",
    "TableDataset",
    "dataset_factory",
    "pad_sequences",
]

__getattr__ = names_of(__name__)  # of tape-proteins 0.5
