"""The table of downstream results from the repository and the data, at one of several scales.

    proteinlm reproduce SCALE [STAGE ...] [--data DIR] [--out DIR] [--jobs N] [--dry-run]

In a clone, it is bash scripts/reproduce.sh. SCALE is toy, cpu, cpu-8h, few-labels, h100-30min or 200m, whose settings
are in proteinlm/workflow/scales/, or a TOML file of your own. Stages are prepare, pretrain, convert, finetune, leakage,
evaluate, report and card; a stage runs with those that it depends on. Every step is a plain command of this project and
is printed before it runs.

After an interruption (also by kill -9), the same command continues where it stopped; pretraining and finetuning resume
from their own checkpoints. After a change of settings or data, it repeats the steps that depend on them.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from proteinlm.data.data_sources import CORPUS, Dataset
from proteinlm.workflow.programs import ROOT, is_clone, launched, program, working_directory
from proteinlm.workflow.quickstart import (
    FOLDERS,
    SAMPLE,
    TASKS,
    check_datasets,
    convert_step,
    evaluated_splits,
    prepare_step,
)
from proteinlm.workflow.random_weights import random_weights_options
from proteinlm.workflow.run_progress import (
    measured_iterations,
    missing_epochs,
    missing_iterations,
    resume_finetuning,
    resume_pretraining,
)
from proteinlm.workflow.scale_checks import (
    check_evaluation,
    check_finetuning,
    check_leakage,
    model_directory,
    model_type_of,
    pretrained_config,
    run_title,
)
from proteinlm.workflow.scale_settings import STAGES, Scale, committed_scales, read_scale, scale_file
from proteinlm.workflow.step_runner import Step, StepRunner, command_line
from tape.cli.parser import ArgumentParser
from tape.cli.types import positive_int
from tape.configs import CONFIG_NAME, ProteinBertConfig
from tape.errors import ConfigError, quoted
from tape.io.writing import check_output_directory
from tape.runtime.cpu import usable_cores
from tape.runtime.progress import duration

RECORDS = "steps"  # below --out: stamps and logs of the steps
CARD = "model_card.md"
_COMMAND = "bash scripts/reproduce.sh" if is_clone() else "proteinlm reproduce"


@dataclass(frozen=True)
class Plan:
    """Makes the steps of a scale.

    Attributes:
        scale: its settings.
        data: directory of the input files.
        out: directory of the results.
        datasets: the data sets in ``data``.
        threads: CPU threads of each finetuning run.
        config: configuration of the model to finetune.
        model: its directory; None: that of a pretraining run.
    """

    scale: Scale
    data: Path
    out: Path
    datasets: dict[str, Dataset]
    threads: int
    config: ProteinBertConfig
    model: Path | None = None

    def steps(self) -> list[Step]:
        """All steps, each after those it depends on."""
        tasks = self.scale.tasks
        steps = [
            replace(prepare_step(self.data, self.out, name, self.datasets), stage="prepare")
            for name in ((CORPUS, *tasks) if self.model is None else tasks)
        ]
        if self.model is None:
            steps += [*self._pretraining(), replace(convert_step(self.out), stage="convert")]
        steps += [self._groups(task, split) for task in self.scale.groups for split in self._splits(task)]
        steps += [self._leakage(task, split) for task in self.scale.leakage_tasks for split in self._splits(task)]
        for seed in self.scale.seeds:  # outermost, so that an interrupted run has all cells with fewer seeds
            for task in tasks:
                for variant in self.scale.variants:
                    steps += self._finetune(task, variant, seed)
        comparisons = self._comparisons(steps)
        card = [self._card(comparisons)] if self.model is None else []
        return [*steps, *comparisons, self._report(steps), *card]

    # --- pretraining ------------------------------------------------------------------------------------------------

    @property
    def _save(self) -> Path:
        return self.out / "checkpoints"

    def _pretraining(self) -> list[Step]:
        corpus = self.out / "data" / "corpus"
        has_valid = "valid" in self.datasets[CORPUS].splits
        words = (
            *self.scale.pretrain,
            *("--data-path", str(corpus / "train_text_document")),
            *(("--valid-data-path", str(corpus / "valid_text_document")) if has_valid else ()),
        )
        environment = {} if self.scale.launcher else {"OMP_NUM_THREADS": str(usable_cores())}
        measured, steps = self.out / "train_iters.txt", []
        iterations: int | Path = measured
        if self.scale.iterations is not None:
            iterations = self.scale.iterations
        elif self.scale.measure is not None:
            steps.append(self._measure(words, measured, environment))
        rest = ("--save", str(self._save), *((f"@{measured}",) if steps else ()))
        train = Step(
            "pretrain",
            (*_launched(self.scale.launcher), *words, *rest),
            (self._save,),
            after=("prepare_corpus", *(step.name for step in steps)),
            title="masked-language-model pretraining",
            live=True,
            weight=200,
            environment=environment,
            missing=partial(_missing_iterations, self._save, iterations),
            resume=partial(resume_pretraining, self._save),
            stage="pretrain",
            recorded_as=("pretrain", *words, *rest),  # without the launcher: another layout continues the same training
        )
        return [*steps, train]

    def _measure(self, words: Sequence[str], file: Path, environment: dict[str, str]) -> Step:
        assert self.scale.measure is not None
        minutes, steps = self.scale.measure.minutes, self.scale.measure.steps
        options = ("--minutes", f"{minutes:g}", "--steps", str(steps), "--out", str(file))
        return Step(
            "measure",
            (*program("measure-iterations"), *options, "--", *_launched(self.scale.launcher), *words),
            (file,),
            after=("prepare_corpus",),
            title=f"the number of iterations in {minutes:g} minutes",
            live=True,
            weight=10,
            environment=environment,
            stage="pretrain",
            recorded_as=("measure-iterations", *options, *words),
        )

    # --- one task ---------------------------------------------------------------------------------------------------

    def _splits(self, task: str) -> Sequence[str]:
        """The test splits of a task: those in the scale, or all."""
        dataset = self.datasets[FOLDERS[task]]
        chosen = self.scale.splits.get(task, ())
        for split in chosen:
            if split not in dataset.splits:
                known = ", ".join(dataset.splits)
                raise ConfigError(f"{self.scale.file}: run.splits.{task}: {self.data} has no {split}, only {known}")
        return chosen or evaluated_splits(dataset)

    def _groups(self, task: str, split: str) -> Step:
        folder, data = FOLDERS[task], str(self.out / "data")
        method = ("--method", self.scale.groups[task])
        return Step(
            f"groups_{task}_{split}",
            (*program("groups"), "--task", task, "--split", split, "--data_dir", data, *method),
            (self.out / "data" / folder / f"groups_{split}.tsv",),
            after=(f"prepare_{folder}",),
            title=f"{task}: groups of {split}",
            stage="prepare",
        )

    def _leakage(self, task: str, split: str) -> Step:
        corpus = self.datasets[CORPUS].splits["train"].paths if CORPUS in self.datasets else ()
        folder = FOLDERS[task]
        return Step(
            f"leakage_{task}_{split}",
            (
                *(*program("leakage"), "--task", task, "--split", split),
                *("--data_dir", str(self.out / "data")),
                *(word for path in corpus for word in ("--corpus", str(path))),
                *self.scale.leakage,
            ),
            (self.out / "data" / folder / f"leakage_{split}.tsv",),
            after=(f"prepare_{folder}",),
            inputs=tuple(corpus),
            title=f"{task}: relatives of {split} in the training data and the corpus",
            weight=20,
            stage="leakage",
        )

    def _run(self, task: str, variant: str) -> Path:
        """The directory of the runs of all seeds."""
        return self.out / "results" / f"{task}_{model_type_of(variant)}_{variant}"

    def _finetune(self, task: str, variant: str, seed: int) -> list[Step]:
        """Finetuning and evaluation of one model."""
        directory, model = self._run(task, variant), model_type_of(variant)
        run = directory / f"seed_{seed}"
        name, title = f"{task}_{variant}_{seed}", run_title(task, variant, seed)
        data = ("--data_dir", str(self.out / "data"))
        train = (
            *(*program("train"), model, task, *data, *self._start(variant), "--seed", str(seed)),
            *("--output_dir", str(directory.parent), "--exp_name", f"{directory.name}/{run.name}"),
            *("--log_dir", str(self.out / "logs"), *self.scale.finetune[task, variant]),
        )
        environment = {"OMP_NUM_THREADS": str(self.threads)}
        finetune = Step(
            f"finetune_{name}",
            train,
            (run,),
            after=(f"prepare_{FOLDERS[task]}", *(() if self.model or variant == "onehot" else ("convert",))),
            inputs=() if self.model is None or variant == "onehot" else (self.model,),
            title=title,
            weight=20,
            environment=environment,
            missing=partial(missing_epochs, run, *self.scale.epochs[task, variant]),
            resume=partial(resume_finetuning, run),
            stage="finetune",
        )
        evaluations = [
            Step(
                f"evaluate_{name}_{split}",
                (
                    *(*program("eval"), model, task, str(run), *data, "--output_dir", str(run), "--split", split),
                    *self.scale.evaluate,
                ),
                (run / f"eval_{split}.json", run / f"results_{split}.pkl"),
                after=(finetune.name, *self._tables(task, split)),
                title=f"{title}: {split}",
                weight=5,
                environment=environment,
                stage="evaluate",
            )
            for split in self._splits(task)
        ]
        return [finetune, *evaluations]

    def _tables(self, task: str, split: str) -> Iterator[str]:
        """Names of the steps that make tables which an evaluation finds beside the split."""
        if task in self.scale.groups:
            yield f"groups_{task}_{split}"
        if task in self.scale.leakage_tasks:
            yield f"leakage_{task}_{split}"

    def _start(self, variant: str) -> tuple[str, ...]:
        """The options of the initial weights."""
        model = self.model or self.out / "model"
        if variant == "onehot":
            return ()
        if variant == "random":  # other weights for each seed
            return random_weights_options(model / CONFIG_NAME, self.config.initial_attention)
        return ("--from_pretrained", str(model), *(("--freeze",) if variant == "frozen" else ()))

    # --- results ----------------------------------------------------------------------------------------------------

    def _comparisons(self, steps: Sequence[Step]) -> list[Step]:
        """Paired comparisons of pretrained and random weights."""
        if not {"pretrained", "random"} <= set(self.scale.variants):
            return []
        found = []
        for task in self.scale.tasks:
            runs = [str(self._run(task, variant)) for variant in ("pretrained", "random")]
            file = self.out / "comparisons" / f"{task}.md"
            prefixes = tuple(f"evaluate_{task}_{variant}_" for variant in ("pretrained", "random"))
            found.append(
                Step(
                    f"compare_{task}",
                    (*program("compare"), *runs, "--out", str(file)),
                    (file,),
                    after=tuple(step.name for step in steps if step.name.startswith(prefixes)),
                    title=f"{task}: pretrained minus random weights",
                    weight=3,
                    stage="report",
                )
            )
        return found

    def _report(self, steps: Sequence[Step]) -> Step:
        pretraining = ("--pretraining", str(self._save)) if self.model is None else ()
        return Step(
            "report",
            (*program("report"), str(self.out / "results"), *pretraining, "--out", str(self.out / "report")),
            (self.out / "report",),
            after=tuple(step.name for step in steps if step.stage == "evaluate"),
            title="report",
            weight=5,
            stage="report",
            is_partial=True,
        )

    def _card(self, comparisons: Sequence[Step]) -> Step:
        files = [str(path) for step in comparisons for path in step.makes]
        return Step(
            "card",
            (
                *(*program("model-card"), str(self.out / "model")),
                *("--pretraining", str(self._save), "--data_dir", str(self.out / "data")),
                *("--results", str(self.out / "results"), *(("--comparisons", *files) if files else ())),
                *("--command", self._command(), "--out", str(self.out / CARD)),
            ),
            (self.out / CARD,),
            after=("report", *(step.name for step in comparisons)),
            title="model card",
            weight=1,
            stage="card",
        )

    def _command(self) -> str:
        """The command line that makes these results, as far as it determines them."""
        words = [self.scale.argument]
        if self.data != _data(self.scale.data).resolve():
            words += ["--data", str(self.data)]
        return f"{_COMMAND} {shlex.join(words)}"


def _launched(launcher: Sequence[str]) -> tuple[str, ...]:
    """The start of the command of pretraining: the launcher, with the values of variables in it, and the program.

    Raises:
        ConfigError: a variable is not set.
    """
    words = [os.path.expandvars(word) for word in launcher]
    unset = [word for word in words if "$" in word]
    if unset:
        raise ConfigError(f"run.launcher: {unset[0]} is not set in this environment")
    if words and words[0] == "torchrun":
        return (sys.executable, "-m", "torch.distributed.run", *words[1:], *launched("pretrain"))
    return (*words, *program("pretrain"))


def _missing_iterations(save: Path, iterations: int | Path) -> str:
    number = iterations if isinstance(iterations, int) else measured_iterations(iterations)
    return missing_iterations(save, number)


def plan(scale: Scale, data: Path, out: Path, jobs: int) -> Plan:
    """The plan of a scale.

    Args:
        scale: its settings.
        data: directory of the input files.
        out: directory of the results.
        jobs: finetuning runs at the same time, which share the CPU cores.

    Raises:
        ConfigError: ``data`` lacks what the scale needs, options of pretraining contradict each other, or the model
            can't be finetuned.
    """
    model = model_directory(scale, out)
    config = pretrained_config(scale) if model is None else ProteinBertConfig.from_pretrained(model)
    datasets = check_datasets(data, out, scale.tasks, f"run.tasks in {scale.file}", not scale.model)
    return Plan(scale, data, out, datasets, max(1, usable_cores() // jobs), config, model)


def _data(name: Path) -> Path:
    """The directory of ``run.data``: relative to the clone, or, installed, to the working directory; or the sample."""
    return ROOT / name if is_clone() or ROOT / name == SAMPLE else name


def _default_out(scale: Scale) -> Path:
    """The output directory of a scale.

    Raises:
        ConfigError: a file of the user's has the name of a committed scale, whose results it would replace.
    """
    if scale.argument != scale.name and scale.name in committed_scales():
        raise ConfigError(f"{scale.file} has the name of a scale of this project; give it another, or its own --out")
    return Path("reproduce") / scale.name


def _gpus() -> tuple[str, ...]:
    """The GPUs among which runs at the same time are divided; empty if there is only one, or none."""
    import torch

    number = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return () if number < 2 else tuple(named[:number] if len(named) >= number else map(str, range(number)))


def _stage(text: str) -> str:
    if text not in STAGES:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(STAGES)}, not {quoted(text)}")
    return text


def _check_stages(scale: Scale, steps: Sequence[Step], chosen: Sequence[str]) -> None:
    """Check that the scale has steps in the chosen stages.

    Raises:
        ConfigError: it has none in one of them, such as in ``pretrain`` if it finetunes a model that exists.
    """
    present = [stage for stage in STAGES if any(step.stage == stage for step in steps)]
    for stage in chosen:
        if stage not in present:
            raise ConfigError(f"{scale.file} has nothing to do in stage {stage}; its stages are {', '.join(present)}")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scale", metavar="SCALE", help="name of a scale, or a TOML file")
    parser.add_argument("stages", nargs="*", type=_stage, metavar="STAGE", help="what to run (default: all stages)")
    parser.add_argument("--data", type=Path, help="directory of proteins (default: run.data of the scale)")
    parser.add_argument("--out", type=Path, help="output directory (default: reproduce/SCALE)")
    parser.add_argument("--jobs", type=positive_int, help="finetuning runs at the same time (default: run.jobs)")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and exit")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, or with ``--dry-run`` print, the steps of the command line."""
    options = make_parser().parse_intermixed_args(arguments)  # stages may follow options
    began, scale = time.monotonic(), read_scale(scale_file(options.scale), list(TASKS.values()))
    data = options.data or _data(scale.data)
    out = (options.out or _default_out(scale)).resolve()
    jobs = options.jobs or scale.jobs
    planned = plan(scale, data.resolve(), out, jobs)
    steps = planned.steps()
    check_finetuning(scale, data, out, planned.config)
    check_evaluation(scale, data, out)
    _check_stages(scale, steps, options.stages)
    if options.dry_run:
        chosen = [step for step in steps if not options.stages or step.stage in options.stages]
        print("\n".join(command_line(step) for step in chosen))
        return
    check_leakage(scale)
    check_output_directory(out, "--out")
    runner = StepRunner(steps, out / RECORDS, working_directory(out), jobs, scale.time_limits, _gpus())
    seconds = runner.run(options.stages)
    work, wall = sum(seconds.values()), time.monotonic() - began
    print(f"Ran {len(seconds)} steps in {duration(wall)} ({duration(work)} of work). Results: {out}")
