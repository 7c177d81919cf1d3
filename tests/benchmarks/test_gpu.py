"""The benchmark of a GPU, on whatever device there is, at toy sizes."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_stages
from benchmarks.gpu_stage_names import stage_names
from benchmarks.gpu_stages import FULL, TINY, Size, Stages
from benchmarks.pretraining_throughput import Setting, Throughput
from tape.errors import ProteinLMError

STAGES = (
    "environment",
    "matrix_rate",
    "nccl",
    "pretrain/200M",
    "pretrain/650M/checkpointing",
    "pretrain/200M/padded attention",
    "pretrain/200M/dropout 0",
    "profile/200M",
    "finetune/secondary_structure",
    "finetune/contact_prediction",
    "embed",
)


def stages_of(path: Path) -> dict[str, Any]:
    stages: dict[str, Any] = json.loads(path.read_text())["stages"]
    return stages


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("gpu") / "gpu.json"
    gpu.main(["--json", str(path), "--tiny", "--stages", *STAGES])
    return stages_of(path)


@pytest.mark.slow
def test_all_stages_but_tests_and_compilation_run(results: dict[str, Any]) -> None:
    assert {name: result["status"] for name, result in results.items()} == dict.fromkeys(STAGES, "ok")


@pytest.mark.slow
def test_utilization_refers_to_the_measured_rate(results: dict[str, Any]) -> None:
    rate = results["matrix_rate"]["flops_per_second"]
    pretraining = [result for name, result in results.items() if name.startswith("pretrain/")]
    assert [result["peak"] for result in pretraining] == [pytest.approx(rate)] * 4
    assert all(0 < result["utilization"] < 1 for result in pretraining)


@pytest.mark.slow
def test_collectives_of_one_rank_are_correct(results: dict[str, Any]) -> None:
    assert results["nccl"]["correct"]


@pytest.mark.slow
def test_profile_has_the_ten_longest_kernels(results: dict[str, Any]) -> None:
    kernels = results["profile/200M"]["kernels"]
    shares = [kernel["share"] for kernel in kernels]
    assert len(kernels) == 10
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1


@pytest.mark.slow
def test_finetuning_and_embedding_rates(results: dict[str, Any]) -> None:
    for name in ("finetune/secondary_structure", "finetune/contact_prediction", "embed"):
        result = results[name]
        assert result["tokens_per_second"] > result["proteins_per_second"] > 0
        assert result["workers"] == 0  # of so few proteins


def test_of_the_dependencies_only_torch_numpy_tqdm_and_lmdb_are_imported() -> None:
    code = """
import sys
others = ("Bio", "h5py", "matplotlib", "pandas", "pyarrow", "safetensors", "scipy", "sklearn", "tensorboardX")
sys.modules.update(dict.fromkeys(others))
import benchmarks.gpu_stages
"""
    subprocess.run([sys.executable, "-c", code], cwd=gpu.ROOT, check=True)


def test_stages_without_time_left_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    gpu.main(["--json", str(path), "--tiny", "--budget", "0"])
    assert stages_of(path) == {name: {"status": "skipped"} for name in stage_names()}


@pytest.mark.slow
def test_a_stage_that_fails_ends_its_process_only(tmp_path: Path) -> None:
    path, missing = tmp_path / "gpu.json", str(tmp_path / "missing")
    with pytest.raises(ProteinLMError, match=r"1 of 2 stages failed: pretrain/35M; .*gpu\.json has the reasons"):
        gpu.main(["--json", str(path), "--tiny", "--corpus", missing, "--stages", "pretrain/35M", "nccl"])
    result = stages_of(path)
    assert missing in result["pretrain/35M"]["reason"]
    assert result["nccl"]["status"] == "ok"


def test_the_start_of_the_process_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_LONGEST", 0.2)
    with pytest.raises(ProteinLMError, match="1 of 1 stages failed"):
        gpu.main(["--json", str(tmp_path / "gpu.json"), "--tiny", "--stages", "environment"])
    assert stages_of(tmp_path / "gpu.json")["environment"]["reason"] == "not finished in 0 seconds"


class Model:
    """Refers to itself, as a compiled block does."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def no_garbage_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage_collector")
def test_models_of_earlier_stages_and_of_attempts_out_of_memory_are_freed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[Model]] = []
    found = []

    def freed() -> bool:
        return all(model() is None for model in alive)

    def measure(setting: Setting) -> Throughput:
        found.append((setting.micro_batch_size, freed()))
        model = Model()
        alive.append(weakref.ref(model))
        if setting.micro_batch_size > 2:
            raise torch.OutOfMemoryError
        return Throughput(32, 1, "fp32", 1.0, 0.1, 1.0, 1)

    monkeypatch.setattr(gpu_stages, "measure", measure)
    stages = Stages(FULL, "corpus", tmp_path)
    result = stages.run("pretrain/200M")
    assert found == [(8, True), (4, True), (2, True)]
    assert result["micro_batch_size"] == 2
    stages.run("pretrain/35M/checkpointing")
    assert found[3:] == [(16, True), (8, True), (4, True), (2, True)]


@pytest.mark.slow
def test_the_profile_has_as_many_rows_as_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(setting: Setting) -> Throughput:
        if setting.micro_batch_size > limit:
            raise torch.OutOfMemoryError
        return Throughput(32, 1, "fp32", 1.0, 0.1, 1.0, 1)

    monkeypatch.setattr(gpu_stages, "measure", measure)
    sizes = {"200M": Size(32, 1, 16, 4)}
    stages = Stages(replace(TINY, sizes=sizes), None, tmp_path)
    limit = 2
    stages.run("pretrain/200M")
    limit = 4  # with switches, more rows may fit
    stages.run("pretrain/200M/checkpointing")
    assert stages.run("profile/200M")["micro_batch_size"] == 2


def test_every_stage_can_be_run() -> None:
    for name in stage_names():
        kind, *arguments = name.split("/")
        assert kind == "tests" or callable(getattr(Stages, kind))
        assert kind not in ("pretrain", "profile") or arguments[0] in FULL.sizes


def test_results_of_the_marked_tests_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests").mkdir()
    marked = "@pytest.mark.gpu\ndef test_{}():\n    {}\n"
    bodies = {"passes": "pass", "fails": "raise ValueError('off by 3')", "skips": "pytest.skip('no device')"}
    source = "import pytest\n" + "".join(marked.format(*item) for item in bodies.items()) + "def test_other(): pass\n"
    (tmp_path / "tests" / "test_marked.py").write_text(source)
    (tmp_path / "tests" / "test_unmarked.py").write_text("raise SystemError('this file must not be imported')")
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    result = gpu.run_tests(tmp_path, 60)
    counts = {name: result[name] for name in ("status", "tests", "failures", "errors", "skipped")}
    assert counts == {"status": "failed", "tests": 3, "failures": 1, "errors": 0, "skipped": 1}
    assert list(result["failed"].values()) == ["ValueError: off by 3"]
    assert "not finished in 0 seconds" in gpu.run_tests(tmp_path, 0.01)["reason"]
