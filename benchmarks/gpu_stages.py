"""The measurements of ``gpu.py``, in a worker process of their own: an error on the GPU ends a process for good."""

from __future__ import annotations

import gc
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile

from benchmarks.peers.comparison import SAMPLE, machine
from benchmarks.peers.protocol import Answer, Message, serve
from benchmarks.pretraining_throughput import Setting, measure
from pretrain import build
from pretrain.data.preprocessing import preprocess
from pretrain.data.samples import GlobalBatches, TrainingOrder
from pretrain.data.splits import open_splits
from pretrain.optim.precision import PrecisionConfig
from pretrain.parallel import ParallelContext, ParallelDims
from pretrain.planning.flops import measured_peak, memory_reader
from pretrain.train.profiling import operations_by_time
from proteinlm.data.prepare_data import main as prepare_data
from tape.configs import ProteinBertConfig
from tape.datasets.batching import MicroBatchPlan, plan_epoch
from tape.datasets.embedding import EmbedDataset
from tape.datasets.labels import Batch, task_type_of
from tape.datasets.loading import load_batches, worker_count
from tape.evaluation.config import InferenceConfig
from tape.finetuning.config import FinetuneDataConfig, LoopConfig, ModelConfig
from tape.finetuning.data import TrainingData, load_training_data
from tape.finetuning.model import build_trained_model
from tape.finetuning.running_means import RunningMeans
from tape.finetuning.trainer import Finetuner
from tape.inference.embed import embed, run_identity
from tape.io.records import open_records
from tape.models.flash_attention import unusable_reason
from tape.models.modeling_bert import ProteinBertModel
from tape.registry import registry
from tape.runtime.cpu import usable_cores
from tape.runtime.distributed import DistributedContext, choose_device
from tape.tokenizers import TAPETokenizer

_WORKERS = 6  # processes that load data: one prepares some 300,000 tokens/s
_WARM_UP_STEPS, _PROFILED_STEPS, _LISTED_KERNELS = 4, 2, 10
_TASKS = ("secondary_structure", "contact_prediction")
_COLLECTIVE_VALUES = 64 << 20  # values, 256 MiB

LoadedMicroBatch = tuple[MicroBatchPlan, Batch]


@dataclass(frozen=True)
class Size:
    """A model, and how much of it is measured.

    Attributes:
        hidden, layers, head_size: sizes of the model.
        micro_batch_size: rows of a pretraining step; halved while they don't fit into memory.
    """

    hidden: int
    layers: int
    head_size: int = 64
    micro_batch_size: int = 8


@dataclass(frozen=True)
class Scale:
    """Sizes of all measurements.

    Attributes:
        sizes: models by name.
        seq_length: tokens of a row.
        steps: measured steps of a pretraining run.
        finetuned: proteins of a finetuning epoch.
        longest: tokens of the longest protein in finetuning.
        embedded: embedded proteins.
        collective_values: values in each collective.
    """

    sizes: dict[str, Size]
    seq_length: int = 2176
    steps: int = 20
    finetuned: int = 400
    longest: int = 500
    embedded: int = 5000
    collective_values: int = _COLLECTIVE_VALUES


FULL = Scale({"35M": Size(512, 11, micro_batch_size=16), "200M": Size(1024, 16), "650M": Size(1280, 33)})
TINY = Scale({name: Size(32, 1, 16, 1) for name in FULL.sizes}, 512, 1, 4, 60, 8, 1 << 10)


class Stages:
    """All measurements by name; :meth:`run` does one and returns JSON values.

    Args:
        scale: sizes of all measurements.
        corpus: prefix of the corpus for pretraining; None: the packaged sample.
        folder: directory for prepared data.
    """

    def __init__(self, scale: Scale, corpus: str | None, folder: Path) -> None:
        self.scale, self.folder = scale, folder
        self.device = choose_device(0)
        is_gpu = self.device.type == "cuda"
        self.precision = "bf16" if is_gpu else "fp32"
        self.workers = min(_WORKERS, usable_cores()) if is_gpu else 0
        self._corpus = corpus

    def run(self, name: str) -> Message:
        """Run one of :func:`benchmarks.gpu_stage_names.stage_names`."""
        self._free_memory()
        kind, *arguments = name.split("/")
        method: Callable[..., Message] = getattr(self, kind)
        return method(*arguments)

    def _free_memory(self) -> None:
        """Free what earlier models have left, so that the next one has the memory of a new process.

        Reference cycles keep them until the garbage collector runs: a compiled block refers to itself, for example.
        """
        torch.compiler.reset()  # a model of another size is compiled as in a new process
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def _wait(self) -> None:
        """Wait until the device has done all its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def environment(self) -> Message:
        """Device, versions, and whether the attention kernel passes its check."""
        gpu = torch.cuda.get_device_name() if self.device.type == "cuda" else None
        memory = torch.cuda.get_device_properties(0).total_memory if self.device.type == "cuda" else None
        checks = {
            f"{dtype}, dropout {dropout}": unusable_reason(self.device, dtype, 64, dropout)
            for dtype in (torch.bfloat16, torch.float16)
            for dropout in (0.0, 0.1)
        }
        versions = {"cuda": torch.version.cuda, "gpu": gpu, "gpu_memory": memory}
        return {**machine(), **versions, "attention_kernel_unusable": checks}

    def matrix_rate(self) -> Message:
        """FLOP/s of square matrix products: the peak of the model FLOP utilizations."""
        peak = measured_peak(PrecisionConfig(self.precision), self.device, seconds=2.0)
        self._store("peak", peak)
        return {"flops_per_second": peak, "precision": self.precision}

    def nccl(self) -> Message:
        """Whether collectives of one rank return what they must. They move nothing, so their time says nothing."""
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        with tempfile.TemporaryDirectory() as folder:
            dist.init_process_group(backend, init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
            try:
                return {"backend": backend, **self._collectives()}
            finally:
                dist.destroy_process_group()

    def _collectives(self) -> Message:
        values = torch.arange(self.scale.collective_values, device=self.device, dtype=torch.float32)
        expected, gathered, part = values.clone(), torch.empty_like(values), torch.empty_like(values)
        dist.all_reduce(values)
        dist.all_gather_into_tensor(gathered, values)
        dist.reduce_scatter_tensor(part, values)
        dist.broadcast(values, 0)
        objects: list[Any] = [None]
        dist.all_gather_object(objects, "rank 0")
        dist.barrier()
        correct = all(torch.equal(one, expected) for one in (values, gathered, part)) and objects == ["rank 0"]
        return {"correct": correct}

    def pretrain(self, size: str, *switches: str) -> Message:
        """Tokens/s and utilization of pretraining; switches: see :func:`_flags_of`."""
        rows = self.scale.sizes[size].micro_batch_size
        while True:
            try:
                result = measure(self._setting(size, rows, switches))
                break
            except torch.OutOfMemoryError:
                if rows == 1:
                    raise
            rows //= 2
            self._free_memory()  # after the except block: its exception has the frames, and with them the model
        assert result is not None  # a single process reports
        print(size, *switches, result.line(), flush=True)
        if not switches:
            self._store(f"rows_{size}", rows)
        return {**asdict(result), "micro_batch_size": rows, "workers": self.workers}

    def _setting(self, size: str, rows: int, switches: Sequence[str]) -> Setting:
        model, peak = self.scale.sizes[size], self._stored("peak")
        return Setting(
            self._prepared_corpus(),
            model.hidden,
            model.layers,
            model.head_size,
            self.precision,
            rows,
            self.scale.seq_length,
            0.0 if "dropout 0" in switches else 0.1,
            self.scale.steps,
            None if peak is None else peak / 1e12,
            self.workers,
            tuple(flag for switch in switches for flag in _flags_of(switch)),
        )

    def profile(self, size: str) -> Message:
        """The kernels that take most of the time of a training step."""
        stored = self._stored(f"rows_{size}")  # those that fit into memory
        micro_batch_size = self.scale.sizes[size].micro_batch_size if stored is None else int(stored)
        config = self._setting(size, micro_batch_size, ()).config(1)
        context = ParallelContext(ParallelDims(), 0, self.device, None)
        config, _ = build.choose_attention(config, context)
        trainer = build.build_trainer(config, context)
        trainer.model.train()
        steps = _WARM_UP_STEPS + _PROFILED_STEPS
        samples = open_splits(config.data, config.samples).train
        batches = GlobalBatches(samples, TrainingOrder(config.batch, 0, steps, 0, 1), 0)
        of_steps = [batch.micro_batches for batch in islice(batches, steps)]
        for number, micro_batches in enumerate(of_steps[:_WARM_UP_STEPS], start=1):
            trainer.train_step(number, micro_batches)
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])
        with profile(activities=activities) as profiler:
            self._wait()
            began = time.perf_counter()
            for number, micro_batches in enumerate(of_steps[_WARM_UP_STEPS:], start=_WARM_UP_STEPS + 1):
                trainer.train_step(number, micro_batches)
            self._wait()
            seconds = time.perf_counter() - began
        kernels = _top_kernels(profiler, self.device.type == "cuda")
        return {"micro_batch_size": micro_batch_size, "step_seconds": seconds / _PROFILED_STEPS, **kernels}

    def finetune(self, task: str) -> Message:
        """Proteins/s and tokens/s of the steps of a finetuning epoch of the 200M model, after one that isn't counted.

        The batches are in memory before the clock starts: so few proteins are read without worker processes, which
        keep up with the device in an epoch of a whole training set.
        """
        data_dir = self.folder / "tasks"
        if not data_dir.exists():
            prepare_data([str(SAMPLE.parents[1]), str(data_dir), "--tasks", *_TASKS])
        spec, tokenizer = registry.get_task_spec(task), TAPETokenizer()
        options = FinetuneDataConfig(str(data_dir), max_length=self.scale.longest)
        data = load_training_data(options, spec.dataset_class, validate=False)
        data = replace(data, indices=data.indices[: self.scale.finetuned])
        config = ModelConfig("transformer", config_file=self._model_file())
        model = build_trained_model(config, task, tokenizer, None).to(self.device)
        loop = LoopConfig(num_train_epochs=2, eval_freq=0, num_workers=0, precision=self.precision)
        context, task_type = DistributedContext(device=self.device), task_type_of(spec, data.train)
        finetuner, means = Finetuner(model, data, task_type, loop, context), RunningMeans(task_type)
        finetuner.train_epoch(0, time.monotonic())
        steps = self._finetuning_steps(data, finetuner.batch_size, loop.seed)
        self._wait()
        began = time.perf_counter()
        for step in steps:
            finetuner.train_step(step, (means,))
        self._wait()
        seconds = time.perf_counter() - began
        rates = self._rates(data.lengths[data.indices], seconds, workers=0)
        return {**rates, "batch_size": finetuner.batch_size, "loss": means.means(context)["loss"]}

    def _finetuning_steps(self, data: TrainingData, batch_size: int, seed: int) -> list[list[LoadedMicroBatch]]:
        """The micro-batches of the second epoch, in memory that is copied to a GPU as in a run."""
        plan = plan_epoch(data.lengths, data.indices, batch_size=batch_size, seed=seed, epoch=1)
        indices = [micro.indices for step in plan for micro in step]
        batches = load_batches(data.train, indices, num_workers=0, pin_memory=self.device.type == "cuda")
        return [[(micro, next(batches)) for micro in step] for step in plan]

    def embed(self) -> Message:
        """Proteins/s and tokens/s of embedding with the 200M model, from reading to writing, after a first time."""
        proteins = [record.sequence for record in islice(open_records(SAMPLE), self.scale.embedded)]
        fasta = self.folder / "embedded.fasta"
        fasta.write_text("".join(f">{number}\n{protein}\n" for number, protein in enumerate(proteins)))
        dataset = EmbedDataset(fasta)
        model = ProteinBertModel(ProteinBertConfig.from_json_file(str(self._model_file()))).to(self.device)
        config = InferenceConfig(num_workers=self.workers, precision=self.precision)
        context, identity = DistributedContext(device=self.device), run_identity(dataset, full_sequence=False)
        seconds = 0.0
        for name in ("first.npz", "second.npz"):  # the first loads kernels
            began = time.perf_counter()
            embed(model, dataset, config, context, self.folder / name, identity)
            seconds = time.perf_counter() - began
        workers = worker_count(self.workers, len(proteins))
        return self._rates(np.array([len(protein) for protein in proteins]), seconds, workers)

    def _rates(self, lengths: np.ndarray, seconds: float, workers: int) -> Message:
        """Rates of a pass over proteins with these numbers of residues; a token is a residue, <cls> or <sep>.

        Args:
            lengths: (N,) residues per protein.
            seconds: time of the pass.
            workers: processes that loaded data during this time.
        """
        return {
            "workers": workers,
            "proteins": len(lengths),
            "seconds": seconds,
            "proteins_per_second": len(lengths) / seconds,
            "tokens_per_second": float((lengths + 2).sum()) / seconds,
            "memory_bytes": memory_reader(self.device)(),
        }

    def _prepared_corpus(self) -> str:
        if self._corpus is not None:
            return self._corpus
        prefix = self.folder / "sample"
        if not (self.folder / "sample_text_document.bin").exists():
            preprocess([SAMPLE], prefix)
        return f"{prefix}_text_document"

    def _model_file(self) -> Path:
        size = self.scale.sizes["200M"]
        path = self.folder / "model.json"
        config = ProteinBertConfig(
            hidden_size=size.hidden,
            num_hidden_layers=size.layers,
            num_attention_heads=size.hidden // size.head_size,
            intermediate_size=4 * size.hidden,
            max_position_embeddings=self.scale.seq_length,
        )
        path.write_text(json.dumps(config.to_dict()))
        return path

    def _store(self, name: str, value: float) -> None:
        """Keep a value for another worker, which replaces this one after an error."""
        (self.folder / f"{name}.json").write_text(json.dumps(value))

    def _stored(self, name: str) -> float | None:
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None


def _flags_of(switch: str) -> tuple[str, ...]:
    flags = {
        "compile": ("--compile",),
        "checkpointing": ("--checkpoint-activations",),
        "padded attention": ("--attention-backend", "padded"),
        "dropout 0": (),
    }
    return flags[switch]


def _top_kernels(profiler: profile, is_gpu: bool) -> Message:
    """The kernels with the longest total time; without a GPU, the operators."""
    operations = operations_by_time(profiler.key_averages(), is_gpu)
    total = sum(time for _, time in operations) or 1.0
    kernels = [
        {
            "name": event.key,
            "calls_per_step": event.count / _PROFILED_STEPS,
            "seconds_per_step": time / 1e6 / _PROFILED_STEPS,
            "share": time / total,
        }
        for event, time in operations[:_LISTED_KERNELS]
    ]
    return {"kernel_seconds": total / 1e6 / _PROFILED_STEPS, "kernels": kernels}


def open_stages(setup: Message) -> tuple[Message, Answer]:
    """The worker's side of the protocol."""
    stages = Stages(TINY if setup["tiny"] else FULL, setup["corpus"], Path(setup["folder"]))
    return {}, lambda request: stages.run(request["stage"])


if __name__ == "__main__":
    serve(open_stages)
