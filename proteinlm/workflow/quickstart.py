"""From proteins to a table of results: corpus, pretraining, conversion, five finetuned tasks, report.

    proteinlm quickstart [--data DIR] [--out DIR] [--tasks TASK ...] [--size tiny|small|base]

In a clone, it is bash scripts/quickstart.sh.

Every step is a plain command of this project and is printed before it runs, so that it can be repeated by hand. Each
task is finetuned from the converted model and from the same model with random weights, with the same settings, and with
TAPE's one-hot baseline. Pretraining takes the fastest layout of the machine, one process or data parallelism over the
GPUs; 20 steps on one process and with tensor parallelism over two show that the layout does not change the losses. A
second run repeats only what has changed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from proteinlm.data.data_sources import CORPUS, PROVENANCE_FILE, Dataset, find_datasets
from proteinlm.workflow.programs import ROOT, launched, program, working_directory
from proteinlm.workflow.run_progress import missing_epochs, missing_iterations
from proteinlm.workflow.step_runner import Step, StepRunner, command_line
from tape.cli.parser import ArgumentParser
from tape.errors import ConfigError, print_notice
from tape.hub.bundled import DEFAULT_MODEL, bundled_model, bundled_names
from tape.io.checksums import SUMS_NAME
from tape.io.json_files import read_json_object
from tape.io.writing import atomic_write, check_output_directory
from tape.runtime.cpu import usable_cores
from tape.tokenizers import TAPETokenizer

_YES, _NO = "yes\n", "no\n"
# Below --out: stamps and logs of the steps. The name is that of earlier versions, whose results stay up to date.
RECORDS = "stages"
SAMPLE = ROOT / "tape" / "sample"
TASKS = {
    "ss": "secondary_structure",
    "cc": "contact_prediction",
    "rh": "remote_homology",
    "fl": "fluorescence",
    "st": "stability",
}
FOLDERS = {task: "proteinnet" if task == "contact_prediction" else task for task in TASKS.values()}
VARIANTS = {"pretrained": "pretrained", "random": "random weights", "onehot": "one-hot", "bundled": "the bundled model"}


@dataclass(frozen=True)
class Size:
    """Model and schedule of one ``--size``.

    Attributes:
        hidden: hidden size.
        tokens: length of a packed row; longer proteins are split in pretraining.
        rows: batch size of pretraining, in packed rows.
        iterations: optimizer steps of pretraining.
        learning_rate: peak learning rate of pretraining.
        init_std: standard deviation of the initial weights. Megatron's 0.02 suits a hidden size of about 1000; with
            about 1 / sqrt(hidden), a narrow model's attention and MLP learn from the first steps on.
        epoch_scale: factor on the finetuning epochs in FINETUNING.
    """

    hidden: int
    layers: int
    heads: int
    tokens: int
    rows: int
    iterations: int
    learning_rate: float
    init_std: float = 0.02
    epoch_scale: float = 1.0


SIZES = {
    "tiny": Size(128, 4, 4, 256, 32, 675, 2e-3, init_std=0.08),
    "small": Size(256, 6, 8, 512, 32, 4000, 1e-3, init_std=0.06),
    "base": Size(512, 8, 8, 2176, 16, 20000, 5e-4),
}
# Size of the position table: finetuning does not split proteins. ProteinLM's value, so that its data sets fit.
POSITIONS = 2176
_COMPARED_STEPS = 20
_LARGEST_BUNDLED = (
    4  # times the weights of the blocks of ``--size``; finetuning a larger model would take most of the time
)


@dataclass(frozen=True)
class Finetuning:
    """Finetuning schedule of one task; the transformer's is the same with pretrained and with random weights.

    The schedules keep the quickstart within ten minutes. Learning rates are the best on the sample's validation sets.
    The two tasks with real data have few epochs: with twice as many, random weights reach the scores of a model
    pretrained this briefly, and the effect of pretraining would not be visible.

    Attributes:
        epochs: epochs of the transformer.
        batch: batch size, in proteins.
        learning_rate: learning rate of the transformer.
        onehot_epochs, onehot_learning_rate: those of the one-hot baseline, which trains only a head: its steps are
            cheap, and it needs more of them.
        options: further flags of ``tape_train.py``, for all models.
        head_learning_rate: learning rate of the transformer's head; None: the same as the transformer's.
    """

    epochs: int
    batch: int
    learning_rate: float
    onehot_epochs: int
    onehot_learning_rate: float
    options: tuple[str, ...] = ()
    head_learning_rate: float | None = None


_MEAN = ("--pooling", "mean")
# TAPE's contact head, with the separation along the chain as an additional input. Without dropout: the head must learn
# in 140 steps, and TAPE's dropout of 0.5 would leave too few of 128 features.
_PAIRS = ("--contact_head", "linear", "--config", "contact_separations=64", "--config", "contact_dropout=0")
FINETUNING = {
    "secondary_structure": Finetuning(1, 8, 3e-4, 1, 1e-3),
    "contact_prediction": Finetuning(2, 8, 2e-3, 6, 1e-1, options=_PAIRS, head_learning_rate=3e-2),
    "remote_homology": Finetuning(6, 8, 1e-3, 6, 1e-2),
    "fluorescence": Finetuning(12, 16, 1e-3, 30, 1e-2, options=_MEAN),
    "stability": Finetuning(8, 16, 5e-4, 30, 1e-2, options=_MEAN),
}


@dataclass(frozen=True)
class Machine:
    """Properties of the machine that the commands depend on.

    Attributes:
        ranks: number of data-parallel processes for pretraining.
        jobs: number of finetuning runs at the same time.
        threads: CPU threads per finetuning run.
        bf16: whether matrix products are faster in bf16 than in fp32.
        device: ``cuda`` or ``cpu``.
    """

    ranks: int
    jobs: int
    threads: int
    bf16: bool
    device: str = "cpu"

    @classmethod
    def detect(cls, rows: int, records: Path) -> Machine:
        """This machine: a process per GPU (as many as divide the batch of ``rows``), or one with all CPU cores.

        Whether bf16 is fast is measured, unless an earlier run has stored the result in ``records``: another result
        would change the commands, and all steps would run again.
        """
        import torch

        from tape.models.low_precision import fast_bf16

        device = "cuda" if torch.cuda.is_available() else "cpu"
        stored = _bf16_record(records, device)
        bf16 = stored.read_bytes() == _YES.encode() if stored.is_file() else fast_bf16(device)
        cores = usable_cores()
        if device == "cuda":
            gpus = torch.cuda.device_count()
            ranks = max(number for number in range(1, gpus + 1) if rows % number == 0)
            return cls(ranks, 1, cores, bf16, device)
        jobs = max(1, min(4, cores))
        return cls(1, jobs, max(1, cores // jobs), bf16, device)

    def save_measurement(self, records: Path) -> None:
        """Store whether bf16 is fast, for :meth:`detect` of a later run."""
        records.mkdir(parents=True, exist_ok=True)
        with atomic_write(_bf16_record(records, self.device), "w") as stream:
            stream.write(_YES if self.bf16 else _NO)


def _bf16_record(records: Path, device: str) -> Path:
    return records / f"fast_bf16_on_{device}.txt"


def plan(data: Path, out: Path, tasks: Sequence[str], size: Size, machine: Machine) -> list[Step]:
    """All steps, each after its dependencies.

    Raises:
        ConfigError: ``data`` contains no corpus, or a task lacks a split that training needs.
    """
    found = check_datasets(data, out, tasks)
    steps = [prepare_step(data, out, name, found) for name in ("corpus", *tasks)]
    steps += _compare_layouts(out, size, machine)
    steps += [_pretrain(out, size, machine, "valid" in found["corpus"].splits), *_models(out)]
    variants = variants_of(size)
    for task in tasks:
        tests = evaluated_splits(found[FOLDERS[task]])
        for variant in variants:
            steps += _finetune(out, task, variant, tests, size, machine)
    evaluations = tuple(step.name for step in steps if step.name.startswith("evaluate"))
    runs = [str(_run_directory(out, task, variant)) for task in tasks for variant in variants]
    report = out / "report"
    steps.append(
        Step(
            "report",
            (
                *(*program("report"), *runs),
                *("--pretraining", str(out / "checkpoints")),
                *("--layouts", *map(str, _layout_runs(out))),
                *("--out", str(report)),
            ),
            (report,),
            after=(*evaluations, "compare_layouts"),
            title="report",
            weight=5,
        )
    )
    return steps


def variants_of(size: Size) -> list[str]:
    """The model variants of a run: the bundled model is one if it is installed and comparable with ``size``."""
    without = [variant for variant in VARIANTS if variant != "bundled"]
    if DEFAULT_MODEL not in bundled_names():
        return without
    directory = bundled_model(DEFAULT_MODEL)
    config = read_json_object(directory / "config.json")
    blocks = config["num_hidden_layers"] * config["hidden_size"] ** 2
    if read_json_object(directory / "vocabulary.json")["fingerprint"] != TAPETokenizer().fingerprint:
        reason = "another vocabulary"
    elif config["max_position_embeddings"] < POSITIONS:
        reason = f"a position table of {config['max_position_embeddings']:,} instead of {POSITIONS:,} tokens"
    elif blocks > _LARGEST_BUNDLED * size.layers * size.hidden**2:
        reason = f"more than {_LARGEST_BUNDLED} times the weights of this --size"
    else:
        return list(VARIANTS)
    print_notice(f"note: no start from the bundled model {DEFAULT_MODEL}, which has {reason}")
    return without


def check_datasets(
    data: Path, out: Path, tasks: Sequence[str], option: str = "--tasks", needs_corpus: bool = True
) -> dict[str, Dataset]:
    """The data sets in ``data`` by folder name, with what training on the tasks needs and, if needed, a corpus.

    Args:
        data: directory of the input files.
        out: directory of the results.
        tasks: names of tasks.
        option: where the user chooses them, for messages.
        needs_corpus: whether a model is pretrained.

    Raises:
        ConfigError: one is missing or lacks a split, or the prepared data would be written to ``data``.
    """
    found = find_datasets(data)
    if needs_corpus and CORPUS not in found:
        raise ConfigError(f"{data}: no corpus found (corpus*.fasta or another format; see proteinlm prepare --help)")
    if data == (out / "data").resolve():
        raise ConfigError(
            f"--out {out}: the prepared data would be written to {data}, which is --data; choose another --out"
        )
    for task in tasks:
        if FOLDERS[task] not in found:
            raise ConfigError(f"{data}: no data of {task} found; select tasks that have data with {option}")
        splits = list(found[FOLDERS[task]].splits)
        if not {"train", "valid"} <= set(splits):
            raise ConfigError(f"{data}: {task} needs the splits train and valid, but has {', '.join(splits)}")
    return found


def evaluated_splits(dataset: Dataset) -> list[str]:
    """The splits to evaluate on: those that training does not use, or ``valid`` if there are no others."""
    return [split for split in dataset.splits if split not in ("train", "valid")] or ["valid"]


def prepare_step(data: Path, out: Path, task: str, found: Mapping[str, Dataset]) -> Step:
    """One step per data set, the corpus or that of a task, so that another choice of tasks repeats nothing."""
    dataset = found[FOLDERS.get(task, task)]
    command = (*program("prepare"), str(data), str(out / "data"), "--tasks", task)
    files = [path for files in dataset.splits.values() for path in files.all_paths]
    return Step(
        f"prepare_{dataset.folder}",
        command,
        (out / "data" / dataset.folder,),
        inputs=(*files, data / PROVENANCE_FILE),
        title="proteins -> tokenized corpus" if task == "corpus" else f"{task}: proteins -> LMDB folder",
        live=True,
        weight=2,
    )


def _pretraining_command(processes: int, size: Size) -> tuple[str, ...]:
    """The start of a pretraining command, with the options of the model."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    return (
        sys.executable,
        *(torchrun if processes > 1 else ()),
        *launched("pretrain"),
        *("--num-layers", str(size.layers), "--hidden-size", str(size.hidden)),
        *("--num-attention-heads", str(size.heads)),
        *("--seq-length", str(size.tokens), "--max-position-embeddings", str(POSITIONS)),
        *("--init-method-std", str(size.init_std)),
        *("--hidden-dropout", "0.0", "--attention-dropout", "0.0"),
    )


def _layout_runs(out: Path) -> list[Path]:
    """The ``--save`` directories of the runs with tensor-parallel sizes 1 and 2."""
    return [out / "tensor_parallel" / f"tp{size}" for size in (1, 2)]


def _compare_layouts(out: Path, size: Size, machine: Machine) -> list[Step]:
    """A few steps in fp32 with tensor-parallel sizes 1 and 2, and the comparison of their losses."""
    one_gpu = machine.device == "cuda" and machine.ranks == 1  # two ranks need two GPUs, or the CPU
    environment = {"OMP_NUM_THREADS": "1"} | ({"CUDA_VISIBLE_DEVICES": ""} if one_gpu else {})
    runs = _layout_runs(out)
    steps = []
    for processes, run in enumerate(runs, 1):
        command = (
            *_pretraining_command(processes, size),
            *("--tensor-model-parallel-size", str(processes)),
            *("--micro-batch-size", "4", "--global-batch-size", "4"),
            *("--data-path", str(out / "data" / "corpus" / "train_text_document")),
            *("--lr", str(size.learning_rate), "--lr-decay-style", "constant"),
            *("--train-iters", str(_COMPARED_STEPS), "--log-interval", "1", "--eval-iters", "0"),
            *("--save", str(run)),
        )
        title = f"{_COMPARED_STEPS} steps of pretraining with tensor-parallel size {processes}"
        steps.append(
            Step(
                run.name,
                command,
                (run,),
                after=("prepare_corpus",),
                title=title,
                weight=8,
                environment=environment,
                missing=partial(missing_iterations, run, _COMPARED_STEPS),
            )
        )
    compare = (*program("compare-losses"), *map(str, runs))
    after = tuple(run.name for run in runs)
    title = "the same losses in both layouts"
    return [*steps, Step("compare_layouts", compare, (), after=after, title=title, live=True, weight=1)]


def _pretrain(out: Path, size: Size, machine: Machine, has_valid: bool) -> Step:
    corpus = out / "data" / "corpus"
    valid = ("--valid-data-path", str(corpus / "valid_text_document")) if has_valid else ()
    layout = f"{machine.ranks} data-parallel processes" if machine.ranks > 1 else "one process"
    command = (
        *_pretraining_command(machine.ranks, size),
        *("--micro-batch-size", str(size.rows // machine.ranks), "--global-batch-size", str(size.rows)),
        *("--data-path", str(corpus / "train_text_document"), *valid),
        *("--lr", str(size.learning_rate), "--min-lr", str(size.learning_rate / 20)),
        *("--lr-decay-style", "cosine", "--lr-warmup-fraction", "0.1", "--adam-beta2", "0.98"),
        *("--train-iters", str(size.iterations), "--log-interval", str(max(1, size.iterations // 20))),
        *("--eval-interval", str(max(1, size.iterations // 4)), "--full-validation"),
        *("--save", str(out / "checkpoints"), "--save-interval", str(size.iterations)),
        *(("--bf16",) if machine.bf16 else ()),
    )
    return Step(
        "pretrain",
        command,
        (out / "checkpoints",),
        after=("prepare_corpus",),
        title=f"masked-language-model pretraining in {layout}",
        live=True,
        weight=220,
        environment={"OMP_NUM_THREADS": str(max(1, machine.jobs * machine.threads // machine.ranks))},
        missing=partial(missing_iterations, out / "checkpoints", size.iterations),
    )


def convert_step(out: Path) -> Step:
    """The conversion of the checkpoint to a TAPE model."""
    convert = (*program("convert"), "-src", str(out / "checkpoints"), "-out")
    return Step(
        "convert",
        (*convert, str(out / "model")),
        (out / "model",),
        after=("pretrain",),
        title="sharded checkpoint -> TAPE model, with a parity check",
        live=True,
        weight=8,
    )


def _models(out: Path) -> list[Step]:
    """The converted model, and the same configuration with random weights."""
    random = out / "random"
    untrained = (
        *(*program("train"), "transformer", "masked_language_modeling"),
        *("--model_config_file", str(out / "model" / "config.json"), "--force_save", str(random)),
    )
    random_step = Step(
        "random", untrained, (random,), after=("convert",), title="the same model, random weights", weight=6
    )
    return [convert_step(out), random_step]


def _model(variant: str) -> str:
    return "onehot" if variant == "onehot" else "transformer"


def _run_directory(out: Path, task: str, variant: str) -> Path:
    return out / "results" / f"{task}_{_model(variant)}_{variant}"


def _finetune(out: Path, task: str, variant: str, tests: list[str], size: Size, machine: Machine) -> list[Step]:
    """Finetuning and evaluation of one model variant on one task."""
    setting = FINETUNING[task]
    model = _model(variant)
    run = _run_directory(out, task, variant)
    own = {"pretrained": out / "model", "random": out / "random" / "0"}
    start = DEFAULT_MODEL if variant == "bundled" else own.get(variant)
    epochs = max(1, round((setting.epochs if start else setting.onehot_epochs) * size.epoch_scale))
    rate = setting.learning_rate if start else setting.onehot_learning_rate
    train = (
        *(*program("train"), model, task, "--data_dir", str(out / "data")),
        *(("--from_pretrained", str(start)) if start else ()),
        *("--output_dir", str(out / "results"), "--log_dir", str(out / "logs"), "--time_or_name", variant),
        *("--num_train_epochs", str(epochs)),
        *("--batch_size", str(setting.batch), "--learning_rate", str(rate), "--save_freq", "improvement"),
        *(("--head_learning_rate", str(setting.head_learning_rate)) if start and setting.head_learning_rate else ()),
        *setting.options,
        *(("--bf16",) if machine.bf16 else ()),
    )
    environment = {"OMP_NUM_THREADS": str(machine.threads)}
    name = f"{task}_{variant}"
    finetune = Step(
        f"finetune_{name}",
        train,
        (run,),
        inputs=(bundled_model(DEFAULT_MODEL) / SUMS_NAME,) if variant == "bundled" else (),
        after=(f"prepare_{FOLDERS[task]}", *(("random",) if variant in own else ())),
        title=f"{task} from {VARIANTS[variant]}",
        weight=15 if start else 8,
        environment=environment,
        missing=partial(missing_epochs, run, epochs),
    )
    steps = [finetune]
    for split in tests:
        command = (*program("eval"), model, task, str(run), "--data_dir", str(out / "data"))
        steps.append(
            Step(
                f"evaluate_{name}_{split}",
                (*command, "--split", split),
                (),
                after=(finetune.name,),
                title=f"{task} from {VARIANTS[variant]}: {split}",
                weight=6,
                environment=environment,
            )
        )
    return steps


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=SAMPLE, help="directory of proteins (default: the embedded sample)"
    )
    parser.add_argument("--out", type=Path, default=Path("quickstart"), help="output directory (default ./quickstart)")
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=[*TASKS, *TASKS.values()],
        default=list(TASKS),
        metavar="TASK",
        help=f"some of {', '.join(f'{short} ({name})' for short, name in TASKS.items())} (default: all)",
    )
    parser.add_argument("--size", choices=SIZES, default="tiny", help="model size and training schedule (default tiny)")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and exit")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, or with ``--dry-run`` print, the steps of the command line."""
    options = make_parser().parse_args(arguments)
    tasks = list(dict.fromkeys(TASKS.get(name, name) for name in options.tasks))
    size = SIZES[options.size]
    out = options.out.resolve()
    if not options.dry_run:
        check_output_directory(out, "--out")
    records = out / RECORDS
    machine = Machine.detect(size.rows, records)
    steps = plan(options.data.resolve(), out, tasks, size, machine)
    if options.dry_run:
        print("\n".join(command_line(step) for step in steps))
        return
    machine.save_measurement(records)
    seconds = StepRunner(steps, records, working_directory(out), machine.jobs).run()
    print(f"\n{(out / 'report' / 'table.md').read_text()}")
    total = sum(seconds.values())
    print(f"Ran {len(seconds)} steps ({total:.0f} s of work). Report: {out / 'report' / 'report.html'}")
