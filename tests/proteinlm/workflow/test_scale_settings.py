"""Settings of scales: the committed files, inheritance of options, and messages about mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from proteinlm.workflow.quickstart import TASKS
from proteinlm.workflow.scale_settings import SCALES, Measure, Scale, read_scale, scale_file
from tape.errors import ConfigError

NAMES = list(TASKS.values())
PRETRAIN = """
[pretrain]
num-layers = 1
hidden-size = 16
num-attention-heads = 2
seq-length = 64
max-position-embeddings = 64
micro-batch-size = 2
"""
COMPLETE = f"{PRETRAIN}train-iters = 3\n"


def read(tmp_path: Path, text: str) -> Scale:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return read_scale(file, NAMES)


@pytest.mark.parametrize("file", sorted(SCALES.glob("*.toml")), ids=lambda file: file.stem)
def test_the_committed_scales_have_only_options_of_the_commands(file: Path) -> None:
    scale = read_scale(file, NAMES)
    assert set(scale.finetune) == {(task, variant) for task in scale.tasks for variant in scale.variants}
    assert sum(map(bool, (scale.iterations, scale.measure, scale.model))) == 1  # one way to a model


def test_relatives_are_searched_for_the_listed_tasks_by_default_for_all(tmp_path: Path) -> None:
    run = '[run]\ntasks = ["stability", "fluorescence"]\n'
    assert read(tmp_path, COMPLETE + run).leakage_tasks == ()
    assert read(tmp_path, f"{COMPLETE}{run}[leakage]\n").leakage_tasks == ("stability", "fluorescence")
    scale = read(tmp_path, f'{COMPLETE}{run}[leakage]\nthreads = 2\ntasks = ["stability"]\n')
    assert (scale.leakage, scale.leakage_tasks) == (("--threads", "2"), ("stability",))
    with pytest.raises(ConfigError, match="leakage.tasks must be out of stability, fluorescence"):
        read(tmp_path, f'{COMPLETE}{run}[leakage]\ntasks = ["remote_homology"]\n')


def test_options_of_a_variant_replace_those_of_the_task_and_the_common_ones(tmp_path: Path) -> None:
    scale = read(
        tmp_path,
        COMPLETE
        + """
[run]
tasks = ["stability", "fluorescence"]
variants = ["onehot", "random"]
[finetune]
bf16 = true
learning_rate = 1e-3
config = ["hidden_dropout_prob=0.1", "head_hidden_size=64"]
[finetune.stability]
num_train_epochs = 7
learning_rate = 2e-3
[finetune.stability.onehot]
learning_rate = 0.1
bf16 = false
config = []
""",
    )
    config = ("--config", "hidden_dropout_prob=0.1", "--config", "head_hidden_size=64")
    assert scale.finetune["fluorescence", "random"] == ("--bf16", "--learning_rate", "0.001", *config)
    assert scale.finetune["stability", "random"][:3] == ("--bf16", "--learning_rate", "0.002")
    assert scale.finetune["stability", "onehot"] == ("--learning_rate", "0.1", "--num_train_epochs", "7")
    assert scale.epochs["stability", "onehot"] == (7, -1, "loss")
    assert scale.epochs["fluorescence", "onehot"] == (10, -1, "loss")
    assert scale.iterations == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[pretrain", "not valid TOML"),
        (
            f"{COMPLETE}[pretrains]\n",
            r"pretrains is not known \(did you mean pretrain\?\); allowed: extends, run, pretrain",
        ),
        (f"{COMPLETE}learning-rate = 1\n", r"pretrain\.learning-rate is not an option of pretrain_tape\.py"),
        (f"{COMPLETE}hidden-dropuot = 0.1\n", r"did you mean hidden-dropout\?"),
        (f"{COMPLETE}lr = true\n", r"pretrain\.lr must be a value of --lr, not True"),
        (f"{COMPLETE}lr = [1, 2]\n", r"pretrain\.lr must be one value of --lr"),
        (f"{COMPLETE}bf16 = 1\n", r"pretrain\.bf16 must be true or false, not 1"),
        (f"{COMPLETE}save-interval = 0\n", r"pretrain\.save-interval '0': "),
        (f"{COMPLETE}lr-decay-style = 'cosin'\n", r"pretrain\.lr-decay-style must be one of .*cosine"),
        (f"{COMPLETE}save = 'x'\n", r"pretrain\.save is set by reproduce\.sh"),
        (PRETRAIN, r"pretrain\.train-iters is needed, unless there is a table \[measure\]"),
        (f"{COMPLETE}[measure]\nminutes = 2\n", r"pretrain\.train-iters is needed, .* and only then"),
        (f'[run]\nmodel = "m"\n{COMPLETE}', r"run\.model leaves nothing to pretrain; leave out it, or \[pretrain\]"),
        ('[run]\nmodel = "m"\n[measure]\nminutes = 2\n', r"run\.model leaves nothing to pretrain"),
        ("[run]\nmodel = true\n", r"run\.model must be the name or the directory of a model, not True"),
        (f"{PRETRAIN}[measure]\nsteps = 2\n", r"measure\.minutes is missing"),
        (f"{COMPLETE.replace('seq-length = 64', '')}", r"pretrain\.seq-length is missing"),
        (f"{COMPLETE}[finetune.folding]\n", r"finetune\.folding is not known; allowed: secondary_structure"),
        (f"{COMPLETE}[finetune]\nstability = 3\n", r"finetune\.stability must be a table, \[finetune\.stability\]"),
        (f"{COMPLETE}[[finetune.stability]]\nlearning_rate = 1\n", r"finetune\.stability must be a table"),
        (f"{COMPLETE}[finetune.stability]\nonehot = 1\n", r"finetune\.stability\.onehot must be a table"),
        (f"{PRETRAIN}train-iters = false\n", r"pretrain\.train-iters is needed"),
        (f"{COMPLETE}seq-length = false\n".replace("seq-length = 64\n", ""), r"pretrain\.seq-length is missing"),
        (f"{COMPLETE}[finetune.stability.tuned]\n", r"finetune\.stability\.tuned is not known; allowed: onehot"),
        (f"{COMPLETE}[finetune]\nfreeze = true\n", r"freeze is set by reproduce\.sh"),
        (f"{COMPLETE}[run]\ntasks = ['folding']\n", r"run\.tasks must be out of secondary_structure, "),
        (f"{COMPLETE}[run]\nseeds = [1, 1]\n", r"run\.seeds must have each value once, not \[1, 1\]"),
        (f"{COMPLETE}[run]\nseeds = 3\n", r"run\.seeds must be a list of int, not 3"),
        (f"{COMPLETE}[run]\njobs = 0\n", r"run\.jobs must be positive, not 0"),
        (f"{COMPLETE}[time-limit]\nfinetune = -5\n", r"time-limit\.finetune must be positive, not -5"),
        (f"{COMPLETE}[time-limit]\nfinetune = true\n", r"time-limit\.finetune must be a number of seconds"),
        (f"{COMPLETE}[finetune]\nbf16 = true\nprecision = 'fp32'\n", r"finetune\.\w+\.onehot: .*not allowed with"),
        (f"{COMPLETE}[evaluate]\nbf16 = true\nprecision = 'fp32'\n", r"evaluate: .*not allowed with"),
        (f"{COMPLETE}[time-limit]\ntrain = 3\n", r"time-limit\.train is not known .*; allowed: prepare, pretrain"),
    ],
)
def test_a_mistake_is_named_with_the_file_and_what_is_allowed(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        read(tmp_path, text)
    assert str(raised.value).startswith(f"{tmp_path / 'mine.toml'}: ")


def test_a_scale_that_extends_another_replaces_single_settings_of_it(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(
        f"""{COMPLETE}
[run]
tasks = ["stability", "fluorescence"]
seeds = [1, 2]
[finetune]
learning_rate = 1e-3
[finetune.stability]
batch_size = 3
config = ["hidden_dropout_prob=0.1"]
[finetune.stability.onehot]
learning_rate = 0.1
"""
    )
    scale = read(
        tmp_path,
        """extends = "base.toml"
[run]
seeds = [3]
[pretrain]
train-iters = 7
[finetune.stability]
num_train_epochs = 2
config = []
""",
    )
    base = read_scale(tmp_path / "base.toml", NAMES)
    assert (scale.name, scale.seeds, base.seeds) == ("mine", (3,), (1, 2))
    assert (scale.iterations, base.iterations) == (7, 3)
    assert scale.finetune["stability", "onehot"] == (
        *("--learning_rate", "0.1", "--batch_size", "3", "--num_train_epochs", "2"),
    )
    assert scale.finetune["fluorescence", "random"] == base.finetune["fluorescence", "random"]


def test_measured_and_given_iterations_replace_each_other_in_a_scale_that_extends_another(tmp_path: Path) -> None:
    (tmp_path / "given.toml").write_text(COMPLETE)
    measured = read(tmp_path, 'extends = "given.toml"\n[measure]\nminutes = 2\n')
    assert (measured.measure, measured.iterations) == (Measure(2), None)
    (tmp_path / "mine.toml").rename(tmp_path / "measured.toml")
    given = read(tmp_path, 'extends = "measured.toml"\n[pretrain]\ntrain-iters = 9\n')
    assert (given.measure, given.iterations) == (None, 9)


def test_a_committed_scale_can_be_extended_by_its_name(tmp_path: Path) -> None:
    mine, cpu = read(tmp_path, 'extends = "cpu"\n[run]\njobs = 1\n'), read_scale(scale_file("cpu"), NAMES)
    assert (mine.jobs, mine.pretrain, mine.finetune) == (1, cpu.pretrain, cpu.finetune)


def test_a_scale_that_extends_another_may_have_fewer_tasks_and_leave_out_settings(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(
        f"""{COMPLETE}lr-decay-style = "WSD"
lr-wsd-decay-iters = 2
[run]
tasks = ["stability", "fluorescence", "remote_homology"]
[finetune]
num_train_epochs = 3
[leakage]
tasks = ["stability", "remote_homology"]
"""
    )
    extends = 'extends = "base.toml"\n'
    assert read(tmp_path, f'{extends}[run]\ntasks = ["stability"]\n').leakage_tasks == ("stability",)
    assert read(tmp_path, f'{extends}[run]\ntasks = ["fluorescence"]\n').leakage_tasks == ()
    assert read(tmp_path, f"{extends}[leakage]\ntasks = []\n").leakage_tasks == ()


def test_tasks_have_groups_by_a_method(tmp_path: Path) -> None:
    run = '[run]\ntasks = ["stability", "fluorescence"]\n'
    assert read(tmp_path, COMPLETE + run).groups == {}
    groups = '[groups]\nstability = "variants"\nfluorescence = "clusters"\n'
    assert read(tmp_path, f"{COMPLETE}{run}{groups}").groups == {"stability": "variants", "fluorescence": "clusters"}
    (tmp_path / "base.toml").write_text(f"{COMPLETE}{run}{groups}")
    extends = 'extends = "base.toml"\n'
    assert read(tmp_path, f'{extends}[run]\ntasks = ["stability"]\n').groups == {"stability": "variants"}
    assert read(tmp_path, f"{extends}[groups]\nstability = false\n").groups == {"fluorescence": "clusters"}
    with pytest.raises(ConfigError, match=r"groups\.stability is 'families'; allowed: clusters, variants, or false"):
        read(tmp_path, f'{COMPLETE}{run}[groups]\nstability = "families"\n')
    with pytest.raises(ConfigError, match=r"groups\.remote_homology is not known; allowed: stability, fluorescence"):
        read(tmp_path, f'{COMPLETE}{run}[groups]\nremote_homology = "clusters"\n')
    with pytest.raises(ConfigError, match=r"evaluate\.groups"):
        read(tmp_path, f'{COMPLETE}{run}[evaluate]\ngroups = "groups.tsv"\n')
    scale = read(
        tmp_path,
        f'{extends}[pretrain]\nlr-decay-style = "cosine"\nlr-wsd-decay-iters = false\n'
        "[finetune]\nnum_train_epochs = false\n",
    )
    assert "--lr-wsd-decay-iters" not in scale.pretrain
    assert scale.finetune["stability", "random"] == ()
    assert scale.epochs["stability", "random"] == (10, -1, "loss")


def test_a_scale_that_extends_another_may_leave_out_its_time_limits(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(f"{COMPLETE}[time-limit]\nfinetune = 5\npretrain = 6\n")
    scale = read(tmp_path, 'extends = "base.toml"\n[time-limit]\nfinetune = false\n')
    assert scale.time_limits == {"pretrain": 6}


def test_numbers_in_quotes_are_numbers(tmp_path: Path) -> None:
    scale = read(tmp_path, f"{COMPLETE}[finetune]\nnum_train_epochs = '3'\n")
    assert scale.epochs["stability", "random"] == (3, -1, "loss")


def test_a_committed_scale_is_named_on_command_lines_and_another_by_its_path(tmp_path: Path) -> None:
    assert read_scale(scale_file("toy"), NAMES).argument == "toy"
    (tmp_path / "toy.toml").write_text('extends = "toy"\n')
    assert read_scale(tmp_path / "toy.toml", NAMES).argument == str(tmp_path / "toy.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends = 3\n", r"mine\.toml: extends must be the name of a scale or of a TOML file, not 3"),
        ("extends = 'gpu'\n", r"mine\.toml: extends 'gpu': gpu: no such file; scales are 200m, cpu"),
        ("extends = 'mine.toml'\n", r"mine\.toml: extends 'mine\.toml', which extends this file"),
        ("extends = 'other.toml'\n", r"other\.toml: extends 'mine\.toml', which extends this file"),
        (
            "extends = 'cpu'\n[finetune.folding]\n",
            r"mine\.toml extends .*cpu\.toml extends .*: finetune\.folding is not",
        ),
        ("[run]\nextends = 'cpu'\n", r"run\.extends belongs before the first table"),
        ("[pretrain]\nextends = 'cpu'\nseq-length = 64\n", r"pretrain\.extends belongs before the first table"),
        ("extend = 'cpu'\n", r"extend is not known \(did you mean extends\?\); allowed: extends, run, pretrain"),
        (
            "extends = 'other'\n",
            r"extends 'other': other: no such file; scales are .*, or a file whose name ends in .toml",
        ),
        ("extends = '../scales/cpu'\n", r"extends '\.\./scales/cpu': \.\./scales/cpu: no such file"),
    ],
)
def test_mistakes_of_a_scale_that_extends_another_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "other.toml").write_text("extends = 'mine.toml'\n")
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_pretraining_and_a_model_replace_each_other(tmp_path: Path) -> None:
    small = "".join(f"{line}\n" for line in COMPLETE.splitlines() if line)
    (tmp_path / "base.toml").write_text('extends = "cpu"\n[run]\nmodel = "proteinlm-mini"\n')
    for text, model in (
        ('extends = "base.toml"\n', "proteinlm-mini"),
        ('extends = "base.toml"\n[run]\nmodel = "other"\n', "other"),
        (f'extends = "base.toml"\n{small}', ""),
        ('extends = "cpu"\n[run]\nmodel = ""\n', ""),
        ('extends = "cpu"\n[run]\nmodel = false\n', ""),
    ):
        scale = read(tmp_path, text)
        assert (scale.model, bool(scale.pretrain)) == (model, not model)
    with pytest.raises(ConfigError, match=r"pretrain\.\S+ is missing"):
        read(tmp_path, 'extends = "base.toml"\n[run]\nmodel = false\n')


def test_an_unknown_scale_is_refused_with_the_known_ones() -> None:
    known = "200m, cpu, cpu-8h, few-labels, h100-30min, toy"
    with pytest.raises(ConfigError, match=rf"no such file; scales are {known}, or a file whose"):
        scale_file("gpu")
