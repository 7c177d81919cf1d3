"""The step runner: order, skipping, failure, concurrent steps."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proteinlm.workflow.step_runner import Step, StepError, StepRunner, command_line
from tape.errors import ConfigError
from tape.runtime.process_identity import identify
from tests.support.ranks import wait_for


def write(path: Path, text: str = "x") -> tuple[str, ...]:
    return (sys.executable, "-c", f"open({str(path)!r}, 'a').write({text!r})")


def make_chain(folder: Path) -> list[Step]:
    first, second = folder / "first", folder / "second"
    return [
        Step("one", write(first), (first,), inputs=(folder / "source",)),
        Step("two", write(second), (second,), after=("one",)),
        Step("three", write(folder / "third"), (folder / "third",)),
    ]


def test_a_step_runs_again_only_after_a_change(tmp_path):
    (tmp_path / "source").write_text("data")
    records = tmp_path / "steps"

    def run() -> list[str]:
        return sorted(StepRunner(make_chain(tmp_path), records, tmp_path, jobs=2).run())

    assert run() == ["one", "three", "two"]
    assert run() == []
    (tmp_path / "source").write_text("other data")  # dependent steps run again, the others do not
    assert run() == ["one", "two"]
    (tmp_path / "third").unlink()
    assert run() == ["three"]


def test_inputs_are_compared_by_content(tmp_path, capsys):
    source, records = tmp_path / "source", tmp_path / "steps"
    source.write_text("data")

    def run() -> list[str]:
        return sorted(StepRunner(make_chain(tmp_path), records, tmp_path).run())

    run()
    os.utime(source, ns=(1, 1))  # as after copying
    assert run() == []
    source.write_text("atad")
    assert run() == ["one", "two"]
    assert "have changed, so these steps run again: one, two\n" in capsys.readouterr().out
    (records / "inputs.json").write_text("{")
    assert run() == []
    assert str(source) in json.loads((records / "inputs.json").read_text())


def test_a_changed_command_reruns_its_step_and_all_dependent_steps(tmp_path):
    steps = make_chain(tmp_path)
    StepRunner(steps, tmp_path / "steps", tmp_path).run()
    steps[0] = Step("one", write(tmp_path / "first", "y"), (tmp_path / "first",), inputs=(tmp_path / "source",))
    assert sorted(StepRunner(steps, tmp_path / "steps", tmp_path).run()) == ["one", "two"]


def test_environment_variables_repeat_nothing(tmp_path):
    (tmp_path / "source").touch()
    steps = make_chain(tmp_path)
    StepRunner(steps, tmp_path / "steps", tmp_path).run()
    steps = [dataclasses.replace(step, environment={"OMP_NUM_THREADS": "7"}) for step in steps]
    assert StepRunner(steps, tmp_path / "steps", tmp_path).run() == {}


def test_steps_allocate_with_tcmalloc_if_it_is_installed(tmp_path, monkeypatch, capsys):
    def seen(name: str, found: str | None) -> str:
        monkeypatch.setattr("ctypes.util.find_library", {"tcmalloc_minimal": found}.get)
        code = f"import os; open({name!r}, 'w').write(repr(os.environ.get('LD_PRELOAD')))"
        step = Step("one", (sys.executable, "-c", code), (tmp_path / name,))
        StepRunner([step], tmp_path / f"steps_{name}", tmp_path).run()
        return (tmp_path / name).read_text()

    monkeypatch.delenv("LD_PRELOAD", raising=False)
    assert seen("without", None) == "None"
    assert "memory of the steps" not in capsys.readouterr().out
    assert seen("with", "libnot_here.so.4") == "'libnot_here.so.4'"  # the loader ignores it with a message
    assert "memory of the steps is allocated by libnot_here.so.4 (LD_PRELOAD)\n" in capsys.readouterr().out
    monkeypatch.setenv("LD_PRELOAD", "")
    assert seen("own", "libnot_here.so.4") == "''"


def test_results_of_steps_that_left_the_plan_are_set_aside_until_it_has_them_again(tmp_path, capsys):
    run, found = tmp_path / "results" / "run", tmp_path / "found"
    code = "import os; os.makedirs({0!r}); open({0!r} + '/model', 'w').write({1!r})"
    train = Step("train", (sys.executable, "-c", code.format(str(run), "1")), (run,))
    score = Step("score", write(run / "scores"), (run / "scores",), after=("train",))
    listing = f"import os; open({str(found)!r}, 'w').write(str(sorted(os.listdir({str(run.parent)!r}))))"
    report = Step(
        "report",
        (sys.executable, "-c", f"import os; os.makedirs({str(run.parent)!r}, exist_ok=True); {listing}"),
        (found,),
    )
    records = tmp_path / "steps"

    def ran(*steps: Step) -> list[str]:
        return list(StepRunner(steps, records, tmp_path).run())

    assert ran(train, score, dataclasses.replace(report, after=("score",))) == ["train", "score", "report"]
    assert found.read_text() == "['run']"
    assert ran(train, report) == ["report"]  # without the scores
    assert os.listdir(run) == ["model"]
    assert ran(report) == []
    found.unlink()
    assert ran(report) == ["report"]
    assert found.read_text() == "[]"
    assert "results are set aside in " in capsys.readouterr().out
    assert ran(train, score, report) == []
    assert (run / "scores").read_text() == "x"
    assert "part of the plan again, so their results are back: train, score" in capsys.readouterr().out
    assert ran(report) == []
    changed = dataclasses.replace(train, command=(sys.executable, "-c", code.format(str(run), "2")))
    assert ran(changed, score, report) == ["train", "score"]  # results of other settings do not come back
    assert (run / "model").read_text() == "2"


def trained(folder: Path, text: str = "1") -> list[Step]:
    """A training with a run directory, and two evaluations whose results are inside it."""
    run = folder / "run"
    code = f"import os; os.makedirs({str(run)!r}); open({str(run / 'model')!r}, 'w').write({text!r})"
    steps = [Step("train", (sys.executable, "-c", code), (run,))]
    return [*steps, *(Step(name, write(run / name), (run / name,), after=("train",)) for name in ("one", "two"))]


def test_results_inside_those_of_another_step_are_set_aside_by_themselves(tmp_path):
    train, one, two = trained(tmp_path)
    records = tmp_path / "steps"
    StepRunner([train, one, two], records, tmp_path).run()
    StepRunner([], records, tmp_path).run()
    assert not (tmp_path / "run").exists()
    assert StepRunner([train, one], records, tmp_path).run() == {}
    assert sorted(os.listdir(tmp_path / "run")) == ["model", "one"]
    assert StepRunner([train, one, two], records, tmp_path).run() == {}


def test_results_do_not_come_back_to_another_run(tmp_path):
    train, one, two = trained(tmp_path)
    records = tmp_path / "steps"
    StepRunner([train, one], records, tmp_path).run()
    StepRunner([train], records, tmp_path).run()
    shutil.rmtree(tmp_path / "run")  # by the user, for a new one
    assert list(StepRunner([train, one], records, tmp_path).run()) == ["train", "one"]
    StepRunner([train, one, two], records, tmp_path).run()
    other, other_one, _ = trained(tmp_path, "2")
    StepRunner([other, other_one], records, tmp_path).run()
    StepRunner([train, one], records, tmp_path).run()
    assert list(StepRunner([train, one, two], records, tmp_path).run()) == ["two"]


def test_a_file_in_place_of_results_that_were_set_aside_is_refused(tmp_path):
    train, one, _ = trained(tmp_path)
    records = tmp_path / "steps"
    StepRunner([train, one], records, tmp_path).run()
    StepRunner([train], records, tmp_path).run()
    (tmp_path / "run" / "one").write_text("mine")
    with pytest.raises(ConfigError, match=r"run/one: .*set_aside/one/0 has results of the same step; remove one"):
        StepRunner([train], records, tmp_path).run()
    assert (tmp_path / "run" / "one").read_text() == "mine"
    assert (records / "set_aside" / "one" / "0").read_text() == "x"


def test_a_step_with_a_damaged_stamp_runs_again(tmp_path):
    step = Step("one", write(tmp_path / "made"), (tmp_path / "made",))
    StepRunner([step], tmp_path / "steps", tmp_path).run()
    (tmp_path / "steps" / "one.stamp").write_bytes(b"\xff")
    with (tmp_path / "steps" / "one.makes").open("ab") as stream:
        stream.write(b"\xff\n")
    assert list(StepRunner([step], tmp_path / "steps", tmp_path).run()) == ["one"]


def test_a_command_that_was_stopped_and_saved_its_state_has_not_finished(tmp_path):
    made = tmp_path / "made"

    def lacks() -> str:
        return "" if made.read_text() == "xx" else "1 of 2 epochs"

    step = Step("one", write(made), (made,), missing=lacks)
    for _ in range(2):  # no stamp
        with pytest.raises(StepError, match=r"was stopped before its end \(1 of 2 epochs\)"):
            StepRunner([step], tmp_path / "steps", tmp_path).run()
    complete = dataclasses.replace(step, command=write(made, "xx"))
    assert list(StepRunner([complete], tmp_path / "steps", tmp_path).run()) == ["one"]
    assert list(StepRunner([complete], tmp_path / "steps", tmp_path).run()) == []


def test_output_directories_are_cleared_before_a_step_runs_again(tmp_path):
    made = tmp_path / "made"
    step = Step("one", (sys.executable, "-c", f"import os; os.mkdir({str(made)!r})"), (made,))
    made.mkdir()  # an empty directory may be used
    with pytest.raises(StepError):  # as after a killed or failed run, which had started to write it
        StepRunner([dataclasses.replace(step, command=("false",))], tmp_path / "steps", tmp_path).run()
    made.mkdir()
    (made / "stale").touch()
    StepRunner([step], tmp_path / "steps", tmp_path).run()
    assert list(made.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_outputs_of_other_programs_are_never_removed(tmp_path, kind):
    mine = tmp_path / "second"
    if kind == "directory":
        mine.mkdir()
        (mine / "work").write_text("of a month")
    else:
        mine.write_text("of a month")
    (tmp_path / "source").touch()
    with pytest.raises(ConfigError, match=r"second exists and was not made by this program"):
        StepRunner(make_chain(tmp_path), tmp_path / "steps", tmp_path).run()
    assert (mine / "work" if kind == "directory" else mine).read_text() == "of a month"
    assert not (tmp_path / "first").exists()  # nothing has run


def test_outputs_may_be_moved_together_with_the_step_records(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "source").touch()
    StepRunner(make_chain(old), old / "steps", tmp_path).run()
    old.rename(new)
    assert sorted(StepRunner(make_chain(new), new / "steps", tmp_path).run()) == ["one", "three", "two"]
    assert (new / "second").read_text() == "x"


@pytest.mark.parametrize("made", ["data", "."])
def test_a_step_that_would_overwrite_an_input_is_refused(tmp_path, made):
    source = tmp_path / "data" / "proteins.fasta"
    step = Step("one", ("true",), (tmp_path / made,), inputs=(tmp_path / "data" / ".." / "data" / source.name,))
    with pytest.raises(ConfigError, match=r"proteins\.fasta is an input, but .* would be overwritten"):
        StepRunner([step], tmp_path / "steps", tmp_path)


def test_a_failed_step_reports_its_command_and_log(tmp_path):
    failing = Step("bad", (sys.executable, "-c", "print('the reason'); raise SystemExit(3)"), ())
    later = Step("later", write(tmp_path / "later"), (tmp_path / "later",), after=("bad",))
    with pytest.raises(StepError, match=r"exit code 3") as raised:
        StepRunner([failing, later], tmp_path / "steps", tmp_path).run()
    command, end, log = raised.value.details
    assert command.startswith("  python -c")
    assert (end, log) == ("  | the reason", f"  full log: {tmp_path / 'steps' / 'bad.log'}")
    assert not (tmp_path / "later").exists()
    with pytest.raises(StepError):  # a failed step does not count as completed
        StepRunner([failing], tmp_path / "steps", tmp_path).run()


def test_a_failed_step_ends_the_steps_that_run_in_parallel(tmp_path):
    failing = Step("bad", (sys.executable, "-c", "raise SystemExit(1)"), ())
    endless = Step("endless", (sys.executable, "-c", "import time; time.sleep(60)"), ())
    start = time.monotonic()
    with pytest.raises(StepError):
        StepRunner([endless, failing], tmp_path / "steps", tmp_path, jobs=2).run()
    assert time.monotonic() - start < 30


def test_a_step_without_its_output_files_fails(tmp_path):
    with pytest.raises(StepError, match="did not write"):
        StepRunner([Step("one", (sys.executable, "-c", ""), (tmp_path / "no",))], tmp_path / "s", tmp_path).run()


def test_commands_are_printed_as_shell_commands():
    step = Step("one", (sys.executable, "a b.py", "--x"), (), environment={"OMP_NUM_THREADS": "1"})
    assert command_line(step) == "OMP_NUM_THREADS=1 python 'a b.py' --x"


def resumable(folder: Path, writes: str = "x") -> Step:
    """A command that writes one letter per run, until there are two; ``--go-on`` continues it."""
    made, options = folder / "made", folder / "options"
    code = f"import sys; open({str(options)!r}, 'a').write(' '.join(sys.argv[1:]))"
    code += f"; open({str(made)!r}, 'a').write({writes!r})"
    return Step(
        "one",
        (sys.executable, "-c", code),
        (made,),
        missing=lambda: "" if made.read_text() == "xx" else "1 of 2 epochs",
        resume=lambda: ["--go-on"] if made.exists() else None,
    )


def test_an_interrupted_command_continues_from_its_saved_state(tmp_path):
    step, records = resumable(tmp_path), tmp_path / "steps"
    with pytest.raises(StepError, match="was stopped before its end") as raised:
        StepRunner([step], records, tmp_path).run()
    assert raised.value.details[-1] == "  the next run continues it"
    assert list(StepRunner([step], records, tmp_path).run()) == ["one"]
    assert (tmp_path / "options").read_text() == "--go-on"
    assert StepRunner([step], records, tmp_path).run() == {}


def test_an_interrupted_command_starts_again_after_a_change(tmp_path):
    step, records = resumable(tmp_path), tmp_path / "steps"
    with pytest.raises(StepError):
        StepRunner([step], records, tmp_path).run()
    changed = resumable(tmp_path, writes="xx")
    StepRunner([changed], records, tmp_path).run()
    assert (tmp_path / "options").read_text() == ""


def test_an_interrupted_command_starts_again_if_a_step_before_it_has_run_since(tmp_path):
    first = Step("first", write(tmp_path / "source"), (tmp_path / "source",))
    step, records = dataclasses.replace(resumable(tmp_path), after=("first",)), tmp_path / "steps"
    with pytest.raises(StepError):
        StepRunner([first, step], records, tmp_path).run()
    (tmp_path / "source").unlink()
    with pytest.raises(StepError):
        StepRunner([first, step], records, tmp_path).run()
    assert (tmp_path / "options").read_text() == ""


def test_steps_after_one_that_ran_again_stay_outdated_if_the_run_is_interrupted(tmp_path):
    (tmp_path / "source").touch()
    steps, records = make_chain(tmp_path), tmp_path / "steps"
    StepRunner(steps, records, tmp_path).run()
    (tmp_path / "first").unlink()
    failing = [steps[0], Step("bad", ("false",), ()), *steps[1:]]
    with pytest.raises(StepError):
        StepRunner(failing, records, tmp_path).run()
    assert "two" in StepRunner(steps, records, tmp_path).run()


def test_results_that_a_stopped_run_would_have_replaced_are_set_aside(tmp_path, capsys):
    (tmp_path / "source").touch()
    steps, records = make_chain(tmp_path), tmp_path / "steps"
    StepRunner(steps, records, tmp_path).run()
    changed = dataclasses.replace(steps[0], command=("false",))
    with pytest.raises(StepError, match="this command failed"):
        StepRunner([changed, *steps[1:]], records, tmp_path).run()
    assert not (tmp_path / "second").exists()
    assert f"two: its results of earlier settings are set aside in {records}" in capsys.readouterr().out
    assert (tmp_path / "third").exists()  # it does not depend on the first
    assert sorted(StepRunner(steps, records, tmp_path).run()) == ["one", "two"]
    assert not (records / "set_aside" / "two").exists()


def test_results_of_stages_that_were_not_chosen_are_set_aside_if_what_they_were_made_from_is_replaced(tmp_path):
    (tmp_path / "source").touch()
    steps = [dataclasses.replace(step, stage=step.name) for step in make_chain(tmp_path)]
    records = tmp_path / "steps"
    StepRunner(steps, records, tmp_path).run()
    changed = [dataclasses.replace(steps[0], command=write(tmp_path / "first", "y")), *steps[1:]]
    assert list(StepRunner(changed, records, tmp_path).run(["one"])) == ["one"]
    assert not (tmp_path / "second").exists()
    assert (tmp_path / "third").exists()
    assert list(StepRunner(changed, records, tmp_path).run()) == ["two"]


def test_chosen_stages_run_with_the_steps_that_they_depend_on(tmp_path):
    (tmp_path / "source").touch()
    steps = [dataclasses.replace(step, stage=step.name) for step in make_chain(tmp_path)]
    assert list(StepRunner(steps, tmp_path / "steps", tmp_path).run(["two"])) == ["one", "two"]
    assert not (tmp_path / "third").exists()
    assert list(StepRunner(steps, tmp_path / "steps", tmp_path).run()) == ["three"]


def test_a_stage_ends_at_its_time_limit_and_the_next_run_continues_it(tmp_path):
    slow = Step("slow", (sys.executable, "-c", "import time; time.sleep(60)"), (), stage="train")
    second = Step("second", write(tmp_path / "second"), (), stage="train")
    needs = Step("needs", write(tmp_path / "needs"), (), after=("slow",))
    report = Step("report", write(tmp_path / "report"), (tmp_path / "report",), after=("slow",), is_partial=True)
    other = Step("other", write(tmp_path / "other"), (tmp_path / "other",))
    steps, records = [slow, second, needs, report, other], tmp_path / "steps"
    start = time.monotonic()
    with pytest.raises(StepError, match="not finished within the time limit") as raised:
        StepRunner(steps, records, tmp_path, time_limits={"train": 1}).run()
    assert time.monotonic() - start < 30
    assert raised.value.details == ["  slow: interrupted", "  second: not started", "  needs: needs slow"]
    assert (tmp_path / "report").exists()
    assert (tmp_path / "other").exists()
    steps[0] = dataclasses.replace(slow, command=("true",))
    assert list(StepRunner(steps, records, tmp_path).run()) == ["slow", "second", "needs", "report"]


def test_results_of_earlier_settings_are_not_reported_after_a_time_limit(tmp_path):
    slow = Step("slow", ("true",), (), stage="train")
    second = Step("second", write(tmp_path / "second"), (tmp_path / "second",), stage="train")
    needs = Step("needs", write(tmp_path / "needs"), (tmp_path / "needs",), after=("second",))
    names = f"import os; open({str(tmp_path / 'report')!r}, 'w').write(str(sorted(os.listdir({str(tmp_path)!r}))))"
    report = Step("report", (sys.executable, "-c", names), (tmp_path / "report",), ("needs",), is_partial=True)
    records = tmp_path / "steps"
    StepRunner([slow, second, needs, report], records, tmp_path).run()
    assert "'needs'" in (tmp_path / "report").read_text()
    slow = dataclasses.replace(slow, command=(sys.executable, "-c", "import time; time.sleep(60)"))
    second = dataclasses.replace(second, command=write(tmp_path / "second", "new"))
    with pytest.raises(StepError, match="not finished within the time limit"):
        StepRunner([slow, second, needs, report], records, tmp_path, time_limits={"train": 1}).run()
    assert (tmp_path / "report").read_text() == "['report', 'steps']"


def test_steps_of_other_stages_stay_finished_if_their_command_has_changed(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    steps = [Step("one", write(one), (one,), stage="1"), Step("two", write(two), (two,), stage="2")]
    StepRunner(steps, tmp_path / "steps", tmp_path).run()
    changed = [steps[0], dataclasses.replace(steps[1], command=write(two, "y"))]
    assert StepRunner(changed, tmp_path / "steps", tmp_path).run(["1"]) == {}
    assert StepRunner(steps, tmp_path / "steps", tmp_path).run() == {}


def test_a_second_runner_on_the_same_records_is_refused(tmp_path):
    records = tmp_path / "steps"
    code = f"""
from pathlib import Path
from proteinlm.workflow.step_runner import Step, StepRunner
StepRunner([Step("one", ("true",), ())], Path({str(records)!r}), Path.cwd()).run()
"""
    inside = Step("outer", (sys.executable, "-c", code), ())
    with pytest.raises(StepError) as raised:
        StepRunner([inside], records, Path.cwd()).run()
    assert "steps: in use by process" in "\n".join(raised.value.details)


def test_steps_at_the_same_time_are_spread_over_the_gpus(tmp_path, capsys):
    code = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(1)"
    steps = [Step(name, (sys.executable, "-c", code), ()) for name in "abcd"]
    StepRunner(steps, tmp_path / "steps", tmp_path, jobs=4, devices=("3", "5")).run()
    assert sorted((tmp_path / "steps" / f"{name}.log").read_text() for name in "abcd") == ["3\n", "3\n", "5\n", "5\n"]
    printed = capsys.readouterr().out
    assert [printed.count(f"  $ CUDA_VISIBLE_DEVICES={device} python -c") for device in "35"] == [2, 2]


def test_a_step_that_has_set_its_gpus_and_one_on_the_terminal_keep_them(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    code = "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(os.environ['CUDA_VISIBLE_DEVICES'])"
    files = [tmp_path / "own", tmp_path / "live"]
    own, live = (Step(file.name, (sys.executable, "-c", code, str(file)), (file,)) for file in files)
    steps = [dataclasses.replace(own, environment={"CUDA_VISIBLE_DEVICES": ""}), dataclasses.replace(live, live=True)]
    StepRunner(steps, tmp_path / "steps", tmp_path, jobs=2, devices=("3", "5")).run()
    assert [file.read_text() for file in files] == ["", "3,5"]


@pytest.mark.skipif(sys.platform != "linux", reason="uses the parent-death signal of Linux")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_commands_end_with_the_runner(tmp_path, repository_root, sent):
    pid_file = tmp_path / "pid"
    wait = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid()) + ';'); time.sleep(60)"
    command = (sys.executable, "-c", wait)
    # A shell starts background jobs, such as a test run with nohup, with SIGINT or SIGHUP ignored.
    code = f"""
import signal, sys
from pathlib import Path
from proteinlm.workflow.step_runner import Step, StepRunner
from tape.errors import run_cli
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
step = Step("long", {command!r}, ())
sys.exit(run_cli(lambda: StepRunner([step], Path({str(tmp_path / "steps")!r}), Path.cwd()).run()))
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=repository_root) as runner:
        wait_for(lambda: pid_file.exists() and pid_file.read_text().endswith(";"), "the command", 60)
        child = identify(int(pid_file.read_text().rstrip(";")))
        runner.send_signal(sent)
        status = runner.wait(30)
    assert status == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGKILL: -9}[sent]
    wait_for(child.has_ended, "the end of the command", 10)
