"""A run is resumed with the same samples and schedule, or else an error states both values; flags allow changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pretrain.checkpointing import CheckpointConfig
from pretrain.config.flags import make_parser
from pretrain.config.parser import IGNORED_FLAGS
from pretrain.data.preprocessing import preprocess
from pretrain.parallel import ControlGroup
from pretrain.resume import (
    SCHEDULE_OPTIONS,
    SILENT_OPTIONS,
    check_samples,
    choose_checkpoint,
    option_changes,
    schedule_options,
)
from tape.errors import CheckpointError
from tape.models import low_precision

Flags = Callable[..., list[str]]
Run = Callable[[list[str]], None]
Records = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, flags: Flags, pretrain_here: Run) -> Path:
    """A run of six steps that exited after two."""
    folder = tmp_path_factory.mktemp("interrupted")
    pretrain_here(flags("--save", folder, "--exit-interval", 2, "--eval-iters", 0, train_iters=6))
    return folder


@pytest.fixture
def run(interrupted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(interrupted, tmp_path / "run"))


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--seed", 7), "seed is 1234 in the checkpoint, 7 now"),
        (("--global-batch-size", 16), "global-batch-size is 8 in the checkpoint, 16 now"),
        (("--no-sep",), "no-sep is False in the checkpoint, True now"),
        (("--split", "80,20,0"), "split is 90,10,0 in the checkpoint, 80,20,0 now"),
    ],
)
def test_other_samples_are_refused(run: Path, flags: Flags, pretrain_here: Run, extra: tuple, words: str) -> None:
    with pytest.raises(CheckpointError, match=f"iter_0000002: its run used other samples: {words}.*--allow-other-sam"):
        pretrain_here(flags("--load", run, *extra, train_iters=6))


def test_another_corpus_is_refused_and_allowed(
    run: Path, tmp_path: Path, flags: Flags, pretrain_here: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.fasta").write_text(">a\nMKTAYIAKQR\n>b\nMKV\n" * 30)
    other = preprocess([tmp_path / "other.fasta"], tmp_path / "other").prefix
    command = flags("--load", run, "--data-path", other, "--eval-iters", 0, train_iters=6)
    with pytest.raises(CheckpointError, match="'proteins': 300.*in the checkpoint.*'proteins': 60.*now"):
        pretrain_here(command)
    pretrain_here([*command, "--allow-other-samples"])
    assert "WARNING: from here on, the samples differ from those before: corpora is" in capsys.readouterr().out


def test_a_corpus_may_be_moved(
    run: Path, tmp_path: Path, corpus_prefix: Path, flags: Flags, pretrain_here: Run
) -> None:
    for suffix in (".bin", ".idx", ".json"):
        shutil.copy(f"{corpus_prefix}{suffix}", tmp_path / f"moved{suffix}")
    pretrain_here(flags("--load", run, "--data-path", tmp_path / "moved", "--eval-iters", 0, train_iters=6))


def test_a_corpus_of_equal_size_with_another_residue_is_refused(
    run: Path, tmp_path: Path, proteins: list[str], flags: Flags, pretrain_here: Run
) -> None:
    changed = ["W" * len(proteins[0]), *proteins[1:]]
    (tmp_path / "changed.fasta").write_text("".join(f">p{i}\n{protein}\n" for i, protein in enumerate(changed)))
    other = preprocess([tmp_path / "changed.fasta"], tmp_path / "changed").prefix
    sources = json.loads(Path(f"{other}.json").read_text())
    original = json.loads(Path(f"{flags()[flags().index('--data-path') + 1]}.json").read_text())
    Path(f"{other}.json").write_text(json.dumps({**sources, "sources": original["sources"]}))
    with pytest.raises(CheckpointError, match="'digest': '[0-9a-f]{16}'.* in the checkpoint"):
        pretrain_here(flags("--load", run, "--data-path", other, "--eval-iters", 0, train_iters=6))


def test_digests_are_compared_where_both_are_known() -> None:
    corpus = {"proteins": 3, "residues": 9, "sources": "s"}
    old, new = {"corpora": [corpus]}, {"corpora": [{**corpus, "digest": "a"}]}
    assert check_samples("x", old, new, allowed=False) == []
    assert check_samples("x", new, {"corpora": [{**corpus, "digest": None}]}, allowed=False) == []
    with pytest.raises(CheckpointError, match="its run used other samples"):
        check_samples("x", new, {"corpora": [{**corpus, "digest": "b"}]}, allowed=False)


def test_another_learning_rate_needs_a_flag(
    run: Path, flags: Flags, pretrain_here: Run, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in Megatron-LM, one flag takes the new values and another one those of the checkpoint."""
    command = flags("--save", run, "--load", run, "--lr", 5e-3, "--eval-iters", 0, train_iters=6)
    with pytest.raises(CheckpointError, match="lr is 0.01 in the checkpoint, 0.005 now.*--override-lr-scheduler"):
        pretrain_here(command)
    pretrain_here([*command, "--override-lr-scheduler", "--exit-interval", "4"])
    assert "the learning-rate schedule differs" in capsys.readouterr().out
    assert records(run)[3]["learning_rate"] == pytest.approx(5e-3 * 3 / 6)
    command[command.index("0.005")] = "0.003"
    pretrain_here([*command, "--use-checkpoint-lr-scheduler"])
    assert records(run)[4]["learning_rate"] == pytest.approx(5e-3 * 2 / 6)  # that of the latest checkpoint


def test_a_longer_run_needs_the_same_decay(run: Path, flags: Flags, pretrain_here: Run) -> None:
    with pytest.raises(CheckpointError, match="lr-decay-iters is 6 in the checkpoint, 8 now"):
        pretrain_here(flags("--load", run, train_iters=8))
    pretrain_here(flags("--load", run, "--lr-decay-iters", 6, "--eval-iters", 0, train_iters=8))


def test_a_checkpoint_without_recorded_options_is_not_compared() -> None:
    assert check_samples("x", {}, {"seed": 1}, allowed=False) == []


def test_the_decay_defaults_to_the_length_of_the_run() -> None:
    assert schedule_options({"lr": 1, "lr_decay_iters": None, "train_iters": 5, "seed": 3}) == {
        "lr": 1,
        "lr_decay_iters": 5,
    }


NOT_STORED = {"help", "local_rank", "dry_run", "world_size", "device_memory_gib"} | {
    "ignored_" + flag for flag in IGNORED_FLAGS
}
OPTIONS = sorted({action.dest for action in make_parser()._actions} - NOT_STORED)
COMPARED = {
    *SCHEDULE_OPTIONS,
    *("seed", "global_batch_size", "rampup_batch_size", "split", "seq_length", "mask_prob", "no_sep", "long_documents"),
}


@pytest.mark.parametrize("option", sorted(set(OPTIONS) - SILENT_OPTIONS - COMPARED))
def test_every_option_that_is_not_listed_as_silent_is_announced(option: str) -> None:
    (line,) = option_changes({option: "one"}, {option: "other"})
    assert f"--{option.replace('_', '-')} was one, is other" in line


def test_silent_options_are_options_that_no_number_depends_on() -> None:
    assert set(OPTIONS) >= SILENT_OPTIONS
    assert option_changes(dict.fromkeys(SILENT_OPTIONS, 1), dict.fromkeys(SILENT_OPTIONS, 2)) == []
    assert not SILENT_OPTIONS & {
        "weight_decay",
        "adam_beta1",
        "clip_grad",
        "hidden_dropout",
        "precision",
        "micro_batch_size",
    }


def test_an_option_that_the_checkpoint_does_not_know_has_its_default() -> None:
    assert option_changes({}, {"weight_decay": 0.01, "rampup": None}) == []
    assert "--weight-decay was 0.01, is 0.1" in option_changes({}, {"weight_decay": 0.1})[0]
    assert option_changes({"valid_data_path": ["a"]}, {"valid_data_path": ("a",)}) == []  # lists in JSON


def test_the_precision_of_earlier_checkpoints_is_that_of_their_switches() -> None:
    assert option_changes({"bf16": True, "fp16": False}, {"precision": "bf16"}) == []
    assert option_changes({"bf16": False, "fp16": False}, {"precision": "fp32"}) == []
    (line,) = option_changes({"bf16": False, "fp16": True}, {"precision": "fp32"})
    assert "--precision was fp16, is fp32" in line


@pytest.mark.parametrize("first", ["bf16", "fp32"])
def test_a_resumed_run_keeps_the_automatic_choice_of_its_precision(
    first: str,
    flags: Flags,
    pretrain_here: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also if the measurement differs, on another machine."""
    monkeypatch.setattr(low_precision, "fast_bf16", lambda device: first == "bf16")
    run = tmp_path / "run"
    words = flags("--save", run, "--load", run, "--eval-iters", 0, "--exit-interval", 2, train_iters=6)
    pretrain_here([*words, "--precision", "auto"])
    assert f"--precision auto: {first}, " in capsys.readouterr().out
    assert json.loads((run / "arguments.json").read_text())["precision"] == first
    monkeypatch.setattr(low_precision, "fast_bf16", lambda device: first == "fp32")
    pretrain_here([*words, "--precision", "auto"])
    resumed = capsys.readouterr().out
    assert f"--precision auto: {first}, as before in this run" in resumed
    assert f"; cpu, {first}" in resumed
    assert "options differ" not in resumed
    pretrain_here([*words, "--fp16"])
    assert f"--precision was {first}, is fp16" in capsys.readouterr().out


def test_other_options_are_announced(
    run: Path, flags: Flags, pretrain_here: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = ("--weight-decay", 0.1, "--adam-beta2", 0.95, "--clip-grad", 0.5, "--hidden-dropout", 0.2, "--bf16")
    pretrain_here([*flags("--load", run, "--eval-iters", 0, train_iters=6), *map(str, extra)])
    out = capsys.readouterr().out
    assert (
        "NOTICE: options differ from those of the checkpoint's run: --adam-beta2 was 0.999, is 0.95; --clip-grad was "
        "1.0, is 0.5; --hidden-dropout was 0.0, is 0.2; --precision was fp32, is bf16; --weight-decay was 0.01, is 0.1"
        in out
    )


def test_the_same_options_are_not_announced(
    run: Path, flags: Flags, pretrain_here: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain_here(flags("--load", run, "--eval-iters", 0, "--log-interval", 1, train_iters=6))
    assert "options differ" not in capsys.readouterr().out


def test_a_lost_pointer_neither_restarts_the_run_nor_replaces_its_checkpoint(
    run: Path, flags: Flags, pretrain_here: Run, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "latest_checkpointed_iteration.txt").unlink()
    before = (run / "iter_0000002" / "metadata.json").read_bytes()
    pretrain_here(flags("--save", run, "--load", run, "--eval-iters", 0, train_iters=6))
    assert f"Resuming from {run / 'iter_0000002'}" in capsys.readouterr().out
    assert (run / "iter_0000002" / "metadata.json").read_bytes() == before
    assert [record["iteration"] for record in records(run)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("exists", [True, False])
def test_a_load_without_checkpoint_is_an_error_unless_it_is_the_save(tmp_path: Path, exists: bool) -> None:
    load = tmp_path / "load"
    if exists:
        load.mkdir()
    state = "has no checkpoint" if exists else "does not exist"
    for save in (None, str(tmp_path / "save")):
        with pytest.raises(CheckpointError, match=f"--load {load}: {state}"):
            choose_checkpoint(CheckpointConfig(load=str(load), save=save), ControlGroup())
    save = f"{tmp_path}/x/../load/"
    assert choose_checkpoint(CheckpointConfig(load=str(load), save=save), ControlGroup()).path is None


@pytest.mark.parametrize("pointer", [True, False])
def test_a_save_with_checkpoints_of_another_run_is_refused(run: Path, tmp_path: Path, pointer: bool) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    if not pointer:
        (run / "latest_checkpointed_iteration.txt").unlink()
    for load in (None, str(other)):
        with pytest.raises(
            CheckpointError, match=rf"--save {run}: holds .* up to iteration 2, .*--load {run} continues"
        ):
            choose_checkpoint(CheckpointConfig(save=str(run), load=load), ControlGroup())
    assert choose_checkpoint(CheckpointConfig(save=str(run), load=f"{run}/."), ControlGroup()).path is not None


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("release/mp_rank_00/model_optim_rng.pt", "a Megatron-LM checkpoint"),
        ("iter_0000005/common.pt", "a distributed checkpoint of Megatron Core"),
        ("config.json", "a TAPE model directory"),
    ],
)
def test_a_save_in_a_directory_of_another_format_is_refused(tmp_path: Path, file: str, words: str) -> None:
    """Whose latest_checkpointed_iteration.txt would be replaced, and from which the run could not be resumed."""
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("{}")
    with pytest.raises(CheckpointError, match=f"--save {tmp_path}: {words}; choose a directory of its own"):
        choose_checkpoint(CheckpointConfig(save=str(tmp_path)), ControlGroup())


def test_a_run_that_goes_back_to_an_earlier_checkpoint_of_its_own_announces_what_it_replaces(run: Path) -> None:
    options = CheckpointConfig(save=str(run), load=str(run / "iter_0000002"))
    (notice,) = choose_checkpoint(options, ControlGroup()).notices
    assert f"--save {run} holds checkpoints up to iteration 2; those after {run}/iter_0000002 are replaced" in notice
    assert choose_checkpoint(CheckpointConfig(save=str(run), load=str(run)), ControlGroup()).notices == ()


def test_an_altered_corpus_without_recorded_digest_is_refused(
    tmp_path: Path, corpus_prefix: Path, flags: Flags, pretrain_here: Run
) -> None:
    """As an older corpus, whose sidecar has no SHA-256."""
    for suffix in (".bin", ".idx", ".json"):
        shutil.copy(f"{corpus_prefix}{suffix}", tmp_path / f"old{suffix}")
    sidecar = tmp_path / "old.json"
    content = json.loads(sidecar.read_text())
    del content["sha256"]
    sidecar.write_text(json.dumps(content))
    command = flags("--data-path", tmp_path / "old", "--save", tmp_path / "save", "--load", tmp_path / "save")
    command += ["--eval-iters", "0", "--exit-interval", "1"]
    pretrain_here(command)
    altered = bytearray((tmp_path / "old.bin").read_bytes())
    altered[100:102] = altered[102:104]
    altered[100] ^= 1
    (tmp_path / "old.bin").write_bytes(altered)
    with pytest.raises(CheckpointError, match="its run used other samples: .*sampled_digest"):
        pretrain_here(command)
