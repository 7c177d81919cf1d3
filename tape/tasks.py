"""The tasks, as records. A task's shape chooses its head, what its loss is weighted by, and its metrics.

Nothing here imports torch: datasets and models are named as ``"module:Class"`` and looked up when first asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class TaskType(str, Enum):
    """What is predicted about a protein."""

    VALUE = "value"  # one number a protein
    SEQUENCE_CLASS = "sequence class"  # one class a protein
    RESIDUE_CLASS = "residue class"  # one class a residue
    RESIDUE_PAIR = "residue pair"  # contact or not, a pair of residues
    MASKED_LM = "masked lm"  # the residues that were masked
    LANGUAGE_MODEL = "language model"  # the next residue
    PAIR_GEOMETRY = "pair geometry"  # distance and orientation of residue pairs
    EMBEDDING = "embedding"  # nothing; states are read out


@dataclass(frozen=True)
class TaskTypeTraits:
    """What follows from a shape.

    Attributes:
        head: ending of the class name of models with this head (``ProteinBert`` + ``ForValuePrediction``).
        batch_size: proteins an optimizer step when ``--batch_size`` is not given. TAPE's 1024 leaves a small set a
            handful of steps (defect 11); these give hundreds, and need little memory.
        counted: what the loss is a mean over, and so what batches are weighted by.
        headline: the metrics that a line of the log has room for.
    """

    head: str
    batch_size: int
    counted: str
    headline: tuple[str, ...] = ("loss",)


TASK_TYPE_TRAITS: dict[TaskType, TaskTypeTraits] = {
    TaskType.VALUE: TaskTypeTraits("ForValuePrediction", 64, "proteins", ("loss", "spearmanr")),
    TaskType.SEQUENCE_CLASS: TaskTypeTraits("ForSequenceClassification", 32, "proteins", ("loss", "accuracy")),
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
        name: what the command line calls it.
        num_labels: classes, or -1 where the notion has no meaning.
        folder: data lie in ``DATA_DIR/folder/folder_SPLIT.lmdb``.
        splits: published splits, in their usual order. Any other split found on disk is admitted too.
        task_type: what is predicted; None for a third party's task until its first batch is seen.
        dataset: ``"module:Class"``.
        models: model families that have the head.
    """

    name: str
    num_labels: int = -1
    folder: str = ""
    splits: tuple[str, ...] = ()
    task_type: TaskType | None = None
    dataset: str = ""
    models: tuple[str, ...] = ()

    @property
    def model_references(self) -> dict[str, str]:
        """model_type -> ``"module:Class"`` of the class with this task's head."""
        if self.task_type is None:
            return {}
        head = TASK_TYPE_TRAITS[self.task_type].head
        return {name: "{}:{}{}".format(*MODEL_FAMILIES[name], head) for name in self.models}


_ENCODERS = ("transformer", "lstm", "resnet", "unirep")
_LABELLED = ("transformer", "lstm", "onehot", "resnet", "unirep")

BUILT_IN_TASKS: tuple[Task, ...] = (
    Task("embed", task_type=TaskType.EMBEDDING, dataset="tape.datasets.embedding:EmbedDataset", models=_ENCODERS),
    Task(
        "masked_language_modeling",
        folder="pfam",
        splits=("train", "valid", "holdout"),
        task_type=TaskType.MASKED_LM,
        dataset="tape.datasets.language_modeling:MaskedLanguageModelingDataset",
        models=("transformer", "resnet"),
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
        models=_LABELLED,
    ),
    Task(
        "stability",
        folder="stability",
        splits=("train", "valid", "test"),
        task_type=TaskType.VALUE,
        dataset="tape.datasets.whole_protein:StabilityDataset",
        models=_LABELLED,
    ),
    Task(
        "remote_homology",
        num_labels=1195,
        folder="remote_homology",
        splits=("train", "valid", "test_fold_holdout", "test_family_holdout", "test_superfamily_holdout"),
        task_type=TaskType.SEQUENCE_CLASS,
        dataset="tape.datasets.whole_protein:RemoteHomologyDataset",
        models=_LABELLED,
    ),
    Task(
        "contact_prediction",
        folder="proteinnet",
        splits=("train", "train_unfiltered", "valid", "test"),
        task_type=TaskType.RESIDUE_PAIR,
        dataset="tape.datasets.contacts:ProteinnetDataset",
        models=_LABELLED,
    ),
    Task(
        "secondary_structure",
        num_labels=3,
        folder="secondary_structure",
        splits=("train", "valid", "casp12", "ts115", "cb513"),
        task_type=TaskType.RESIDUE_CLASS,
        dataset="tape.datasets.residue:SecondaryStructureDataset",
        models=_LABELLED,
    ),
    Task(
        "secondary_structure_8",
        num_labels=8,
        folder="secondary_structure",
        splits=("train", "valid", "casp12", "ts115", "cb513"),
        task_type=TaskType.RESIDUE_CLASS,
        dataset="tape.datasets.residue:EightStateDataset",
        models=_LABELLED,
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
