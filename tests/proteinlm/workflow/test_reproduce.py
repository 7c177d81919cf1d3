"""The steps of scripts/reproduce.sh: their commands, and an interrupted run from proteins to the model card."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from proteinlm.workflow import reproduce, scale_checks
from proteinlm.workflow.quickstart import ROOT, SAMPLE, TASKS
from proteinlm.workflow.scale_settings import Measure, Scale, read_scale, scale_file
from proteinlm.workflow.step_runner import Step, StepRunner, command_line
from tape.cli.train import finetune_config
from tape.configs import ProteinBertConfig
from tape.errors import ConfigError
from tape.hub.bundled import bundled_model
from tape.main import run_train
from tape.models.modeling_bert import ProteinBertModel

NAMES = list(TASKS.values())


@pytest.fixture
def toy() -> Scale:
    return read_scale(scale_file("toy"), NAMES)


def commands(scale: Scale, out: Path) -> dict[str, str]:
    return {step.name: command_line(step) for step in reproduce.plan(scale, SAMPLE, out, jobs=1).steps()}


def fingerprints(scale: Scale, out: Path) -> dict[str, str]:
    return StepRunner(reproduce.plan(scale, SAMPLE, out, jobs=1).steps(), out / "steps", ROOT)._fingerprints


def test_each_task_variant_and_seed_has_its_run(tmp_path: Path, toy: Scale) -> None:
    steps = reproduce.plan(replace(toy, seeds=(1, 2)), SAMPLE, tmp_path, jobs=1).steps()
    by_stage: dict[str, list[Step]] = {}
    for step in steps:
        by_stage.setdefault(step.stage, []).append(step)
    numbers = {stage: len(of_stage) for stage, of_stage in by_stage.items()}
    assert numbers == {
        "prepare": 3,
        "pretrain": 1,
        "convert": 1,
        "finetune": 2 * 4 * 2,
        "evaluate": 2 * 4 * 2,
        "report": 3,
        "card": 1,
    }
    assert all(step.missing() for step in (*by_stage["pretrain"], *by_stage["finetune"]))  # nothing has run


def test_the_variants_differ_in_their_initial_weights_only(tmp_path: Path, toy: Scale) -> None:
    found = commands(toy, tmp_path)
    random, frozen, pretrained = (
        found[f"finetune_stability_{variant}_42"].replace(f"_{variant}/", "_X/")
        for variant in ("random", "frozen", "pretrained")
    )
    assert frozen == pretrained.replace("/model --seed", "/model --freeze --seed")
    assert random == pretrained.replace("--from_pretrained", "--model_config_file").replace(
        "/model --seed", "/model/config.json --seed"
    )
    assert "--exp_name stability_transformer_frozen/seed_42 " in found["finetune_stability_frozen_42"]
    assert found["evaluate_stability_onehot_42_test"].endswith(
        "tape_eval.py onehot stability"
        f" {tmp_path}/results/stability_onehot_onehot/seed_42 --data_dir {tmp_path}/data"
        f" --output_dir {tmp_path}/results/stability_onehot_onehot/seed_42 --split test --bootstrap 100"
    )


@pytest.mark.parametrize(
    ("kind", "words"),
    [("random", ""), ("neighbours", ""), ("half-neighbours", "--config initial_attention=neighbours ")],
)
def test_all_heads_of_random_weights_attend_to_neighbors_if_half_of_the_models_did(
    tmp_path: Path, kind: str, words: str
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(f'extends = "toy"\n[pretrain]\ninitial-attention = "{kind}"\n')
    pretraining = commands(read_scale(mine, NAMES), tmp_path / "out")
    assert (
        f" --model_config_file {tmp_path}/out/model/config.json {words}--seed 42"
        in pretraining["finetune_stability_random_42"]
    )
    assert "initial_attention" not in pretraining["finetune_stability_pretrained_42"]

    config = ProteinBertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, initial_attention=kind)
    ProteinBertModel(config).save_pretrained(tmp_path / "model")
    given = commands(with_model(tmp_path, str(tmp_path / "model")), tmp_path / "out")
    assert (
        f" --model_config_file {tmp_path}/model/config.json {words}--seed 42" in given["finetune_stability_random_42"]
    )
    assert "initial_attention" not in given["finetune_stability_pretrained_42"]


def test_the_scale_can_choose_the_initial_attention_of_random_weights(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        'extends = "toy"\n[run]\nmodel = "proteinlm-mini"\n'
        '[finetune.stability.random]\nconfig = ["initial_attention=half-neighbours"]\n'
    )
    steps = {
        step.name: step for step in reproduce.plan(read_scale(mine, NAMES), SAMPLE, tmp_path / "out", jobs=1).steps()
    }
    command = [str(word) for word in steps["finetune_stability_random_42"].command]
    assert "initial_attention=neighbours" in command
    (tmp_path / "out" / "data").mkdir(parents=True)
    config = finetune_config(command[command.index("transformer") :], raises_errors=True)
    assert config.model.overrides["initial_attention"] == "half-neighbours"


def test_random_weights_have_the_initial_attention_of_the_model(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    for value, override in (("false", ""), ('"neighbours"', ""), ('"half-neighbours"', "initial_attention=neighbours")):
        mine.write_text(f'extends = "cpu-8h"\n[pretrain]\ninitial-attention = {value}\n')
        steps = reproduce.plan(read_scale(mine, NAMES), SAMPLE, tmp_path / "out", jobs=1).steps()
        (command,) = (command_line(step) for step in steps if step.name == "finetune_stability_random_42")
        assert re.findall(r"initial_attention=\S+", command) == ([override] if override else [])


def test_evaluations_follow_the_search_for_relatives(tmp_path: Path, toy: Scale) -> None:
    steps = {
        step.name: step
        for step in reproduce.plan(
            replace(toy, leakage=("--method", "exact"), leakage_tasks=("stability",)), SAMPLE, tmp_path, jobs=1
        ).steps()
    }
    search = steps["leakage_stability_test"]
    assert search.makes == (tmp_path / "data" / "stability" / "leakage_test.tsv",)
    assert f"--corpus {SAMPLE}/corpus/chains_train.fasta.xz --corpus" in command_line(search)
    assert command_line(search).endswith("--method exact")
    assert search.name in steps["evaluate_stability_random_42_test"].after
    assert SAMPLE / "corpus" / "chains_train.fasta.xz" in search.inputs
    assert [name for name in steps if name.startswith("leakage_")] == [search.name]
    assert not any("leakage" in name for name in steps["evaluate_secondary_structure_random_42_test"].after)


def test_evaluations_follow_the_groups_of_their_split(tmp_path: Path, toy: Scale) -> None:
    scale = replace(toy, groups={"stability": "clusters"})
    steps = {step.name: step for step in reproduce.plan(scale, SAMPLE, tmp_path, jobs=1).steps()}
    groups = steps["groups_stability_test"]
    assert groups.makes == (tmp_path / "data" / "stability" / "groups_test.tsv",)
    assert (groups.stage, groups.after) == ("prepare", ("prepare_stability",))
    assert command_line(groups).endswith(f"--task stability --split test --data_dir {tmp_path}/data --method clusters")
    assert groups.name in steps["evaluate_stability_random_42_test"].after
    assert [name for name in steps if name.startswith("groups_")] == [groups.name]
    assert not any("groups" in name for name in steps["evaluate_secondary_structure_random_42_test"].after)


def test_a_measured_number_of_iterations_is_read_from_its_file(tmp_path: Path, toy: Scale) -> None:
    words = toy.pretrain
    place = words.index("--train-iters")
    measured = replace(toy, pretrain=words[:place] + words[place + 2 :], measure=Measure(13, 60))
    found = commands(measured, tmp_path)
    assert f" --minutes 13 --steps 60 --out {tmp_path}/train_iters.txt -- python pretrain" in found["measure"]
    assert found["pretrain"].endswith(f"--save {tmp_path}/checkpoints @{tmp_path}/train_iters.txt")


def test_a_changed_setting_affects_only_what_depends_on_it(tmp_path: Path, toy: Scale) -> None:
    before = fingerprints(toy, tmp_path)

    def changed_by(scale: Scale) -> set[str]:
        return {name for name, value in fingerprints(scale, tmp_path).items() if value != before[name]}

    key = ("stability", "onehot")
    one_run = replace(toy, finetune={**toy.finetune, key: (*toy.finetune[key], "--patience", "3")})
    run = {"finetune_stability_onehot_42", "evaluate_stability_onehot_42_test"}
    assert changed_by(one_run) == run | {"report", "card"}
    pretraining = changed_by(replace(toy, pretrain=(*toy.pretrain, "--bf16")))
    assert {"pretrain", "convert", "finetune_stability_random_42"} <= pretraining
    assert not pretraining & {"prepare_corpus", "prepare_stability", *run}


def test_launchers_precede_the_command_of_pretraining(
    tmp_path: Path, toy: Scale, monkeypatch: pytest.MonkeyPatch
) -> None:
    srun = commands(replace(toy, launcher=("srun", "--ntasks-per-node=8")), tmp_path)["pretrain"]
    assert srun.startswith("srun --ntasks-per-node=8 python pretrain/pretrain_tape.py --num-layers")
    monkeypatch.setenv("NODES", "3")
    torchrun = commands(replace(toy, launcher=("torchrun", "--nnodes", "$NODES")), tmp_path)["pretrain"]
    assert torchrun.startswith("python -m torch.distributed.run --nnodes 3 pretrain/pretrain_tape.py --num-layers")
    monkeypatch.delenv("NODES")
    with pytest.raises(ConfigError, match=r"run\.launcher: \$NODES is not set"):
        commands(replace(toy, launcher=("torchrun", "--nnodes", "$NODES")), tmp_path)


def test_the_number_of_threads_and_of_runs_at_the_same_time_repeats_nothing(tmp_path: Path, toy: Scale) -> None:
    steps = {jobs: reproduce.plan(toy, SAMPLE, tmp_path, jobs).steps() for jobs in (1, 2)}
    one, two = (StepRunner(found, tmp_path / "steps", ROOT)._fingerprints for found in steps.values())
    assert one == two


def test_another_launcher_repeats_nothing(tmp_path: Path, toy: Scale) -> None:
    one, two = (
        fingerprints(replace(toy, launcher=launcher), tmp_path)
        for launcher in ((), ("torchrun", "--nproc_per_node", "2"))
    )
    assert one == two


def test_the_card_names_the_data_if_they_are_not_those_of_the_scale(tmp_path: Path, toy: Scale) -> None:
    assert "--command 'bash scripts/reproduce.sh toy' " in commands(toy, tmp_path)["card"]
    other = replace(toy, data=tmp_path / "other")
    assert f"--command 'bash scripts/reproduce.sh toy --data {SAMPLE}' " in commands(other, tmp_path)["card"]


def test_a_file_with_the_name_of_a_committed_scale_needs_its_own_output(tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_text('extends = "toy"\n')
    arguments = [str(tmp_path / "toy.toml"), "--dry-run"]
    with pytest.raises(ConfigError, match=r"toy\.toml has the name of a scale of this project; .*--out"):
        reproduce.main(arguments)
    reproduce.main([*arguments, "--out", str(tmp_path / "out")])


def test_the_search_for_relatives_needs_its_program_before_anything_runs(
    tmp_path: Path, toy: Scale, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    scale_checks.check_leakage(toy)
    with pytest.raises(ConfigError, match=r"toy\.toml: leakage: MMseqs2 is not installed: apt install .*tasks = \[\]"):
        scale_checks.check_leakage(replace(toy, leakage_tasks=("stability",)))
    scale_checks.check_leakage(replace(toy, leakage=("--method", "exact"), leakage_tasks=("stability",)))


def test_a_split_that_the_data_lack_is_refused(tmp_path: Path, toy: Scale) -> None:
    with pytest.raises(ConfigError, match=r"toy\.toml: run\.splits\.stability: .*sample has no casp12, only train"):
        commands(replace(toy, splits={"stability": ("casp12",)}), tmp_path)


def test_a_dry_run_prints_the_commands_of_the_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reproduce.main(["toy", "--out", str(tmp_path / "out"), "--dry-run", "convert"])
    out = tmp_path / "out"
    command = f"python converter/megatron-converter.py -src {out}/checkpoints -out {out}/model\n"
    assert capsys.readouterr().out == command
    assert not out.exists()


_SHORT = """
[run]
tasks = ["stability"]
variants = ["random", "pretrained"]
[pretrain]
num-layers = 1
hidden-size = 16
num-attention-heads = 2
seq-length = 128
max-position-embeddings = 256
micro-batch-size = 2
train-iters = 120
save-interval = 20
eval-iters = 1
[finetune]
num_train_epochs = 6
batch_size = 8
[evaluate]
bootstrap = 20
"""


def _kill_when(command: list[str], log: Path, is_time: str) -> None:
    """Start a command, and kill it with SIGKILL as soon as a pattern of files exists."""
    with log.open("wb") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as process:
        limit = time.monotonic() + 120
        while not list(log.parent.glob(is_time)):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < limit, log.read_text()
            time.sleep(0.02)
        process.kill()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="uses the parent-death signal of Linux")
def test_a_run_that_was_killed_twice_continues_to_the_model_card(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "short.toml"
    settings.write_text(_SHORT)
    arguments = [str(settings), "--data", str(SAMPLE), "--out", str(tmp_path / "out")]
    command = [sys.executable, str(ROOT / "scripts" / "reproduce.py"), *arguments]
    _kill_when(command, tmp_path / "1.log", "out/checkpoints/iter_*")
    _kill_when(command, tmp_path / "2.log", "out/results/stability_transformer_random/seed_42/latest.json")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--load" in (tmp_path / "2.log").read_text()
    assert "seed_42 --resume_from_checkpoint" in done.stdout
    assert (tmp_path / "out" / "comparisons" / "stability.md").exists()
    card = (tmp_path / "out" / "model_card.md").read_text()
    assert "| iterations | 120 |" in card
    assert re.search(r"\| stability \| simulated stability \| test \(200\) \| Spearman's rho \| \S+ \[", card)
    settings.write_text(_SHORT.replace("bootstrap = 20", "bootstrap = 30"))
    reproduce.main([*arguments, "report"])
    repeated = capfd.readouterr().out
    assert repeated.count("tape_eval.py") == 2
    assert "tape_train.py" not in repeated


def with_model(tmp_path: Path, model: str, base: str = "toy") -> Scale:
    file = tmp_path / "mine.toml"
    file.write_text(f'extends = "{base}"\n[run]\nmodel = "{model}"\ntasks = ["stability"]\n')
    return read_scale(file, NAMES)


def test_a_model_of_the_users_is_finetuned_instead_of_a_pretrained_one(tmp_path: Path) -> None:
    steps = reproduce.plan(with_model(tmp_path, "proteinlm-mini", "cpu"), SAMPLE, tmp_path / "out", jobs=1).steps()
    assert {step.stage for step in steps} == {"prepare", "leakage", "finetune", "evaluate", "report"}
    assert [step.name for step in steps if step.stage == "prepare"] == ["prepare_stability", "groups_stability_test"]
    model = bundled_model("proteinlm-mini")
    found = {step.name: step for step in steps}
    for variant, words in (
        ("onehot", ""),
        ("random", f" --model_config_file {model}/config.json --config initial_attention=neighbours"),
        ("frozen", f" --from_pretrained {model} --freeze"),
        ("pretrained", f" --from_pretrained {model}"),
    ):
        step = found[f"finetune_stability_{variant}_42"]
        assert f"--data_dir {tmp_path}/out/data{words} --seed 42" in command_line(step)
        assert step.after == ("prepare_stability",)
        assert step.inputs == ((model,) if words else ())
    assert "--pretraining" not in command_line(found["report"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing/here", r"/nothing/here: no such model directory or weights file"),
        ("proteinlm-mni", r"proteinlm-mni: no such model .*known by name: .*did you mean proteinlm-mini\?"),
        ("~/nowhere", r"/home of mine/nowhere: no such model directory"),
        ("unweighted", r"/unweighted: contains neither model\.safetensors nor"),
        ("unreadable", r"/unreadable/config\.json: not valid JSON"),
        ("unlike", r"/unlike/config\.json: hidden_size must be .*"),
        ("esm", r"/esm is a model of the type huggingface; scales finetune those of the type transformer"),
        ("checkpoints", r"/checkpoints: .*proteinlm convert -src"),
        ("seeds", r"/seeds: holds one run per seed; give one of them: seed_1, seed_2"),
        ("mini/model.safetensors", r"model\.safetensors is a file; give the directory of the model"),
        (
            "out/model",
            r"/out/model is in the output directory .*/out, where results of other settings are moved; give ano",
        ),
    ],
)
def test_what_is_no_model_to_finetune_is_refused_before_anything_runs(
    tmp_path: Path, name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home of mine"))
    mini, folder = bundled_model("proteinlm-mini"), tmp_path / name
    for copy in ("unweighted", "unreadable", "unlike", "esm", "mini", "out/model"):
        shutil.copytree(mini, tmp_path / copy)
    (tmp_path / "unweighted" / "model.safetensors").unlink()
    (tmp_path / "unreadable" / "config.json").write_text("{nonsense")
    (tmp_path / "unlike" / "config.json").write_text('{"num_attention_heads": 8, "hidden_size": "many"}')
    (tmp_path / "esm" / "config.json").write_text('{"model_type": "esm"}')
    (tmp_path / "checkpoints" / "iter_0000010").mkdir(parents=True)
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("10")
    for seed in (1, 2):
        (tmp_path / "seeds" / f"seed_{seed}").mkdir(parents=True)
    given = str(folder) if folder.exists() or name == "nothing/here" else name
    with pytest.raises(ConfigError, match=rf"mine\.toml: run\.model: .*{message}"):
        reproduce.plan(with_model(tmp_path, given), SAMPLE, tmp_path / "out", jobs=1).steps()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model"]


def test_a_stage_without_steps_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('extends = "few-labels"\n[run]\ntasks = ["stability"]\n')
    arguments = [str(file), "--data", str(SAMPLE), "--out", str(tmp_path / "out")]
    for stage in ("pretrain", "convert", "leakage", "card"):
        with pytest.raises(ConfigError, match=rf"mine\.toml has nothing to do in stage {stage}; its stages are prep"):
            reproduce.main([*arguments, "finetune", stage])
    assert not (tmp_path / "out").exists()
    reproduce.main([*arguments, "prepare", "--dry-run"])
    assert "prepare_data.py" in capsys.readouterr().out


def test_a_model_needs_no_corpus(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(SAMPLE, data, ignore=shutil.ignore_patterns("corpus*", "provenance.json"))
    steps = reproduce.plan(with_model(tmp_path, "proteinlm-mini", "cpu"), data, tmp_path / "out", jobs=1).steps()
    (search,) = (step for step in steps if step.stage == "leakage")
    assert "--corpus" not in search.command
    with pytest.raises(ConfigError, match="no corpus found"):
        reproduce.plan(read_scale(scale_file("toy"), NAMES), data, tmp_path / "out", jobs=1).steps()


@pytest.mark.slow
def test_the_table_of_a_model_repeats_nothing_but_for_another_model(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model" / "0"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    words = [word for name, size in sizes.items() for word in ("--config", f"{name}={size}")]
    run_train(["transformer", "masked_language_modeling", *words, "--force_save", str(model.parent), "--no_cuda"])
    settings = tmp_path / "mine.toml"
    settings.write_text(
        f'[run]\nmodel = "{model}"\ntasks = ["stability"]\nvariants = ["random", "pretrained"]\n'
        "[finetune]\nnum_train_epochs = 1\nmax_train_samples = 40\n[evaluate]\nbootstrap = 20\n"
    )
    arguments = [str(settings), "--data", str(SAMPLE), "--out", str(tmp_path / "out")]
    reproduce.main(arguments)
    assert (tmp_path / "out" / "report" / "table.md").is_file()
    assert (tmp_path / "out" / "comparisons" / "stability.md").is_file()
    capfd.readouterr()
    reproduce.main(arguments)
    assert "tape_train.py" not in capfd.readouterr().out
    (model / "note.txt").write_text("another model")
    reproduce.main(arguments)
    assert capfd.readouterr().out.count("tape_train.py") == 2


@pytest.mark.parametrize(
    ("base", "settings", "message"),
    [
        ("cpu", '[pretrain]\nlr-decay-style = "cosine"', r"pretrain: .*--lr-wsd-decay-iters"),
        ("cpu", "[pretrain]\nfp16 = true", r"pretrain: .*--bf16"),
        ("cpu", "[pretrain]\nglobal-batch-size = 24", r"pretrain: .*24"),
        (
            "toy",
            '[finetune]\npooling = "mean"',
            r"finetune: .*secondary_structure from one-hot, seed 42: --pooling is for tasks with one",
        ),
        (
            "toy",
            '[finetune]\nmetric_for_best_model = "accuracy"',
            r"finetune: .*stability from one-hot.*choose one of loss",
        ),
        (
            "toy",
            '[finetune]\nmetric_for_best_model = "top1"',
            r"finetune: .*secondary_structure from one-hot.*choose one of loss",
        ),
        (
            "toy",
            '[finetune]\nconfig = ["num_labels=-1"]',
            r"finetune: secondary_structure from one-hot, .*at least 1, not -1",
        ),
        (
            "toy",
            '[finetune.stability.pretrained]\nconfig = ["num_hidden_layers=5"]',
            r"finetune: stability from pretrained, .*encoder\.layer\.2\..* of the pretrained model: .* instead of None",
        ),
        (
            "toy",
            '[finetune.stability.frozen]\nconfig = ["intermediate_size=256"]',
            r"finetune: stability from pretrained, frozen, .* of the pretrained model: \(256, 32\) instead of \(",
        ),
        ("cpu", '[pretrain]\npretrained-checkpoint = "nothing/here"', r"pretrain: .*nothing/here"),
        ("toy", "[finetune]\nlora = 4", r"finetune: .*secondary_structure from one-hot, seed 42: .*--lora"),
        (
            "toy",
            '[run]\nvariants = ["random", "frozen"]\n[finetune]\nlora = 4',
            r"finetune: .*secondary_structure from pretrained, frozen, .*--freeze",
        ),
        ("toy", "[finetune]\nnum_train_epochs = 0", r"finetune: .*num_train_epochs"),
        ("toy", "[run]\nseeds = [-1]", r"finetune: .*seed"),
        (
            "toy",
            '[run]\nvariants = ["random"]\n[finetune]\nconfig = ["num_attention_heads=7"]',
            r"finetune: secondary_structure from random weights, seed 42: .*num_attention_heads 7",
        ),
        ("toy", '[finetune]\nconfig = ["hidden_size=\\"many\\""]', r"finetune: .*hidden_size"),
        (
            "toy",
            '[finetune]\nconfig = ["head_hiden_size=8"]',
            r"finetune: .*has no head_hiden_size; .*head_hidden_size",
        ),
        (
            "cpu",
            '[finetune.stability.random]\nconfig = ["layer_norm_position=post"]',
            r"finetune: stability from random weights, seed 42: .*initial_attention neighbours requires",
        ),
        ("toy", "[evaluate]\nseed = -1", r"evaluate: secondary_structure: --seed must not be negative"),
        ("toy", "[evaluate]\nbatch_size = 0", r"evaluate.*batch_size"),
        (
            "toy",
            '[run]\ntasks = ["stability", "secondary_structure"]\n[evaluate]\nmetrics = ["spearmanr"]',
            r"evaluate: secondary_structure: --metrics spearmanr: .* it has accuracy",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused_before_anything_runs(
    tmp_path: Path, base: str, settings: str, message: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'extends = "{base}"\n{settings}\n')
    with pytest.raises(ConfigError, match=rf"mine\.toml: {message}"):
        reproduce.main([str(file), "--data", str(SAMPLE), "--dry-run"])


def test_a_measured_number_of_iterations_may_have_a_warm_up(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('extends = "cpu"\n[measure]\nminutes = 10\n')
    assert scale_checks.pretrained_config(read_scale(file, NAMES)).hidden_size == 128
