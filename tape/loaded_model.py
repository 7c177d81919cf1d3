"""A trained model as in a notebook: ``tape.load(...)``, then embeddings, predictions, contacts and scores of proteins.

The numbers are those of ``tape-embed``, ``tape-eval --predict`` and ``tape-score``, which call the same functions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from tape.datasets.sequence_list import GivenProteins, given_proteins
from tape.errors import CheckpointError, ConfigError, DataError, options_as_arguments, quoted
from tape.evaluation.config import LENGTH_POLICIES, InferenceConfig, ModelSource
from tape.evaluation.load_model import load_encoder, load_finetuned_model, model_directory, stored_config
from tape.evaluation.long_proteins import fit_long_proteins
from tape.evaluation.model_type import model_type_of, read_config, vocabulary_of
from tape.inference.all_singles import AMINO_ACIDS, single_scores
from tape.inference.contact_models import load_contact_model
from tape.inference.embed import embedded_batches
from tape.inference.embedded_proteins import split_layers
from tape.inference.hidden_layers import LAST, select_layers
from tape.inference.mutation_notation import apply_mutations
from tape.inference.predict import Prediction, check_predicted, predict
from tape.inference.prediction_files import prediction_fields
from tape.inference.variant_effects import VariantScorer
from tape.inference.variants import METHODS, PSEUDO_LIKELIHOODS, SINGLE_METHODS, Variant
from tape.registry import TaskSpec, registry
from tape.runtime.cpu import configure_cpu
from tape.runtime.distributed import DistributedContext, choose_device
from tape.runtime.precision_choice import PRECISION_CHOICES, resolve_precision
from tape.targets import Target
from tape.tasks import TaskType
from tape.tokenizers import TAPETokenizer, normalize_sequence, refuse_names

if TYPE_CHECKING:
    from pandas import DataFrame

Proteins = Any  # see tape.datasets.sequence_list.given_proteins
POOLINGS = ("mean", "pooled", "none")


def load(
    source: str | os.PathLike[str],
    *,
    model_type: str | None = None,
    tokenizer: str | None = None,
    device: str | None = None,
    precision: str = "fp32",
    batch_size: int | None = None,
    verify: bool = True,
) -> LoadedModel:
    """Open a trained model.

    Args:
        source: a run directory of finetuning (its best saved epoch), a model directory, a directory of
            ``transformers``, the name of a bundled or published model, or a URL.
        model_type: its model type; None: according to its files.
        tokenizer: name of its vocabulary; None: according to its files.
        device: ``cpu`` or ``cuda``; None: the GPU, if there is one.
        precision: fp32, bf16, fp16, or auto for the faster one of fp32 and bf16; the last digits depend on it.
        batch_size: proteins per forward pass, which does not change the results; None: the default of the task type.
        verify: compare the model's files with their checksums.

    Returns:
        The model; each method loads the weights that it needs at its first call.

    Raises:
        CheckpointError: there is no model, such as in a checkpoint of pretraining, which has to be converted first.
        ConfigError: an argument can't be used, or the model type can't be determined.
        DataError: the model can't be downloaded.
    """
    if not isinstance(source, str | os.PathLike):
        raise ConfigError(f"load takes the path or the name of a model, not {type(source).__name__}")
    if precision not in PRECISION_CHOICES:
        raise ConfigError(f"precision must be one of {', '.join(PRECISION_CHOICES)}, not {quoted(precision)}")
    if device not in (None, "cpu", "cuda"):
        raise ConfigError(f"device must be cpu or cuda, or None for the GPU if there is one, not {quoted(device)}")
    chosen = choose_device(0, no_cuda=device == "cpu")
    if device == "cuda" and chosen.type != "cuda":
        raise ConfigError("device is cuda, but torch finds no GPU")
    if chosen.type == "cpu":
        configure_cpu()
    context = DistributedContext(device=chosen)
    directory = model_directory(ModelSource("", os.fspath(source)))
    known = model_type or model_type_of(directory)
    vocabulary = tokenizer or vocabulary_of(directory, known)
    inference = InferenceConfig(batch_size, precision=resolve_precision(precision, context))
    return LoadedModel(ModelSource(known, str(directory), vocabulary, verify), directory, inference, context)


class LoadedModel:
    """A trained model with its tokenizer, made by :func:`load`.

    Proteins are given as the residues of one, a list of these, a dictionary from ids to residues, a pandas DataFrame
    with a column of sequences and perhaps ``id``, or a file that the commands read: a ``Path``, or text with a suffix,
    such as ``new.fasta``. As in the commands, lower case is read as upper case, J as X, and a stop ``*`` at the end is
    removed.

    Attributes:
        directory: the model directory.
        model_type: its model type, such as ``transformer``.
        task: name of the task that it was finetuned on; None for a pretrained model.
        tokenizer: its tokenizer.
    """

    def __init__(
        self, source: ModelSource, directory: Path, inference: InferenceConfig, context: DistributedContext
    ) -> None:
        self._source, self._inference, self._context = source, inference, context
        self.directory, self.model_type = directory, source.model_type
        self.tokenizer = TAPETokenizer(source.tokenizer)
        task = read_config(directory).get("finetuning_task")
        self.task = task if isinstance(task, str) else None
        self._models: dict[str, nn.Module] = {}

    def __repr__(self) -> str:
        task = "" if self.task is None else f", task={self.task!r}"
        return f"LoadedModel({str(self.directory)!r}, model_type={self.model_type!r}{task})"

    @options_as_arguments()
    def embed(
        self,
        proteins: Proteins,
        *,
        pooling: str = "mean",
        layers: int | Sequence[int] | str = -1,
        length: str = "error",
    ) -> Any:
        """Embeddings of proteins, as of ``tape-embed``.

        Args:
            proteins: see the class.
            pooling: ``mean`` over the residues, ``pooled`` for the model's own pooled output of the last layer, or
                ``none`` for the state of each residue, without ``<cls>`` and ``<sep>``.
            layers: number of a layer, several, or ``"all"``: 0 for the embeddings, -1 for the output.
            length: what to do with proteins longer than the model's position table: error, crop or window.

        Returns:
            float32: (H,) for one protein, or (L, H) with ``pooling="none"``; with several layers, (K, H) or (K, L, H).
            A list of these for several proteins, and a dictionary from ids to them for a dictionary, table or file.

        Raises:
            ConfigError: an argument can't be used.
            DataError: a protein can't be used. Names it.
        """
        if pooling not in POOLINGS:
            raise ConfigError(f"pooling must be one of {', '.join(POOLINGS)}, not {quoted(pooling)}")
        wanted = _layer_numbers(layers)
        if pooling == "pooled" and wanted != LAST:
            raise ConfigError("the pooled output is that of the last layer; leave out layers, or pool by mean")
        _check_length(length, LENGTH_POLICIES)
        given = given_proteins(proteins, self.tokenizer)
        name, states = ("embed", {}) if wanted == LAST else ("embed, hidden states", {"output_hidden_states": True})
        encoder = self._model(name, lambda: load_encoder(self._source, self.directory, **states))
        model, numbers = select_layers(encoder, wanted, self.tokenizer)
        model, dataset = fit_long_proteins(length, model, given.dataset, TaskType.EMBEDDING, given.name)
        found: dict[int, np.ndarray] = {}
        for batch in embedded_batches(model, dataset, self._inference, self._context, pooling == "none"):
            for index, (stored, pooled) in batch:
                values = split_layers(stored, len(numbers), pooling == "none")
                found[index] = pooled if pooling == "pooled" else values[..., 1:-1, :] if pooling == "none" else values
        return given.arrange(found)

    @options_as_arguments()
    def predict(self, proteins: Proteins, *, length: str = "error") -> DataFrame:
        """Predictions of a finetuned model, as of ``tape-eval --predict``.

        Args:
            proteins: see the class.
            length: what to do with proteins longer than the model's position table: error, crop or window.

        Returns:
            A row per protein in their order, with ``id``, ``length`` in residues, ``prediction`` (of several targets,
            ``prediction_COLUMN`` for each; of contacts, ``contacts``), for values of a table ``lower_90`` and
            ``upper_90``, and for classes and contacts ``probabilities``; see
            :func:`tape.inference.prediction_files.prediction_fields`.

        Raises:
            ConfigError: the model was not finetuned, or the task has no predictions for single proteins.
            DataError: a protein can't be used. Names it.
        """
        import pandas

        spec, task_type = self._finetuned()
        own = () if spec.target is None else (spec.target.names, spec.target.half_widths)
        given = given_proteins(proteins, self.tokenizer)
        rows = [
            {"id": one.identifier, "length": len(one.sequence), **prediction_fields(one, spec.name, task_type, *own)}
            for one in self._predictions(given, self._task_model(spec), task_type, length)
        ]
        return pandas.DataFrame(rows)

    @options_as_arguments()
    def contacts(
        self, sequence: str, *, regression: str | os.PathLike[str] | None = None, length: str = "error"
    ) -> np.ndarray:
        """Probabilities of contacts, as of ``tape-contacts --predict``.

        They are those of the head of a finetuned model, or of the regression on attention maps that ``tape-contacts``
        has kept with the model.

        Args:
            sequence: the residues of a protein.
            regression: ``regression.json`` of ``tape-contacts``, to use instead of the head or of the one that is kept.
            length: what to do with a protein longer than the model's position table: error, crop or window.

        Returns:
            (L, L) float32: the probability that the residues i and j (from 0) are less than 8 Angstrom apart.

        Raises:
            ConfigError: the model was finetuned on another task than contacts, or has no regression.
            DataError: the protein can't be used.
        """
        given = given_proteins(_one(sequence), self.tokenizer)
        has_head = registry.finetuned_task_type(stored_config(self.directory)) == TaskType.RESIDUE_PAIR
        name = self.task if self.task is not None and has_head else "contacts"  # a head is also that of predict
        file = None if regression is None else Path(regression)
        name = name if file is None else f"contacts by {file.resolve()}"
        model = self._model(name, lambda: load_contact_model(self._source, self.directory, file))
        (prediction,) = self._predictions(given, model, TaskType.RESIDUE_PAIR, length)
        return prediction.values

    @options_as_arguments()
    def score(
        self,
        sequence: str,
        mutations: str | Iterable[str],
        *,
        method: str = "masked_marginal",
        first_residue: int = 1,
        length: str = "window",
    ) -> Any:
        """Scores of variants, as of ``tape-score``; larger is better, except for ``pseudo_perplexity``.

        Args:
            sequence: the wild type.
            mutations: of one variant or of N, such as ``A4G``, ``A4G:V7L`` or ``p.Ala4_Gly6del``.
            method: a score of :mod:`tape.inference.variant_effects`.
            first_residue: number of the first residue.
            length: what to do with proteins longer than the model's position table: error or window.

        Returns:
            The score of one variant in nats, or (N,) float64 for several.

        Raises:
            ConfigError: there is no such method, it is not defined for insertions and deletions, or the model is no
                masked language model.
            DataError: a variant can't be scored. Names it.
        """
        if method not in METHODS:
            raise ConfigError(f"method must be one of {', '.join(METHODS)}, not {quoted(method)}")
        wild_type = _normalized(_one(sequence))
        words = _texts(mutations, "score")
        variants = [Variant("protein", *apply_mutations(word, wild_type, first_residue), {}) for word in words]
        indel = next((word for word, one in zip(words, variants, strict=True) if one.positions is None), None)
        if indel is not None and method not in PSEUDO_LIKELIHOODS:
            raise ConfigError(f"{indel} inserts or deletes residues; give method='{PSEUDO_LIKELIHOODS[0]}' to score it")
        scores = self._scorer(length).score(variants, {"protein": wild_type}, [method])[method]
        return float(scores[0]) if isinstance(mutations, str) else scores

    @options_as_arguments()
    def score_all_singles(
        self, sequence: str, *, method: str = "masked_marginal", first_residue: int = 1, length: str = "window"
    ) -> DataFrame:
        """Scores of all single substitutions, as of ``tape-score --all-singles``.

        Args:
            sequence: the wild type.
            method: masked_marginal, with a forward pass per residue, or wild_type_marginal, with a single one.
            first_residue: number of the first residue.
            length: what to do with proteins longer than the model's position table: error or window.

        Returns:
            A row per residue, such as ``M1``, and a column for each of the 20 amino acids, in nats; 0 at the wild type.

        Raises:
            ConfigError: there is no such method, or the model is no masked language model.
            DataError: the protein can't be used.
        """
        import pandas

        if method not in SINGLE_METHODS:
            raise ConfigError(f"method must be one of {', '.join(SINGLE_METHODS)}, not {quoted(method)}")
        wild_type = _normalized(_one(sequence))
        scorer = self._scorer(length)
        scorer.check_lengths({"protein": wild_type})
        scores = single_scores(scorer, self.tokenizer, "protein", wild_type, method)
        index = [f"{residue}{number}" for number, residue in enumerate(wild_type, start=first_residue)]
        return pandas.DataFrame(scores.values, index=index, columns=list(AMINO_ACIDS))

    @options_as_arguments()
    def perplexity(self, sequences: str | Iterable[str], *, length: str = "window") -> Any:
        """Pseudo-perplexity of proteins: exp(-PLL / L), with a forward pass per residue (Salazar et al. 2020).

        Args:
            sequences: the residues of one protein, or of N.
            length: what to do with proteins longer than the model's position table: error or window.

        Returns:
            The pseudo-perplexity of one protein, or (N,) float64 for several.

        Raises:
            ConfigError: the model is no masked language model.
            DataError: a protein can't be used.
        """
        residues = [_normalized(sequence) for sequence in _texts(sequences, "perplexity")]
        scorer = self._scorer(length)
        scorer.check_lengths({f"{number}": one for number, one in enumerate(residues, start=1)})
        likelihoods = scorer.pseudo_likelihoods(residues)
        found = np.array([np.exp(-likelihoods[one] / len(one)) for one in residues], dtype=np.float64)
        return float(found[0]) if isinstance(sequences, str) else found

    # --- models ---------------------------------------------------------------------------------------------------

    def _model(self, name: str, load_model: Callable[[], nn.Module]) -> nn.Module:
        """The model of this name on the device; loaded at the first call."""
        if name not in self._models:
            self._models[name] = load_model().to(self._context.device)
        return self._models[name]

    def _task_model(self, spec: TaskSpec) -> nn.Module:
        return self._model(spec.name, lambda: load_finetuned_model(self._source, spec, self.directory))

    def _finetuned(self) -> tuple[TaskSpec, TaskType]:
        if self.task is None:
            raise ConfigError(f"{self.directory}: not finetuned, so it predicts no labels; finetune it with tape-train")
        if (fields := read_config(self.directory).get("target")) is not None:
            registry.register_target(Target.from_dict(fields))
        spec = registry.get_task_spec(self.task)
        if spec.task_type is None:
            raise ConfigError(f"{self.directory}: the task {self.task} is registered without a task type")
        check_predicted(self.task, spec.task_type)
        return spec, spec.task_type

    def _predictions(
        self, given: GivenProteins, model: nn.Module, task_type: TaskType, length: str
    ) -> list[Prediction]:
        _check_length(length, LENGTH_POLICIES)
        model, dataset = fit_long_proteins(length, model, given.dataset, task_type, given.name)
        found = predict(model, dataset, task_type, self._inference, self._context)
        return sorted(found, key=lambda prediction: prediction.index)

    def _scorer(self, length: str) -> VariantScorer:
        _check_length(length, ("error", "window"))
        spec = registry.get_task_spec("masked_language_modeling")
        try:
            model = self._task_model(spec)
        except CheckpointError as error:
            if self.task in (None, spec.name):
                raise
            raise CheckpointError(
                f"{self.directory}: finetuned on {self.task}, so it has no trained weights of a head for masked"
                " residues; load the pretrained model instead"
            ) from error
        return VariantScorer(model, self.tokenizer, self._inference, self._context.device, length)


def _check_length(length: str, policies: Sequence[str]) -> None:
    if length not in policies:
        raise ConfigError(f"length must be one of {', '.join(policies)}, not {quoted(length)}")


def _layer_numbers(layers: Any) -> tuple[int, ...] | None:
    """Numbers of layers; None for all."""
    if isinstance(layers, str) and layers == "all":
        return None
    numbers = tuple(layers) if isinstance(layers, Iterable) else (layers,)
    if not numbers or not all(isinstance(number, int) for number in numbers):
        raise ConfigError(f"layers must be a whole number, several, or 'all', not {quoted(layers)}")
    return numbers


def _one(text: Any) -> str:
    """The residues of a protein, or the mutations of a variant."""
    if not isinstance(text, str):
        raise ConfigError(
            f"the residues of a protein, and the mutations of a variant, are text, not {type(text).__name__}"
        )
    return text


def _texts(texts: Any, taker: str) -> list[str]:
    refuse_names(texts, taker)
    return [_one(text) for text in ([texts] if isinstance(texts, str) or not isinstance(texts, Iterable) else texts)]


def _normalized(sequence: str) -> str:
    """The residues of a protein, as the commands read them."""
    residues = normalize_sequence(sequence, drop_gaps=False, drop_stop=True)[0]
    if not residues:
        raise DataError("the protein has no residues")
    return residues
