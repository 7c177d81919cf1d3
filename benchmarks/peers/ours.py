"""Worker of this repository: the training steps of ``pretrain/pretrain_tape.py`` and ``tape-train``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from pretrain.build import build_trainer
from pretrain.config.arguments import PretrainConfig, parse_arguments
from pretrain.data.samples import join_rows
from pretrain.parallel import choose_backend, open_parallel_context
from pretrain.planning.flops import flops_per_token, measured_peak
from pretrain.planning.memory_estimate import parameter_count
from tape.datasets.batching import MicroBatchPlan
from tape.datasets.labels import Batch, task_type_of
from tape.finetuning.config import AdamWConfig, FinetuneDataConfig, LoopConfig, ModelConfig
from tape.finetuning.data import load_training_data
from tape.finetuning.model import build_trained_model
from tape.finetuning.running_means import RunningMeans
from tape.finetuning.seeding import seed_all
from tape.finetuning.trainer import Finetuner
from tape.main import run_embed, run_eval
from tape.models.freezing import set_training_mode
from tape.registry import registry
from tape.runtime.cpu import configure_cpu
from tape.runtime.distributed import choose_device, distributed_context
from tape.runtime.launch import Launch
from tape.tokenizers import TAPETokenizer
from tape.version import __version__

from .inference import inference_answers
from .memory import peak_above_the_model
from .padded_training import LEARNING_RATE, MAX_GRAD_NORM, WEIGHT_DECAY
from .proteins import load_rows
from .protocol import Answer, Message, model_sizes, serve

_ONE_TYPE = {"type_vocab_size": 1}


def pretraining_config(setup: Message) -> PretrainConfig:
    """The configuration of a run with these sizes, from the flags that a user would give."""
    values = {
        "--num-layers": setup["layers"],
        "--hidden-size": setup["hidden"],
        "--num-attention-heads": setup["heads"],
        "--seq-length": setup["seq_length"],
        "--max-position-embeddings": setup["positions"],
        "--attention-dropout": setup["dropout"],
        "--hidden-dropout": setup["dropout"],
        "--micro-batch-size": 1,
        "--train-iters": 1_000_000,
        "--lr": LEARNING_RATE,
        "--lr-decay-style": "constant",
        "--weight-decay": WEIGHT_DECAY,
        "--clip-grad": MAX_GRAD_NORM,
        "--precision": setup["precision"],
        "--data-path": setup["data"],
    }
    switches = ["--compile"] if setup["compile"] else []
    return parse_arguments([*(str(word) for pair in values.items() for word in pair), *switches])


def open_pretraining(setup: Message) -> tuple[Message, Answer]:
    config, device = pretraining_config(setup), choose_device(0)
    if device.type == "cpu":
        configure_cpu()  # as pretrain_tape.py does
    stack = ExitStack()  # a single process has no process groups to destroy
    backend, _ = choose_backend(None, device)
    context = stack.enter_context(
        open_parallel_context(config.dims, Launch(), backend, device, config.parallel.timeout)
    )
    trainer = build_trainer(config, context)
    trainer.model.train()
    rows = load_rows(Path(setup["data"]))
    tokens = sum(len(row.input_ids) for row in rows)
    iteration = 0

    def answer(request: Message) -> Message:
        nonlocal iteration
        number = request["batch_size"]
        batches = [join_rows(rows[first : first + number]) for first in range(0, len(rows), number)]
        batches = batches[:1] if request["warm_up"] and not setup["compile"] else batches
        losses = []
        began = time.perf_counter()
        for batch in batches:
            iteration += 1
            losses.append(trainer.train_step(iteration, [batch]).loss)
        seconds = time.perf_counter() - began
        reply = {"seconds": seconds, "loss": sum(losses) / len(losses), "steps": len(losses)}
        if request["warm_up"]:
            return reply
        return {
            **reply,
            "tokens": tokens,
            "padded_tokens": tokens,
            "peak_flops": measured_peak(config.precision, device, seconds=0.8),
        }

    lengths = torch.tensor([length for row in rows for length in row.lengths], dtype=torch.float64)
    attended = float((lengths**2).sum() / lengths.sum())
    description = {
        "version": f"proteinlm {__version__}",
        "attention": "packed",
        "parameters": parameter_count(config.model),
        "threads": torch.get_num_threads(),
        "flops_per_token": flops_per_token(config.model, attended, config.samples.mask_prob),
    }
    return description, answer


def open_finetuning(setup: Message) -> tuple[Message, Answer]:
    task, tokenizer = setup["task"], TAPETokenizer()
    context = ExitStack().enter_context(distributed_context(no_cuda=True))  # lasts as long as the process
    seed_all(0)
    spec = registry.get_task_spec(task)
    data = load_training_data(FinetuneDataConfig(setup["data"]), spec.dataset_class, validate=False)
    head = {"contact_head": setup["contact_head"]} if task == "contact_prediction" else {}
    overrides = {**model_sizes(setup), **_ONE_TYPE, **head}
    model = build_trained_model(ModelConfig("transformer", overrides=overrides), task, tokenizer, None)
    optimizer = AdamWConfig(LEARNING_RATE, WEIGHT_DECAY, warmup_steps=0, max_grad_norm=MAX_GRAD_NORM)
    loop = LoopConfig(num_train_epochs=1_000_000, num_workers=0, precision=setup["precision"], optimizer=optimizer)
    finetuner = Finetuner(model, data, task_type_of(spec, data.train), loop, context)
    set_training_mode(model)
    parameters = sum(parameter.numel() for parameter in model.parameters())

    def take(steps: Sequence[tuple[MicroBatchPlan, Batch]]) -> float:
        means = RunningMeans(finetuner.task_type)
        for step in steps:
            finetuner.train_step([step], (means,))
        return means.means(context)["loss"]

    def answer(request: Message) -> Message:
        number = request["batch_size"]
        plans = [MicroBatchPlan(data.indices[first : first + number]) for first in range(0, len(data.indices), number)]
        steps = [(plan, data.train.collate_fn([data.train[int(index)] for index in plan.indices])) for plan in plans]
        if request["warm_up"]:
            return {"memory_bytes": peak_above_the_model(parameters, lambda: take(steps[:1]))}
        began = time.perf_counter()
        loss = take(steps)
        seconds = time.perf_counter() - began
        tokens = int(data.lengths.sum()) + 2 * len(data.lengths)
        return {"seconds": seconds, "loss": loss, "steps": len(steps), "tokens": tokens}

    description = {
        "version": f"proteinlm {__version__}",
        "parameters": parameters,
        "threads": torch.get_num_threads(),
    }
    return description, answer


def open_inference(setup: Message) -> tuple[Message, Answer]:
    """``tape-embed`` or ``tape-eval``."""
    folder, saved = setup["data"], f"{setup['scratch']}/model"
    task = "embed" if setup["command"] == "embed" else "secondary_structure"
    seed_all(0)
    model = registry.get_task_model("transformer", task, None, None, **model_sizes(setup), **_ONE_TYPE)
    model.save_pretrained(saved)
    switches = ["--no_cuda", "--log_level", "ERROR", "--precision", setup["precision"]]

    def run(split: str, batch_size: int, target: Path) -> None:
        options = ["--batch_size", str(batch_size), *switches]
        if setup["command"] == "embed":
            run_embed(["transformer", f"{folder}/{split}.fasta", f"{target}.npz", saved, *options])
        else:
            data = ["--data_dir", folder, "--split", split, "--output_dir", str(target)]
            run_eval(["transformer", task, saved, *data, *options])

    description = {"version": f"proteinlm {__version__}", "threads": torch.get_num_threads()}
    return description, inference_answers(setup, run)


WORK = {"pretraining": open_pretraining, "finetuning": open_finetuning, "inference": open_inference}


if __name__ == "__main__":
    serve(lambda setup: WORK[setup["work"]](setup))
