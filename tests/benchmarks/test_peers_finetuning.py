"""The comparison of finetuning with other tools: our side at a toy size, and the data of both sides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import peers_finetuning
from benchmarks.peers.labeled_proteins import WORKLOADS, choose, write_task
from benchmarks.peers.padded_training import LabeledProteins
from benchmarks.peers.rounds import OURS
from tape.errors import ConfigError
from tape.finetuning.config import FinetuneDataConfig
from tape.finetuning.data import load_training_data
from tape.registry import registry


def test_our_side_is_measured_and_absent_peers_are_skipped_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, absent = tmp_path / "result.json", tmp_path / "absent"
    words = ["--quick", "--no-install", "--peers-env", str(absent), "--threads", "1", "--json", str(result)]
    peers_finetuning.main([*words, "--workloads", "contacts_linear", "--peers", "Bert", "tape-proteins"])
    shown = capsys.readouterr().out
    assert "| tape-proteins | 1 protein | skipped: " in shown
    assert "Bert" not in shown  # transformers has no head for contacts
    written = json.loads(result.read_text())
    ours, peer = written["results"][0]["measurements"]
    assert (ours["tool"], len(ours["replies"])) == (OURS, 2)
    assert 0 < ours["warm_up"]["memory_bytes"] < 1e9
    assert peer["error"] == f"{absent} has no environment with peers_requirements.txt; omit --no-install to create it"
    assert written["data"]["residues"]["contacts_linear"] == [WORKLOADS["contacts_linear"].length / 2]


@pytest.mark.parametrize("name", WORKLOADS)
def test_both_sides_read_the_same_batch(name: str, tmp_path: Path) -> None:
    task = WORKLOADS[name].task
    write_task(tmp_path, task, ["ACDEFGHIKL"] if WORKLOADS[name].is_pairs else ["ACDEFGHIKL", "ACDE", "M"])
    data = load_training_data(FinetuneDataConfig(str(tmp_path)), registry.get_task_spec(task).dataset_class, False)
    ours = data.train.collate_fn([data.train[index] for index in range(len(data.train))])
    (theirs,) = LabeledProteins(tmp_path / "proteins.npz").batches(8)
    torch.testing.assert_close(theirs["input_ids"], ours["input_ids"])
    torch.testing.assert_close(theirs["attention_mask"].bool(), ours["input_mask"].bool())
    torch.testing.assert_close(theirs["targets"], ours["targets"])


def test_labels_of_padding_are_those_of_the_model(tmp_path: Path) -> None:
    write_task(tmp_path, "secondary_structure", ["ACDE", "M"])
    (batch,) = LabeledProteins(tmp_path / "proteins.npz", ignored=-100).batches(2)
    assert (batch["targets"] == -100).tolist() == [[True, *[False] * 4, True], [True, False, *[True] * 4]]


def test_proteins_of_natural_length_have_50_to_500_residues() -> None:
    proteins = ["A" * length for length in range(1, 1001)]
    lengths = [len(protein) for protein in choose(proteins, None, 40, 10)]
    assert len(lengths) == 40
    assert min(lengths) >= 50
    assert max(lengths) <= 500
    assert {len(protein) for protein in choose(proteins, 237, 5, 5)} == {237}
    with pytest.raises(ConfigError, match="2 proteins have 999 residues or more; --proteins asks for 3"):
        choose(proteins, 999, 3, 3)
