"""Loops over ``tape.training``'s runners, as public code writes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from tape import ProteinBertForSequenceToSequenceClassification, errors, utils, visualization
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError
from tape.optimization import AdamW, WarmupLinearSchedule
from tape.registry import registry
from tape.training import BackwardRunner, ForwardRunner, run_eval_epoch, run_train_epoch, run_valid_epoch
from tests.support.small_models import SMALL_CONFIGS
from tests.support.tape_runs import code_of, saved_run

CPU = torch.device("cpu")


def their_train(
    task: str, data_dir: Path, config_file: Path, save_path: Path, epochs: int, patience: int, fp16: bool = False
) -> tuple[BackwardRunner, list[float]]:
    """The loop of TAPE's ``run_train`` with early stopping, as copied into integrations with other libraries."""
    device, n_gpu, is_master = utils.setup_distributed(-1, no_cuda=True)
    utils.set_random_seeds(42, n_gpu)
    train, valid = (utils.setup_dataset(task, data_dir, split, "iupac") for split in ("train", "valid"))
    train_loader, valid_loader = (utils.setup_loader(data, 4, -1, n_gpu, 1, 2) for data in (train, valid))
    steps = utils.get_num_train_optimization_steps(train, 4, epochs)
    model = registry.get_task_model("transformer", task, config_file, None).to(device)
    optimizer = utils.setup_optimizer(model, 1e-2)
    viz = visualization.get(save_path / "logs", "run", -1, debug=False)
    viz.log_config(model.config.to_dict())
    viz.watch(model)
    runner = BackwardRunner(model, optimizer, 1, device, n_gpu, fp16, -1, 1.0, 2, steps)
    runner.initialize_fp16()
    runner.initialize_distributed_model()
    losses: list[float] = []
    with utils.wrap_cuda_oom_error(-1, 4, n_gpu, 1):
        for epoch in range(epochs):
            run_train_epoch(epoch, train_loader, runner, viz, 2, 1)
            loss, metrics = run_valid_epoch(epoch, valid_loader, runner, viz, is_master)
            assert metrics["loss"] == loss
            losses.append(loss)
            runner.save_state(save_path, epoch)
            utils.barrier_if_distributed()
            if len(losses) - losses.index(min(losses)) > patience:
                raise errors.EarlyStopping
    return runner, losses


def test_their_loop_trains_saves_and_stops_early(small_data: Path, small_config: Path, tmp_path: Path) -> None:
    runner, losses = their_train("stability", small_data, small_config, tmp_path, 3, patience=3)
    assert losses[-1] < losses[0]
    assert runner.global_step == 9
    saved = registry.get_task_model("transformer", "stability", None, tmp_path)
    for name, value in runner.model.state_dict().items():
        assert torch.equal(saved.state_dict()[name], value), name
    with pytest.raises(errors.EarlyStopping):
        their_train("stability", small_data, small_config, tmp_path, 3, patience=0)


def test_a_run_is_resumed_from_its_state(small_data: Path, small_config: Path, tmp_path: Path) -> None:
    runner, _ = their_train("stability", small_data, small_config, tmp_path, 2, patience=3)
    model = registry.get_task_model("transformer", "stability", None, tmp_path)
    again = BackwardRunner(
        model, utils.setup_optimizer(model, 1e-2), 1, CPU, warmup_steps=2, num_train_optimization_steps=8
    )
    assert again.resume_from_checkpoint(tmp_path) == 2
    assert again.global_step == runner.global_step == 6
    assert again.optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 * 2 / 6)  # 2 of 6 steps after warm-up are left
    state, expected = again.optimizer.state_dict()["state"], runner.optimizer.state_dict()["state"]
    assert all(torch.equal(state[key]["exp_avg"], expected[key]["exp_avg"]) for key in expected)


def test_the_state_of_tape_is_resumed_and_others_are_refused(tmp_path: Path) -> None:
    """tape-proteins 0.5 saves optimizer, schedule and epoch only."""
    model = nn.ModuleDict({"layer": nn.Linear(2, 1)})
    model.forward = lambda input_ids: (input_ids,)  # type: ignore[method-assign]
    optimizer = AdamW(model.parameters(), lr=0.1)
    schedule = WarmupLinearSchedule(optimizer, 0, 10)
    optimizer.step()
    schedule.step()
    content = {"optimizer": optimizer.state_dict(), "scheduler": schedule.state_dict(), "epoch": 4}
    torch.save(content, tmp_path / "checkpoint.bin")
    runner = BackwardRunner(model, AdamW(model.parameters(), lr=0.1), device=CPU)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: missing, whose order of weights"):
        runner.resume_from_checkpoint(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert runner.resume_from_checkpoint(str(tmp_path)) == 5
    assert runner.global_step == 1
    torch.save({"epoch": 4}, tmp_path / "checkpoint.bin")
    with pytest.raises(CheckpointError, match=r"checkpoint\.bin: lacks optimizer"):
        runner.resume_from_checkpoint(tmp_path)


def groups_of(kind: str, model: nn.Module) -> list[dict[str, Any]]:
    """Those of :func:`tape.utils.setup_optimizer`, those that 0.5's rule gives for the names here, or one."""
    if kind == "ours":
        return utils.setup_optimizer(model, 0.1).param_groups
    named = dict(model.named_parameters())
    exempt = [name for name in named if kind == "rule of 0.5" and ("bias" in name or "LayerNorm" in name)]
    groups = ([named[name] for name in named if name not in exempt], [named[name] for name in exempt])
    return [{"params": group} for group in groups if group]


@pytest.mark.parametrize("kind", ["ours", "rule of 0.5", "one group"])
@pytest.mark.parametrize("name", ["tape transformer", "tape unirep", "tape lstm", "ProteinLM"])
@pytest.mark.parametrize("optimizer", [AdamW, torch.optim.AdamW])
def test_moments_of_tape_are_those_of_the_parameter_of_the_same_name(
    name: str, kind: str, optimizer: Callable[..., Optimizer], tmp_path: Path
) -> None:
    """Whatever the groups, and the order of parameters, as of UniRep's (bug 9 in docs/compatibility.md)."""
    saved = saved_run(name, tmp_path)
    directory = saved.write(tmp_path)
    model = registry.get_task_model(saved.layout.model_type, saved.layout.task, None, directory)
    runner = BackwardRunner(model, optimizer(groups_of(kind, model), lr=0.1), device=CPU)
    assert (runner.resume_from_checkpoint(directory), runner.global_step) == (2, 6)
    found = {own: runner.optimizer.state[value] for own, value in model.named_parameters()}
    assert {own for own in found if found[own]} == saved.own_names
    for own in saved.own_names:
        assert found[own]["step"] == 6
        assert found[own]["exp_avg"].eq(torch.tensor(code_of(own))).all(), own
    runner.optimizer.zero_grad()
    sum(parameter.sum() for parameter in model.parameters()).backward()
    runner.step()


def test_a_state_of_other_shapes_is_refused(tmp_path: Path) -> None:
    """load_state_dict of torch takes it, and a scalar weight would become a vector in the next step."""
    vector, scalar = (AdamW([nn.Parameter(values)], lr=0.1) for values in (torch.ones(3), torch.ones(())))
    vector.param_groups[0]["params"][0].grad = torch.ones(3)
    vector.step()
    content = {"optimizer": vector.state_dict(), "scheduler": {"last_epoch": 1}, "scaler": {}, "epoch": 0}
    torch.save(content, tmp_path / "checkpoint.bin")
    runner = BackwardRunner(Scale(), scalar, device=CPU)
    with pytest.raises(CheckpointError, match=r"exp_avg of shape \(3,\) for a weight of \(\)"):
        runner.resume_from_checkpoint(tmp_path)


class Scale(nn.Module):
    """Returns ``(loss, output)`` without metrics, and has no argument for the mask of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, input_ids: torch.Tensor, targets: torch.Tensor | None = None) -> tuple[Any, ...]:
        output = self.weight * input_ids
        return (output,) if targets is None else (((output - targets) ** 2).mean(), output)


BATCHES = [
    {"input_ids": torch.tensor([1.0, 2.0]), "input_mask": torch.ones(2), "targets": torch.zeros(2)},
    {"input_ids": torch.tensor([3.0, 0.0]), "input_mask": torch.ones(2), "targets": torch.ones(2)},
    {"input_ids": torch.tensor([2.0, 2.0]), "input_mask": torch.ones(2), "targets": torch.zeros(2)},
]


def test_only_fields_with_an_argument_reach_the_model() -> None:
    runner = ForwardRunner(Scale(), CPU, 1)
    assert runner.eval().model.training is False
    loss, metrics, outputs = runner.forward(BATCHES[0], return_outputs=True)
    assert (float(loss.detach()), metrics, outputs[1].tolist()) == (2.5, {}, [1.0, 2.0])
    (output,) = runner.forward({"input_ids": torch.ones(1), "ids": ["a"]}, no_loss=True)
    assert output.tolist() == [1.0]


def test_steps_clip_the_gradient_of_their_own_passes() -> None:
    # bug 1 in docs/compatibility.md: each step had the gradients of all before it
    model = Scale()
    runner = BackwardRunner(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        2,
        CPU,
        max_grad_norm=1.5,
        num_train_optimization_steps=10**9,
    )
    loss, metrics = run_train_epoch(0, BATCHES, runner, gradient_accumulation_steps=2)
    first = min(1.5, (5.0 + 6.0) / 2)  # d/dw of mean (w x - t)^2 at w = 1, clipped
    weight = 1 - 0.1 * first
    second = min(1.5, 8 * weight / 2)  # the last step has one pass
    assert float(model.weight.detach()) == pytest.approx(weight - 0.1 * second)
    assert runner.global_step == 2
    assert loss == pytest.approx(((2.5 + 2.5) / 2 + 4 * weight**2) / 2)
    assert metrics == {}


def test_results_of_an_evaluation(small_data: Path) -> None:
    """As in scripts that time models: predictions and targets of each protein."""
    model = ProteinBertForSequenceToSequenceClassification(
        ProteinBertConfig(**SMALL_CONFIGS["transformer"], num_labels=3)
    )
    dataset = utils.setup_dataset("secondary_structure", small_data, "cb513", "iupac")
    loader = utils.setup_loader(dataset, 2, -1, 1, 1, 0)
    results = run_eval_epoch(loader, ForwardRunner(model, CPU, 1))
    assert len(results) == len(dataset) == 5
    for result in results:
        assert result["prediction"].shape == (*result["target"].shape, 3)
    loss, metrics = run_valid_epoch(0, loader, ForwardRunner(model, CPU, 1))
    assert math.isfinite(loss)
    assert sorted(metrics) == ["accuracy", "loss"]


def test_several_processes_are_refused() -> None:
    with pytest.raises(ConfigError, match="local_rank is 0, but"):
        ForwardRunner(Scale(), CPU, 1, False, 0)


def test_mixed_precision_scales_the_loss() -> None:
    model = Scale()
    runner = BackwardRunner(model, torch.optim.SGD(model.parameters(), lr=0.1), device=CPU, fp16=True)
    runner.backward(runner.forward(BATCHES[0])[0])
    assert float(model.weight.grad) == pytest.approx(5.0 * runner.scaler.get_scale())
    runner.step()
    assert float(model.weight.detach()) == pytest.approx(0.9, abs=1e-4)  # clipped to norm 1
