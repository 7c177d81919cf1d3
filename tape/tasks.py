"""The built-in tasks. A task's type determines its head, the weights of its loss, and its metrics.

Imports no torch: datasets and models are named as ``"module:Class"`` and imported on first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class TaskType(str, Enum):
    """What is predicted about a protein."""

    VALUE = "value"  # one number per protein
    SEQUENCE_CLASS = "sequence class"  # one class per protein
    MULTILABEL = "multilabel"  # any number of labels per protein
    RESIDUE_CLASS = "residue class"  # one class per residue
    RESIDUE_PAIR = "residue pair"  # contact or not, per pair of residues
    MASKED_LM = "masked lm"  # the masked residues
    LANGUAGE_MODEL = "language model"  # the next residue
    PAIR_GEOMETRY = "pair geometry"  # distance and orientation of residue pairs
    EMBEDDING = "embedding"  # nothing; the hidden states are the result


@dataclass(frozen=True)
class TaskTypeTraits:
    """Properties of a task type.

    Attributes:
        head: suffix of the class names of models with this head (``ProteinBert`` + ``ForValuePrediction``).
        batch_size: default proteins per optimizer step. TAPE's 1024 leave only a few steps on a small data set
            (bug 11 in docs/compatibility.md); these give hundreds, and need little memory.
        counted: the items that the loss is a mean over, whose number weights micro-batches.
        headline: metrics shown in log lines.
    """

    head: str
    batch_size: int
    counted: str
    headline: tuple[str, ...] = ("loss",)


TASK_TYPE_TRAITS: dict[TaskType, TaskTypeTraits] = {
    TaskType.VALUE: TaskTypeTraits("ForValuePrediction", 64, "proteins", ("loss", "spearmanr")),
    TaskType.SEQUENCE_CLASS: TaskTypeTraits("ForSequenceClassification", 32, "proteins", ("loss", "accuracy")),
    TaskType.MULTILABEL: TaskTypeTraits("ForSequenceClassification", 32, "labels of proteins", ("loss", "macro_f1")),
    TaskType.RESIDUE_CLASS: TaskTypeTraits("ForSequenceToSequenceClassification", 32, "residues", ("loss", "accuracy")),
    TaskType.RESIDUE_PAIR: TaskTypeTraits(
        "ForContactPrediction", 8, "residue pairs", ("loss", "precision_at_l5", "precision_at_l5_medium_long")
    ),
    TaskType.MASKED_LM: TaskTypeTraits("ForMaskedLM", 64, "tokens", ("loss", "perplexity", "accuracy")),
    TaskType.LANGUAGE_MODEL: TaskTypeTraits("ForLM", 64, "tokens", ("loss", "perplexity", "accuracy")),
    TaskType.PAIR_GEOMETRY: TaskTypeTraits("", 1, "proteins", ("loss", "accuracy_dist", "precision_at_l5_medium_long")),
    TaskType.EMBEDDING: TaskTypeTraits("Model", 32, "proteins"),
}

# model_type -> module and prefix of its class names
MODEL_FAMILIES: dict[str, tuple[str, str]] = {
    "transformer": ("tape.models.modeling_bert", "ProteinBert"),
    "huggingface": ("tape.models.modeling_huggingface", "ProteinHuggingFace"),
    "lstm": ("tape.models.modeling_lstm", "ProteinLSTM"),
    "onehot": ("tape.models.modeling_onehot", "ProteinOneHot"),
    "resnet": ("tape.models.modeling_resnet", "ProteinResNet"),
    "trrosetta": ("tape.models.modeling_trrosetta", "TRRosetta"),
    "unirep": ("tape.models.modeling_unirep", "UniRep"),
}


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: name on the command line.
        num_labels: number of classes; -1 if the task has none.
        folder: data are stored in ``DATA_DIR/folder/folder_SPLIT.lmdb``.
        splits: published splits, in their usual order. Other splits found on disk can be used too.
        task_type: what is predicted; None: inferred from the first batch of a third party's task.
        dataset: ``"module:Class"``.
        models: model families that have the head.
        class_names: names of the classes; empty if they have none.
    """

    name: str
    num_labels: int = -1
    folder: str = ""
    splits: tuple[str, ...] = ()
    task_type: TaskType | None = None
    dataset: str = ""
    models: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    @property
    def model_references(self) -> dict[str, str]:
        """model_type -> ``"module:Class"`` of the class with this task's head."""
        if self.task_type is None:
            return {}
        head = TASK_TYPE_TRAITS[self.task_type].head
        return {name: "{}:{}{}".format(*MODEL_FAMILIES[name], head) for name in self.models}


_ENCODERS = ("transformer", "lstm", "resnet", "unirep", "huggingface")
LABELED_MODELS = ("transformer", "lstm", "onehot", "resnet", "unirep", "huggingface")

BUILT_IN_TASKS: tuple[Task, ...] = (
    Task("embed", task_type=TaskType.EMBEDDING, dataset="tape.datasets.embedding:EmbedDataset", models=_ENCODERS),
    Task(
        "masked_language_modeling",
        folder="pfam",
        splits=("train", "valid", "holdout"),
        task_type=TaskType.MASKED_LM,
        dataset="tape.datasets.language_modeling:MaskedLanguageModelingDataset",
        models=("transformer", "resnet", "huggingface"),
    ),
    Task(
        "language_modeling",
        folder="pfam",
        splits=("train", "valid", "holdout"),
        task_type=TaskType.LANGUAGE_MODEL,
        dataset="tape.datasets.language_modeling:LanguageModelingDataset",
        models=("lstm", "unirep"),
    ),
    Task(
        "fluorescence",
        folder="fluorescence",
        splits=("train", "valid", "test"),
        task_type=TaskType.VALUE,
        dataset="tape.datasets.whole_protein:FluorescenceDataset",
        models=LABELED_MODELS,
    ),
    Task(
        "stability",
        folder="stability",
        splits=("train", "valid", "test"),
        task_type=TaskType.VALUE,
        dataset="tape.datasets.whole_protein:StabilityDataset",
        models=LABELED_MODELS,
    ),
    Task(
        "remote_homology",
        num_labels=1195,
        folder="remote_homology",
        splits=("train", "valid", "test_fold_holdout", "test_family_holdout", "test_superfamily_holdout"),
        task_type=TaskType.SEQUENCE_CLASS,
        dataset="tape.datasets.whole_protein:RemoteHomologyDataset",
        models=LABELED_MODELS,
    ),
    Task(
        "contact_prediction",
        folder="proteinnet",
        splits=("train", "train_unfiltered", "valid", "test"),
        task_type=TaskType.RESIDUE_PAIR,
        dataset="tape.datasets.contacts:ProteinnetDataset",
        models=LABELED_MODELS,
    ),
    Task(
        "secondary_structure",
        num_labels=3,
        folder="secondary_structure",
        splits=("train", "valid", "casp12", "ts115", "cb513"),
        task_type=TaskType.RESIDUE_CLASS,
        dataset="tape.datasets.residue:SecondaryStructureDataset",
        models=LABELED_MODELS,
        class_names=tuple("HEC"),
    ),
    Task(
        "secondary_structure_8",
        num_labels=8,
        folder="secondary_structure",
        splits=("train", "valid", "casp12", "ts115", "cb513"),
        task_type=TaskType.RESIDUE_CLASS,
        dataset="tape.datasets.residue:EightStateDataset",
        models=LABELED_MODELS,
        class_names=tuple("GHIBESTC"),
    ),
    Task(
        "trrosetta",
        folder="trrosetta",
        splits=("train", "valid"),
        task_type=TaskType.PAIR_GEOMETRY,
        dataset="tape.datasets.trrosetta:TRRosettaDataset",
        models=("trrosetta",),
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in BUILT_IN_TASKS}
