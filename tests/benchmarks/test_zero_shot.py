"""Zero-shot scores of variants against their definition."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from benchmarks.zero_shot import Correlation, VariantSet, correlate, main
from tape.errors import ConfigError
from tape.hub.bundled import DEFAULT_MODEL
from tape.io.lmdb_store import write_lmdb
from tape.metrics.bootstrap import Bootstrap
from tape.tokenizers import TAPETokenizer
from tests.support.bundled_models import install_model

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
TOKENIZER = TAPETokenizer()


def records(model: Any, count: int, length: int, seed: int) -> list[dict[str, Any]]:
    """Variants of one protein, each labeled with its additive masked marginal by plain loops."""
    chance = random.Random(seed)
    wild_type = chance.choices(RESIDUES, k=length)
    table = []
    for position in range(length):
        ids = torch.from_numpy(TOKENIZER.encode("".join(wild_type)))[None]
        ids[0, position + 1] = TOKENIZER.mask_id
        with torch.no_grad():
            table.append(model(ids)[0][0, position + 1].double().log_softmax(-1))
    made = []
    for _ in range(count):
        variant, score = list(wild_type), 0.0
        for place in chance.sample(range(length), chance.randint(1, 4)):
            variant[place] = chance.choice(RESIDUES)
            before, after = (TOKENIZER.convert_token_to_id(one) for one in (wild_type[place], variant[place]))
            score += float(table[place][after] - table[place][before])
        made.append({"primary": "".join(variant), "log_fluorescence": [score]})
    return made


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fluorescence test set whose labels are the scores of the bundled model, of two proteins."""
    model = install_model(tmp_path / "pretrained", monkeypatch)
    (tmp_path / "fluorescence").mkdir()
    rows = [*records(model, 40, 50, seed=1), *records(model, 30, 40, seed=2)]
    write_lmdb(tmp_path / "fluorescence" / "fluorescence_test.lmdb", rows)
    return tmp_path


def run(data: Path, *words: str) -> dict[str, Any]:
    out = data / "result.json"
    main([str(data), "--tasks", "fluorescence", "--no-cuda", "--json", str(out), *words])
    content: dict[str, Any] = json.loads(out.read_text())
    return content


def test_scores_are_additive_masked_marginals(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (result,) = run(data, "--bootstrap", "50")["results"]
    rho = result["metrics"]["spearmanr"]
    assert rho["value"] == pytest.approx(1.0, abs=1e-6)
    assert rho["interval"] == pytest.approx([1.0, 1.0], abs=1e-6)
    assert result["metrics"]["mean_over_proteins"]["value"] == pytest.approx(1.0, abs=1e-6)
    assert result["metrics"]["fewer_substitutions"]["value"] < 0.9
    assert [family["variants"] for family in result["families"]] == [40, 30]
    assert "| fluorescence test | 70 | 2 | 0 | 1.000 [1.000, 1.000] |" in capsys.readouterr().out


def test_the_record_has_machine_date_seed_and_model(data: Path) -> None:
    content = run(data, "--seed", "7", "--bootstrap", "0")
    assert {"processor", "torch", "date"} <= content["machine"].keys()
    assert (content["options"]["seed"], content["options"]["model"]) == (7, DEFAULT_MODEL)
    assert len(content["model_sha256"]) == len(content["results"][0]["data_sha256"]) == 64
    assert content["results"][0]["metrics"]["spearmanr"]["interval"] is None


def test_a_sample_depends_on_the_seed_alone(data: Path) -> None:
    found = [run(data, "--variants", "20", "--seed", seed)["results"][0] for seed in ("1", "1", "2")]
    assert [result["variants"] for result in found] == [20, 20, 20]
    values = [result["metrics"]["fewer_substitutions"]["value"] for result in found]
    assert values[0] == values[1] != values[2]


def test_all_variants_are_kept_if_fewer_than_the_sample() -> None:
    values = np.arange(3.0)
    variants = VariantSet(values, values, values, values)
    assert variants.sample(5, seed=0) is variants
    assert variants.sample(None, seed=0) is variants


def test_a_mean_over_proteins_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    true, predicted, groups = rng.normal(size=60), rng.normal(size=60), np.repeat([0, 1, 2], [10, 20, 30])
    expected = [spearmanr(true[groups == group], predicted[groups == group]).statistic for group in range(3)]
    found = correlate(true, predicted, groups, Bootstrap(200))
    assert found.value == pytest.approx(np.mean(expected))
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]


def test_a_constant_side_has_no_correlation() -> None:
    found = correlate(np.arange(5.0), np.zeros(5), np.zeros(5), Bootstrap(10))
    assert np.isnan(found.value)
    assert found.to_dict() == {"value": None, "interval": None}
    assert str(Correlation(0.5, (0.25, 0.75))) == "0.500 [0.250, 0.750]"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "remote_homology"], "--tasks remote_homology: has no value per protein"),
        (["--variants", "1"], "--variants: a correlation needs at least 2 variants"),
    ],
)
def test_unusable_options_are_refused(words: list[str], message: str, data: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        main([str(data), "--no-cuda", *words])
