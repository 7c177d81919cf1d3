"""``tape.load``: the numbers are those of the files that the commands write."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

import tape
from tape import LoadedModel
from tape.cli.contacts import run_contacts
from tape.cli.score import run_score
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError, DataError
from tape.evaluation.results import model_hash
from tape.inference.contact_regression import ContactRegression, keep_with_model
from tape.main import run_embed, run_eval
from tape.models.modeling_bert import ProteinBertForMaskedLM
from tape.registry import registry
from tests.support.bundled_models import install_model

PROTEINS = {"a": "MKVLAGWYACDEFGHIK", "b": "MKV", "c": "GGAVL", "long": "MKTAYIAKQRQISFVKSHFSRQ" * 2}
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model with 20 positions."""
    torch.manual_seed(0)
    made = ProteinBertForMaskedLM(ProteinBertConfig(**SIZES, max_position_embeddings=20, initializer_range=0.5))
    directory = tmp_path_factory.mktemp("model") / "lm"
    made.save_pretrained(directory)
    return directory


@pytest.fixture
def finetuned(tmp_path: Path, small_config: Path) -> Callable[[str], Path]:
    """The directory of a model with the head of a task."""

    def save(task: str) -> Path:
        torch.manual_seed(3)
        made = registry.get_task_model("transformer", task, small_config, finetuning_task=task, initializer_range=0.5)
        made.save_pretrained(tmp_path / task)
        return tmp_path / task

    return save


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    (tmp_path / "p.fasta").write_text("".join(f">{name}\n{residues}\n" for name, residues in PROTEINS.items()))
    return tmp_path / "p.fasta"


def loaded(source: str | Path, **options: Any) -> LoadedModel:
    return tape.load(source, device="cpu", **options)


def words(*options: object) -> list[str]:
    return [*map(str, options), "--no_cuda", "--log_level", "40"]


@pytest.mark.parametrize("length", ["window", "crop"])
def test_embeddings_are_those_of_the_command(language_model: Path, fasta: Path, tmp_path: Path, length: str) -> None:
    run_embed(words("transformer", fasta, tmp_path / "out.npz", language_model, "--length", length))
    model = loaded(language_model)
    mean = model.embed(PROTEINS, length=length)
    pooled = model.embed(list(PROTEINS.values()), pooling="pooled", length=length)
    with np.load(tmp_path / "out.npz", allow_pickle=True) as arrays:
        for number, name in enumerate(PROTEINS):
            np.testing.assert_array_equal(arrays[name].item()["avg"], mean[name])
            np.testing.assert_array_equal(arrays[name].item()["pooled"], pooled[number])


def test_states_of_layers_are_those_of_the_command(language_model: Path, fasta: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    import h5py

    options = ("--full_sequence_embed", "--layers", "all", "--length", "window", "--hdf5_layout", "id")
    run_embed(words("transformer", fasta, tmp_path / "out.h5", language_model, *options))
    states = loaded(language_model).embed(PROTEINS, pooling="none", layers="all", length="window")
    assert states["b"].shape == (3, 3, 16)  # layers, residues, hidden size
    with h5py.File(tmp_path / "out.h5") as file:
        for name in PROTEINS:
            np.testing.assert_array_equal(file[name], states[name])


def test_one_protein_has_one_array_and_several_have_a_list(language_model: Path) -> None:
    model = loaded(language_model)
    assert model.embed("MKV").shape == (16,)
    assert model.embed("MKV", pooling="none").shape == (3, 16)
    assert model.embed("MKV", layers=[0, 2]).shape == (2, 16)
    assert [states.shape for states in model.embed(["MKV", "MKVLA"], pooling="none")] == [(3, 16), (5, 16)]


def test_no_result_depends_on_the_batch(language_model: Path) -> None:
    proteins = ["MKVLAGWYACDEFGHIK", "MKV", "GGAVL"]
    alone, together = (np.stack(loaded(language_model, batch_size=size).embed(proteins)) for size in (1, 8))
    np.testing.assert_allclose(alone, together, atol=1e-5)


@pytest.mark.parametrize("task", ["stability", "remote_homology", "secondary_structure", "contact_prediction"])
def test_predictions_are_those_of_the_command(
    finetuned: Callable[[str], Path], fasta: Path, tmp_path: Path, task: str
) -> None:
    directory = finetuned(task)
    out = tmp_path / "out.json"
    run_eval(words("transformer", task, directory, "--predict", fasta, "--predict_out", out))
    table = loaded(directory).predict(fasta)
    rows = json.loads(out.read_text())["predictions"]
    assert table["id"].tolist() == list(PROTEINS)
    for row, (_, found) in zip(rows, table.iterrows(), strict=True):
        assert found["length"] == row["length"]
        if task == "stability":
            assert found["prediction"] == pytest.approx(row["prediction"], rel=1e-5)
        elif task == "contact_prediction":
            with np.load(tmp_path / row["map"]) as arrays:
                np.testing.assert_array_equal(found["probabilities"], arrays["probabilities"])
            assert found["contacts"] == row["contacts"]
        else:
            assert found["prediction"] == row["prediction"]
            np.testing.assert_allclose(found["probabilities"], row["probabilities"], atol=5e-5)


def test_contacts_are_the_predictions_of_one_protein(finetuned: Callable[[str], Path]) -> None:
    model = loaded(finetuned("contact_prediction"))
    contacts = model.contacts(PROTEINS["a"])
    assert contacts.shape == (17, 17)
    np.testing.assert_array_equal(contacts, model.predict(PROTEINS["a"])["probabilities"][0])
    assert list(model._models) == ["contact_prediction"]  # one model for both


def test_contacts_of_a_regression_are_those_of_the_command(language_model: Path, fasta: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(language_model, directory)
    weights = np.random.default_rng(0).normal(size=4)  # 2 layers of 2 heads
    keep_with_model(directory, ContactRegression(weights, -0.5, ("p",), 9, 0.15), model_hash(directory))
    run_contacts(
        words("transformer", directory, "--predict", fasta, "--predict_out", tmp_path / "o.csv", "--length", "window")
    )
    model = loaded(directory)
    with (tmp_path / "o.csv").open() as stream:
        for row in csv.DictReader(stream):
            with np.load(tmp_path / row["map"]) as arrays:
                expected = arrays["probabilities"]
            np.testing.assert_array_equal(model.contacts(PROTEINS[row["id"]], length="window"), expected)
            kept = directory / "contact_regression.json"
            without = loaded(language_model).contacts(PROTEINS[row["id"]], regression=kept, length="window")
            np.testing.assert_array_equal(without, expected)


def test_scores_are_those_of_the_command(language_model: Path, tmp_path: Path) -> None:
    wild_type, mutations = PROTEINS["long"], ["M1A", "K2R:Y5F", "p.Lys2del"]
    (tmp_path / "v.csv").write_text("\n".join(["mutant", *mutations]))
    methods = ("masked_marginal", "wild_type_marginal", "pseudo_likelihood_ratio")
    paths = (tmp_path / "v.csv", tmp_path / "out.csv", language_model)
    run_score(words("transformer", *paths, "--wild_type", wild_type, "--methods", *methods))
    with (tmp_path / "out.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    model = loaded(language_model)
    for method in methods:
        expected = [float(row[method]) for row in rows if row[method]]
        found = model.score(wild_type, mutations[: len(expected)], method=method)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert model.score(wild_type, "M1A") == pytest.approx(float(rows[0]["masked_marginal"]), rel=1e-5)


def test_scores_of_all_single_substitutions_are_those_of_the_command(language_model: Path, tmp_path: Path) -> None:
    paths = (PROTEINS["a"], tmp_path / "out.csv", language_model)
    run_score(words("transformer", *paths, "--all-singles", "--first_residue", 5))
    table = loaded(language_model).score_all_singles(PROTEINS["a"], first_residue=5)
    with (tmp_path / "out.csv").open() as stream:
        for row in csv.DictReader(stream):
            residue, substitute = row["mutation"][:-1], row["mutation"][-1]
            assert table.loc[residue, substitute] == pytest.approx(float(row["masked_marginal"]), rel=1e-5)
    assert table.loc["M5", "M"] == 0


def test_perplexities_are_those_of_the_command(language_model: Path, tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("mutant\nWT\nM1A\n")
    paths = (tmp_path / "v.csv", tmp_path / "out.csv", language_model)
    run_score(words("transformer", *paths, "--wild_type", "MKV", "--methods", "pseudo_perplexity"))
    with (tmp_path / "out.csv").open() as stream:
        expected = [float(row["pseudo_perplexity"]) for row in csv.DictReader(stream)]
    model = loaded(language_model)
    np.testing.assert_allclose(model.perplexity(["MKV", "AKV"]), expected, rtol=1e-5)
    assert model.perplexity("MKV") == pytest.approx(expected[0], rel=1e-5)


def test_proteins_come_in_every_form(language_model: Path, fasta: Path) -> None:
    model = loaded(language_model)
    expected = model.embed(["MKV", "GGAVL"])
    table = pandas.DataFrame({"id": ["x", "y"], "sequence": ["MKV", "GGAVL"]})
    fasta.write_text(">x\nMKV\n>y\nGGAVL*\n")
    for named in (model.embed({"x": "MKV", "y": "GGAVL"}), model.embed(table), model.embed(str(fasta))):
        assert list(named) == ["x", "y"]
        np.testing.assert_array_equal(list(named.values()), expected)
    np.testing.assert_array_equal(model.embed(table["sequence"]), expected)


def test_a_run_directory_is_its_best_epoch(train: Callable[..., Path], tmp_path: Path) -> None:
    run = train("onehot", "stability", "--num_train_epochs", 1)
    model = loaded(run)
    assert (model.model_type, model.task) == ("onehot", "stability")
    assert model.directory.parent == run
    assert np.isfinite(model.predict(["MKV", "GGAVL"])["prediction"]).all()


def test_an_encoder_of_transformers_is_loaded_from_its_directory(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tests.support.huggingface_models import save_model

    transformers.logging.set_verbosity_error()
    save_model(tmp_path / "hf", "esm")
    model = loaded(tmp_path / "hf")
    assert model.model_type == "huggingface"
    assert model.embed("MKV").shape == (16,)
    assert model.perplexity("MKV") > 1


def test_a_bundled_model_is_loaded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_model(tmp_path / "bundled", monkeypatch, "small")
    assert loaded("small").embed("MKV").ndim == 1


def test_a_checkpoint_of_pretraining_is_refused_with_its_conversion(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "iter_0000010").mkdir(parents=True)
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("10")
    with pytest.raises(CheckpointError, match=r"proteinlm convert -src .*checkpoints -out MODEL_DIRECTORY"):
        tape.load(tmp_path / "checkpoints")


SEQUENCES = pandas.DataFrame({"sequence": ["MKV"]})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda model: model.predict("MKV"), ConfigError, "not finetuned, so it predicts no labels"),
        (lambda model: model.contacts("MKV"), ConfigError, "has neither a head for contacts nor a regression"),
        (lambda model: model.embed(5), ConfigError, "proteins are text, a list of texts, .*, not int"),
        (lambda model: model.embed([]), ConfigError, "there are no proteins"),
        (lambda model: model.embed(["MKV", 5]), DataError, "protein 2: 'primary' must be text, not int"),
        (lambda model: model.embed({"x": "MK1"}), DataError, r"protein 1 \(x\): unknown residue '1'"),
        (lambda model: model.embed("A" * 19), DataError, "protein 1: 19 residues, but the model has positions for 18"),
        (lambda model: model.embed("MKV", length="windows"), ConfigError, "length must be one of error, crop, window"),
        (lambda model: model.embed("MKV", pooling="cls"), ConfigError, "pooling must be one of mean, pooled, none"),
        (
            lambda model: model.embed("MKV", layers="last"),
            ConfigError,
            "layers must be a whole number, several, or 'all'",
        ),
        (lambda model: model.embed("MKV", layers=9), ConfigError, "^layers 9: the model has the layers 0"),
        (lambda model: model.embed("A" * 19), DataError, "Use a model with more positions, length crop or length win"),
        (lambda model: model.embed("MKV", pooling="pooled", layers=0), ConfigError, "that of the last layer"),
        (lambda model: model.embed("gone.fasta"), DataError, "gone.fasta: no such file"),
        (lambda model: model.score("MKV", "A2G"), DataError, "A2G: residue 2 is K, not A"),
        (lambda model: model.score("MKV", "K2del"), ConfigError, "give method='pseudo_likelihood_ratio'"),
        (lambda model: model.score("MKV", 5), ConfigError, "are text, not int"),
        (lambda model: model.score(["MKV"], "K2A"), ConfigError, "are text, not list"),
        (lambda model: model.score("MKV", {"K2A": 1.0}), ConfigError, "score takes text or a list of texts, not dict"),
        (lambda model: model.perplexity(SEQUENCES), ConfigError, "perplexity takes text .* not DataFrame; give one of"),
        (lambda model: model.embed(SEQUENCES.rename(columns={"sequence": "x"})), DataError, "it has x; rename one to"),
        (lambda model: model.embed(SEQUENCES.assign(text="M")), DataError, "text and sequence may both be the seq"),
        (lambda model: model.score("MKV", "K2A", method="esm"), ConfigError, "method must be one of"),
        (lambda model: model.perplexity("A" * 19, length="error"), DataError, "protein '1': 19 residues"),
    ],
)
def test_mistakes_are_answered_by_one_sentence(
    language_model: Path, call: Callable[[LoadedModel], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(loaded(language_model))


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (5, {}, "load takes the path or the name of a model, not int"),
        ("gone", {}, "gone: no such model directory"),
        ("gone", {"device": "gpu"}, "device must be cpu or cuda"),
        ("gone", {"precision": "fp8"}, "precision must be one of"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_named(source: Any, options: dict[str, str], message: str) -> None:
    with pytest.raises((CheckpointError, ConfigError), match=message):
        tape.load(source, **options)


def test_a_model_without_the_wanted_head_is_named(finetuned: Callable[[str], Path]) -> None:
    model = loaded(finetuned("stability"))
    with pytest.raises(CheckpointError, match="finetuned on stability, so it has no trained weights of a head for mas"):
        model.score("MKV", "K2A")
    with pytest.raises(ConfigError, match="has neither a head for contacts nor a regression"):
        model.contacts("MKV")
