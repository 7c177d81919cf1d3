"""The quickstart: its plan, and all its steps on a few user-provided proteins."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from proteinlm.workflow import quickstart
from proteinlm.workflow.run_progress import missing_epochs, missing_iterations
from proteinlm.workflow.step_runner import StepRunner, command_line
from tape.errors import ConfigError
from tape.hub.bundled import DEFAULT_MODEL, FOLDER_VARIABLE
from tape.models import low_precision
from tape.tokenizers import TAPETokenizer

TINY = quickstart.SIZES["tiny"]
MACHINE = quickstart.Machine(ranks=1, jobs=2, threads=1, bf16=False)


@pytest.fixture(autouse=True)
def bundled_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the bundled models, without any."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "bundled"))
    return tmp_path / "bundled"


@pytest.fixture
def own_data(tmp_path: Path) -> Path:
    """A user's data directory: FASTA for the corpus, JSON lines and CSV for two tasks."""
    folder = tmp_path / "proteins"
    folder.mkdir()
    rng = random.Random(0)

    def protein(length: int) -> str:
        return "".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=length))

    (folder / "corpus.fasta").write_text("".join(f">p{i}\n{protein(rng.randint(20, 60))}\n" for i in range(40)))
    for split, number in (("train", 12), ("valid", 4), ("cb513", 4)):
        with (folder / f"secondary_structure_{split}.jsonl").open("w") as stream:
            for _ in range(number):
                primary = protein(rng.randint(20, 40))
                stream.write(
                    json.dumps({"primary": primary, "ss3": "".join(rng.choices("HEC", k=len(primary)))}) + "\n"
                )
    for split in ("train", "valid"):
        rows = "".join(f"{protein(30)},{rng.random():.3f}\n" for _ in range(8))
        (folder / f"stability_{split}.csv").write_text("primary,stability_score\n" + rows)
    return folder


def test_plan_covers_every_task_and_variant(tmp_path):
    steps = quickstart.plan(
        quickstart.SAMPLE, tmp_path, list(quickstart.TASKS.values()), quickstart.SIZES["tiny"], MACHINE
    )
    names = [step.name for step in steps]
    folders = ("corpus", *quickstart.FOLDERS.values())
    comparison = ["tp1", "tp2", "compare_layouts"]
    assert names[:12] == [*(f"prepare_{folder}" for folder in folders), *comparison, "pretrain", "convert", "random"]
    assert names[-1] == "report"
    assert len(names) == len(set(names)) == 12 + 5 * 3 * 2 + 1
    commands = {step.name: command_line(step) for step in steps}
    assert "--split test_fold_holdout" in commands["evaluate_remote_homology_onehot_test_fold_holdout"]
    pretrained, scratch = (commands[f"finetune_stability_{name}"] for name in ("pretrained", "random"))
    same = scratch.replace("random/0", "model").replace("--time_or_name random", "--time_or_name pretrained")
    assert same == pretrained  # one setting for both
    # these save their state and end with exit code 0 after a stop signal
    checked = {step.name for step in steps if step.missing()}
    assert checked == {"tp1", "tp2", "pretrain"} | {name for name in names if name.startswith("finetune")}
    assert "--num_train_epochs 30 --batch_size 16 --learning_rate 0.01" in commands["finetune_stability_onehot"]
    assert "--head_learning_rate 0.03 --contact_head linear" in commands["finetune_contact_prediction_random"]
    assert "--head_learning_rate" not in commands["finetune_contact_prediction_onehot"]


def bundle(folder: Path, **config: Any) -> None:
    """A bundled model of the quickstart's own size, but for ``config``; nothing reads its weights."""
    values = {"hidden_size": TINY.hidden, "num_hidden_layers": TINY.layers, "max_position_embeddings": 2176}
    vocabulary = {"fingerprint": TAPETokenizer(config.pop("vocabulary", "iupac")).fingerprint}
    files = {
        "config.json": {**values, **config},
        "vocabulary.json": vocabulary,
        "model.safetensors": 0,
        "SHA256SUMS": 0,
    }
    (folder / DEFAULT_MODEL).mkdir(parents=True)
    for name, content in files.items():
        (folder / DEFAULT_MODEL / name).write_text(json.dumps(content))


def test_the_bundled_model_is_a_further_start(tmp_path: Path, bundled_folder: Path) -> None:
    bundle(bundled_folder)
    steps = {step.name: step for step in quickstart.plan(quickstart.SAMPLE, tmp_path, ["stability"], TINY, MACHINE)}
    step = steps["finetune_stability_bundled"]
    scratch = command_line(steps["finetune_stability_random"])
    same = scratch.replace(str(tmp_path / "random" / "0"), DEFAULT_MODEL).replace("_name random", "_name bundled")
    assert command_line(step) == same
    assert step.after == ("prepare_stability",)
    assert step.inputs == (bundled_folder / DEFAULT_MODEL / "SHA256SUMS",)  # another model repeats it
    assert "evaluate_stability_bundled_test" in steps
    assert f"{tmp_path}/results/stability_transformer_bundled" in command_line(steps["report"])


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"vocabulary": "unirep"}, "another vocabulary"),
        ({"max_position_embeddings": 1024}, "a position table of 1,024 instead of 2,176 tokens"),
        ({"hidden_size": 512}, "more than 4 times the weights of this --size"),
    ],
)
def test_a_bundled_model_that_is_not_comparable_is_left_out(
    config: dict[str, Any], reason: str, bundled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle(bundled_folder, **config)
    assert quickstart.variants_of(TINY) == ["pretrained", "random", "onehot"]
    assert capsys.readouterr().err == f"note: no start from the bundled model {DEFAULT_MODEL}, which has {reason}\n"


@pytest.mark.parametrize(("gpus", "processes"), [(0, 1), (1, 1), (3, 2), (8, 8)])
def test_pretraining_takes_the_fastest_layout(
    gpus: int, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All cores in one process, or data parallelism over the GPUs, never tensor parallelism."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(low_precision, "fast_bf16", lambda device: False)
    monkeypatch.setattr(quickstart, "usable_cores", lambda: 6)
    size = dataclasses.replace(quickstart.SIZES["tiny"], rows=32)
    machine = quickstart.Machine.detect(size.rows, tmp_path)
    steps = {step.name: step for step in quickstart.plan(quickstart.SAMPLE, tmp_path, ["stability"], size, machine)}
    command = command_line(steps["pretrain"])
    assert "--tensor-model-parallel-size" not in command
    assert (f"--nproc-per-node {processes} " in command) == (processes > 1)
    assert f"--micro-batch-size {32 // processes} --global-batch-size 32 " in command
    if gpus == 0:
        assert command.startswith("OMP_NUM_THREADS=4 ")
    on_cpu = "CUDA_VISIBLE_DEVICES=''" in command_line(steps["tp2"])
    assert on_cpu == (gpus == 1)  # two ranks need two GPUs


def test_the_bf16_measurement_of_the_first_run_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another measurement may differ, which would change the commands and run every step again."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(low_precision, "fast_bf16", lambda device: True)
    first = quickstart.Machine.detect(4, tmp_path / "steps")
    assert first.bf16
    monkeypatch.setattr(low_precision, "fast_bf16", lambda device: False)
    assert not quickstart.Machine.detect(4, tmp_path / "steps").bf16  # detect() stores nothing
    first.save_measurement(tmp_path / "steps")
    assert quickstart.Machine.detect(4, tmp_path / "steps") == first


def test_a_missing_data_set_is_named(tmp_path, own_data):
    size = quickstart.SIZES["tiny"]
    with pytest.raises(ConfigError, match="no data of fluorescence"):
        quickstart.plan(own_data, tmp_path, ["fluorescence"], size, MACHINE)
    (own_data / "stability_valid.csv").unlink()
    with pytest.raises(ConfigError, match="needs the splits train and valid"):
        quickstart.plan(own_data, tmp_path, ["stability"], size, MACHINE)
    (own_data / "corpus.fasta").unlink()
    with pytest.raises(ConfigError, match="no corpus"):
        quickstart.plan(own_data, tmp_path, ["secondary_structure"], size, MACHINE)


def test_completed_steps_are_kept_when_tasks_or_other_files_change(tmp_path, own_data):
    out = tmp_path / "out"

    def fingerprints(*tasks: str) -> dict[str, str]:
        steps = quickstart.plan(own_data, out, tasks, quickstart.SIZES["tiny"], MACHINE)
        runner = StepRunner(steps, out / "steps", quickstart.ROOT)
        return {name: value for name, value in runner._fingerprints.items() if name != "report"}

    both, one = fingerprints("secondary_structure", "stability"), fingerprints("stability")
    assert "pretrain" in one
    assert one.items() <= both.items()
    source = own_data / "secondary_structure_valid.jsonl"
    source.write_text(source.read_text() + "\n")
    changed = {name for name, value in fingerprints("secondary_structure", "stability").items() if value != both[name]}
    assert changed == {name for name in both if "secondary_structure" in name}


def test_data_are_not_overwritten(tmp_path, own_data):
    size = quickstart.SIZES["tiny"]
    (tmp_path / "data").symlink_to(own_data)
    with pytest.raises(ConfigError, match="choose another --out"):
        quickstart.main(["--data", str(tmp_path / "data"), "--out", str(tmp_path), "--tasks", "st"])
    mine = tmp_path / "out" / "checkpoints" / "iter_0000009"
    mine.mkdir(parents=True)
    (mine / "weights").touch()
    steps = quickstart.plan(own_data, tmp_path / "out", ["stability"], size, MACHINE)
    with pytest.raises(ConfigError, match=r"checkpoints exists and was not made by this program"):
        StepRunner(steps, tmp_path / "out" / "steps", quickstart.ROOT).run()
    assert (mine / "weights").exists()


@pytest.mark.slow
@pytest.mark.distributed
def test_all_steps_run_on_user_data(tmp_path, own_data, monkeypatch):
    settings = quickstart.FINETUNING
    short = {task: dataclasses.replace(setting, epochs=1, onehot_epochs=1) for task, setting in settings.items()}
    monkeypatch.setattr(quickstart, "FINETUNING", short)
    size = quickstart.Size(hidden=16, layers=1, heads=2, tokens=128, rows=2, iterations=3, learning_rate=1e-3)
    out = tmp_path / "out"
    tasks = ["secondary_structure", "stability"]
    steps = quickstart.plan(own_data, out, tasks, size, MACHINE)
    ran = StepRunner(steps, out / "steps", quickstart.ROOT, MACHINE.jobs).run()
    assert set(ran) == {step.name for step in steps}
    page = (out / "report" / "report.html").read_text()
    assert float(re.search(r"losses of tp1 and tp2: (\S+?)\.<", page)[1]) < 1e-5
    table = (out / "report" / "table.md").read_text()
    assert "| secondary_structure | proteins: secondary_structure | cb513 (4) | 3-class accuracy |" in table
    assert "| stability | proteins: stability | valid (8) | Spearman's rho |" in table
    assert "| one-hot | random weights | pretrained |" in table
    assert StepRunner(steps, out / "steps", quickstart.ROOT, MACHINE.jobs).run() == {}
    assert missing_iterations(out / "checkpoints", 4) == "the last checkpoint is of iteration 3 of 4"
    assert missing_epochs(out / "results" / "stability_transformer_random", 2) == "1 of 2 epochs"


def test_the_output_directory_is_checked_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").touch()
    monkeypatch.setattr(quickstart.Machine, "detect", lambda *_: pytest.fail("measured first"))
    with pytest.raises(ConfigError, match=r"--out .*taken/q: .*taken is a file"):
        quickstart.main(["--out", str(tmp_path / "taken" / "q")])
