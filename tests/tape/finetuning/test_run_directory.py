"""The directory of a run: names, history, pointers to epochs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tape.errors import CheckpointError, ConfigError
from tape.finetuning.run_directory import RunDirectory, read_history
from tape.io.run_layout import BEST_NAME, LATEST_NAME, experiment_name, resolve_model_directory


def test_names_of_runs() -> None:
    assert experiment_name("stability", "onehot", "mine") == "stability_onehot_mine"
    assert experiment_name("stability", "onehot", "mine", "whole") == "whole"
    timed = experiment_name("stability", "onehot")
    assert re.fullmatch(r"stability_onehot_\d\d(-\d\d){5}_\d{6}", timed)
    assert timed != experiment_name("stability", "onehot")


def test_a_run_with_saved_epochs_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_arguments({"a": 1})
    RunDirectory.create(tmp_path / "run")  # the run ended before it saved an epoch
    run.write_arguments({"a": 1})
    run.epoch_directory(0).mkdir()
    with pytest.raises(ConfigError, match="holds saved epochs already.*--overwrite"):
        RunDirectory.create(tmp_path / "run")
    RunDirectory.create(tmp_path / "run", overwrite=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["args.json"]


def test_overwriting_a_run_keeps_files_of_the_user(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_arguments({"a": 1})
    run.epoch_directory(0).mkdir()
    (run.epoch_directory(0) / "config.json").write_text("{}")
    (run.path / "notes.txt").write_text("precious")
    (run.path / "plots").mkdir()
    RunDirectory.create(run.path, overwrite=True)
    assert sorted(path.name for path in run.path.iterdir()) == ["args.json", "notes.txt", "plots"]


def test_overwriting_a_run_removes_its_picture(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_arguments({"a": 1})
    run.add_history({"epoch": 0, "train": {"loss": 1.0}, "valid": None})
    assert run.draw_curves() == run.path / "curves.svg"
    RunDirectory.create(run.path, overwrite=True)
    assert [path.name for path in run.path.iterdir()] == ["args.json"]


def test_a_run_without_history_has_no_picture(tmp_path: Path) -> None:
    assert RunDirectory.create(tmp_path / "run").draw_curves() is None


def test_a_saved_epoch_with_files_of_the_user_is_not_replaced(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_arguments({"a": 1})
    for epoch in (0, 1):
        run.epoch_directory(epoch).mkdir()
    (run.epoch_directory(1) / "notes.txt").write_text("precious")
    with pytest.raises(ConfigError, match=r"1 contains notes\.txt, which this command does not write"):
        RunDirectory.create(run.path, overwrite=True)
    assert run.saved_after(-1) == [0, 1]
    with pytest.raises(ConfigError, match=r"contains notes\.txt"):
        run.drop_after(run.epoch_directory(0), 0)


def test_a_run_killed_before_its_arguments_were_written_does_not_block_its_name(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    (run.path / ".args.json.abcdefgh.tmp").write_text("{")
    RunDirectory.create(run.path)
    assert list(run.path.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "..", "a/../../x", "", ".", "a\0"])
def test_the_directory_of_a_run_is_inside_the_output_directory(name: str) -> None:
    for options in ({"time_or_name": name}, {"exp_name": name}):
        option = next(iter(options))
        with pytest.raises(ConfigError, match=rf"--{option} .*inside --output_dir"):
            experiment_name("stability", "onehot", **options)
    assert experiment_name("stability", "onehot", exp_name="group/run") == "group/run"


@pytest.mark.parametrize("name", ["x" * 201, "group/" + "\u00e9" * 101])
def test_the_name_of_a_run_leaves_room_for_temporary_names(name: str) -> None:
    with pytest.raises(ConfigError, match="at most 200 bytes"):
        experiment_name("stability", "onehot", exp_name=name)
    experiment_name("secondary_structure_8", "transformer", time_or_name="x" * 200)


def test_a_directory_without_a_run_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="holds no run"):
        RunDirectory.create(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


def test_resuming_drops_later_epochs_and_their_history(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    for epoch in range(4):
        run.add_history({"epoch": epoch, "train": {"loss": 1.0}})
        run.epoch_directory(epoch).mkdir()
        run.write_pointer(LATEST_NAME, epoch, "loss", None)
    run.write_pointer(BEST_NAME, 1, "loss", 0.5)
    run.drop_after(run.epoch_directory(1), 1)
    assert [record["epoch"] for record in read_history(run.path)] == [0, 1]
    assert sorted(path.name for path in run.path.iterdir()) == ["0", "1", "best.json", "latest.json", "metrics.jsonl"]
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl"):
        read_history(tmp_path)


def test_nothing_is_dropped_if_a_pointer_is_damaged(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    for epoch in range(2):
        run.add_history({"epoch": epoch, "train": {"loss": 1.0}})
        run.epoch_directory(epoch).mkdir()
    (run.path / BEST_NAME).write_text("{")
    with pytest.raises(CheckpointError, match=r"best\.json: not valid JSON"):
        run.drop_after(run.epoch_directory(0), 0)
    assert len(read_history(run.path)) == 2
    assert run.epoch_directory(1).is_dir()


def test_pointers_select_an_epoch(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    for epoch in (0, 1):
        run.epoch_directory(epoch).mkdir()
    assert resolve_model_directory(run.path) == run.path  # without a pointer, the directory itself
    run.write_pointer(LATEST_NAME, 1, "loss", 2.0)
    assert resolve_model_directory(run.path) == run.path / "1"
    run.write_pointer(BEST_NAME, 0, "loss", 1.0)
    assert resolve_model_directory(run.path) == run.path / "0"
    assert resolve_model_directory(run.path, (LATEST_NAME,)) == run.path / "1"
    assert json.loads((run.path / BEST_NAME).read_text()) == {
        "epoch": 0,
        "directory": "0",
        "metric": "loss",
        "value": 1.0,
    }


@pytest.mark.parametrize("name", ["../other", "/etc", "", "a" * 5000, ".", "..", 3, None, "a\0"])
def test_a_pointer_names_a_directory_of_the_run(tmp_path: Path, name: object) -> None:
    (tmp_path / BEST_NAME).write_text(json.dumps({"directory": name}))
    with pytest.raises(
        CheckpointError, match=r"best\.json: damaged, 'directory' must be the name of a directory, not "
    ):
        resolve_model_directory(tmp_path)


@pytest.mark.parametrize("epoch", [{"a": 1}, [1], None, "1"])
def test_a_pointer_without_the_number_of_an_epoch_is_named(tmp_path: Path, epoch: object) -> None:
    run = RunDirectory.create(tmp_path / "run")
    (run.path / BEST_NAME).write_text(json.dumps({"directory": "1", "epoch": epoch}))
    with pytest.raises(CheckpointError, match=r"best\.json: damaged, 'epoch' must be an integer"):
        run.drop_after(run.epoch_directory(1), 1)


def test_a_record_without_an_epoch_is_named(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.add_history({"epoch": 0})
    run.add_history({"loss": 1.0})
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line 2: epoch must be an integer, not None"):
        run.drop_after(run.epoch_directory(1), 1)


def test_one_of_several_seeds_must_be_selected(tmp_path: Path) -> None:
    for seed in (42, 43):
        (tmp_path / f"seed_{seed}").mkdir()
    with pytest.raises(CheckpointError, match="holds one run per seed; give one of them: seed_42, seed_43"):
        resolve_model_directory(tmp_path)


def test_damaged_pointers_are_named(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_pointer(BEST_NAME, 7, "loss", 1.0)
    with pytest.raises(CheckpointError, match=r"best\.json: names .*7, which does not exist"):
        resolve_model_directory(run.path)
    (run.path / BEST_NAME).write_text("{}")
    with pytest.raises(CheckpointError, match=r"best\.json: damaged"):
        resolve_model_directory(run.path)


def saved_run(path: Path) -> RunDirectory:
    """A run with epochs 0 and 1, which was interrupted in epoch 2."""
    run = RunDirectory.create(path)
    run.write_arguments({})
    for epoch in range(2):
        run.add_history({"epoch": epoch, "valid": {"loss": 0.5 - epoch}})
        run.epoch_directory(epoch).mkdir()
    (run.path / "step_7").mkdir()
    run.write_pointer(LATEST_NAME, 1, "loss", None, "step_7")
    return run


def test_a_resumed_run_that_is_killed_while_it_drops_epochs_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``latest.json`` names the resumed epoch before anything is deleted."""
    run = saved_run(tmp_path / "run")

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        run.drop_after(run.epoch_directory(0), 0)
    assert resolve_model_directory(run.path, (LATEST_NAME,)) == run.epoch_directory(0)
    assert json.loads((run.path / LATEST_NAME).read_text())["value"] == 0.5
    RunDirectory.resume(run.epoch_directory(0), 0)  # what remains of the later epochs is dropped without --overwrite


def test_the_state_of_an_interrupted_run_is_dropped_only_with_overwrite(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="resuming after epoch 1 drops its saved epochs step_7"):
        RunDirectory.resume(run.epoch_directory(1), 1)
    RunDirectory.resume(run.path / "step_7", 1)
    run.drop_after(run.path / "step_7", 1)
    assert (run.path / "step_7").is_dir()
    RunDirectory.resume(run.epoch_directory(1), 1, overwrite=True).drop_after(run.epoch_directory(1), 1)
    assert not (run.path / "step_7").exists()


def test_a_run_with_the_state_of_an_interrupted_epoch_is_not_replaced(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_arguments({})
    (run.path / "step_3").mkdir()
    with pytest.raises(ConfigError, match="holds saved epochs already"):
        RunDirectory.create(run.path)
    RunDirectory.create(run.path, overwrite=True)
    assert [path.name for path in run.path.iterdir()] == ["args.json"]
