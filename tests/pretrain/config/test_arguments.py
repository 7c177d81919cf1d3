"""The command line: Megatron's flags, the shipped scripts' lists, and mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.config.arguments import IGNORED_FLAGS, parse_arguments
from tape.errors import ConfigError

# The flags of the three launch scripts of the original ProteinLM.
COMMON = (
    "--attention-dropout 0.1 --hidden-dropout 0.1 --layernorm-epsilon 1e-12 --micro-batch-size 4 --seq-length 2176 "
    "--max-position-embeddings 2176 --save s --load s --data-path PREFIX --vocab-file iupac_vocab.txt --data-impl mmap "
    "--split 32593668,1715454,44311 --lr 1e-4 --lr-decay-style linear --min-lr 1e-5 --lr-decay-iters 990000 "
    "--weight-decay 1e-2 --clip-grad 1.0 --lr-warmup-fraction .01 --eval-iters 10 --fp16"
)
SINGLE = (
    "--num-layers 12 --hidden-size 768 --num-attention-heads 12 --global-batch-size 8 --train-iters 2000000 "
    "--tokenizer-type BertWordPieceCase --log-interval 100 --save-interval 10000 --eval-interval 1000"
)
DISTRIBUTED = (
    "--num-layers 12 --hidden-size 768 --num-attention-heads 12 --global-batch-size 32 --train-iters 1000000 "
    "--distributed-backend nccl --checkpoint-activations --tensorboard-dir t --log-interval 100 --save-interval 10000 "
    "--eval-interval 1000"
)
LARGE = (
    "--num-layers 16 --hidden-size 1024 --num-attention-heads 16 --global-batch-size 128 --train-iters 1000000 "
    "--num-workers 96 --log-interval 1 --save-interval 1000 --eval-interval 100 --checkpoint-activations "
    "--tensorboard-dir t"
)
MINIMAL = [
    *("--num-layers", "2", "--hidden-size", "32", "--num-attention-heads", "4", "--micro-batch-size", "2"),
    *("--seq-length", "64", "--max-position-embeddings", "64", "--train-iters", "10", "--data-path", "x"),
]


@pytest.mark.parametrize(("script", "world"), [(SINGLE, 1), (DISTRIBUTED, 8), (LARGE, 32)])
def test_flags_of_the_original_scripts_are_parsed(script: str, world: int) -> None:
    arguments = parse_arguments(f"{COMMON} {script}".split(), world)
    assert arguments.notices == ()
    assert arguments.batch.micro_batches(world) in (1, 2)
    assert arguments.model.layer_norm_eps == 1e-12
    assert arguments.model.hidden_act == "gelu_tanh"
    assert arguments.model.max_position_embeddings == 2176
    assert arguments.precision.name == "fp16"
    assert arguments.precision.initial_loss_scale == 2**32
    assert arguments.schedule.warmup_iters == pytest.approx(9900)
    assert arguments.schedule.min_lr == 1e-5
    assert arguments.data.split == "32593668,1715454,44311"
    assert arguments.checkpoint.save == arguments.checkpoint.load == "s"


def test_flags_of_megatron_cores_bert_example_are_parsed() -> None:
    """Those of examples/bert in Megatron-LM of 2024 and later, and what its users add for the local layers."""
    present = (
        "--num-layers 24 --hidden-size 1024 --num-attention-heads 16 --seq-length 512 --max-position-embeddings 512 "
        "--attention-backend auto --micro-batch-size 4 --global-batch-size 32 --train-iters 1000000 "
        "--weight-decay 1e-2 --clip-grad 1.0 --fp16 --lr 0.0001 --lr-decay-iters 990000 --lr-decay-style linear "
        "--min-lr 1.0e-5 --lr-warmup-fraction .01 --tensor-model-parallel-size 2 --pipeline-model-parallel-size 4 "
        "--data-path PREFIX "
        "--vocab-file V --split 949,50,1 --log-interval 100 --save-interval 10000 --eval-interval 1000 "
        "--save s --load s --eval-iters 10 --tensorboard-dir t"
    )
    assert parse_arguments(present.split(), 8).notices == ()
    added = "--use-mcore-models --transformer-impl local --spec local --ckpt-format torch"
    notices = parse_arguments(f"{present} {added}".split(), 8).notices
    assert [notice.split(" is ignored: ")[0] for notice in notices] == added.replace(" local", "").split()[:-1]


@pytest.mark.parametrize("backend", ["fused", "unfused", "local"])
def test_attention_kernels_of_megatron_are_taken_as_auto(backend: str) -> None:
    arguments = parse_arguments([*MINIMAL, "--attention-backend", backend])
    assert arguments.parallel.attention_backend == arguments.given["attention_backend"] == "auto"
    (notice,) = arguments.notices
    assert notice.startswith(f"--attention-backend {backend} is taken as auto")


def test_a_resume_without_optimizer_state_is_refused() -> None:
    with pytest.raises(ConfigError, match="--no-load-optim requires --finetune"):
        parse_arguments([*MINIMAL, "--no-load-optim"])


def test_no_more_workers_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert parse_arguments(f"{COMMON} {LARGE}".split(), 32).data.workers == 3
    assert parse_arguments(f"{COMMON} {LARGE}".split(), 32).given["num_workers"] == 96
    assert [parse_arguments([*MINIMAL, "--num-workers", word]).data.workers for word in ("0", "2")] == [0, 2]


def test_released_model_has_its_published_size() -> None:
    config = parse_arguments(f"{COMMON} {LARGE}".split(), 32).model
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (1024, 4096, 16)
    assert (config.vocab_size, config.type_vocab_size) == (30, 1)


def test_defaults_are_megatrons_or_follow_from_other_flags() -> None:
    arguments = parse_arguments(MINIMAL, 4)
    assert arguments.batch.global_batch == 8
    assert arguments.samples.mask_prob == 0.15
    assert arguments.samples.append_sep
    assert arguments.init.seed == arguments.samples.seed == arguments.training.seed == 1234
    assert arguments.optimizer.eps == 1e-8
    assert arguments.precision.name == "fp32"
    assert arguments.schedule.decay_iters == 10
    assert arguments.model.intermediate_size == 128


def test_options_are_stored_in_their_configuration() -> None:
    extra = "--no-bias-gelu-fusion --no-sep --long-documents truncate --bf16 --seed 7 --ffn-hidden-size 96"
    arguments = parse_arguments([*MINIMAL, *extra.split(), "--tensor-model-parallel-size", "2"], 4)
    assert arguments.model.hidden_act == "gelu"
    assert not arguments.samples.append_sep
    assert arguments.samples.packing.special_tokens == 1
    assert arguments.samples.long_documents == "truncate"
    assert arguments.precision.name == "bf16"
    assert (arguments.dims.tensor, arguments.dims.data) == (2, 2)
    assert arguments.given["seed"] == 7


@pytest.mark.parametrize("flag", sorted(IGNORED_FLAGS))
def test_ignored_flags_are_reported_once(flag: str) -> None:
    takes_value, reason = IGNORED_FLAGS[flag]
    arguments = parse_arguments([*MINIMAL, flag, *(["128"] if takes_value else [])])
    assert arguments.notices == (f"{flag} is ignored: {reason}",)
    assert not any("ignored" in name for name in arguments.given)


@pytest.mark.parametrize("flag", ["--local_rank=1", "--local-rank=1"])
def test_the_rank_flag_of_old_launchers_is_accepted(flag: str) -> None:
    parse_arguments([*MINIMAL, flag])


@pytest.mark.parametrize(
    ("arguments", "world", "message"),
    [
        (["--num-layer", "3"], 1, "unrecognized arguments: --num-layer 3; did you mean --num-layers"),
        (["--frobnicate"], 1, "unrecognized arguments: --frobnicate"),
        (["--lr", "x"], 1, "--lr: invalid float"),
        (["--micro-batch-size", "0"], 1, "at least 1"),
        (["--seq-length", "100"], 1, "exceeds --max-position-embeddings 64"),
        (["--fp16", "--bf16"], 1, "--bf16: not allowed with argument --fp16"),
        (["--precision", "fp32", "--bf16"], 1, "--bf16: not allowed with argument --precision"),
        (["--precision", "fp8"], 1, "--precision: invalid choice: 'fp8'"),
        (["--tensor-model-parallel-size", "3"], 4, "does not divide the 4 processes"),
        (["--tensor-model-parallel-size", "8"], 8, "4 attention heads do not divide by"),
        (["--global-batch-size", "6"], 4, "--global-batch-size 6 is not a multiple"),
        (["--num-attention-heads", "5"], 1, "hidden_size 32 is not a multiple"),
        (["--attention-dropout", "1.5"], 1, "--attention-dropout: must be in"),
        (["--adam-beta1", "1"], 1, "--adam-beta1: must be in"),
        (["--fp16", "--initial-loss-scale", "0"], 1, "--initial-loss-scale: must be a number above 0"),
        (["--weight-decay", "-0.1"], 1, "--weight-decay: must be a number of at least 0"),
        (["--clip-grad", "nan"], 1, "--clip-grad: must be a number of at least 0"),
        (["--mask-prob", "0"], 1, "--mask-prob"),
        (["--min-lr", "1"], 1, "--min-lr"),
        (["--lr-warmup-iters", "10"], 1, "warm-up of 10 iterations does not fit"),
        (["--lr-warmup-iters", "1", "--lr-warmup-fraction", "0.1"], 1, "mutually exclusive"),
        (["--train-samples", "100"], 1, "--train-iters or --train-samples"),
        (["--lr-decay-samples", "100"], 1, "--lr-decay-samples cannot be combined with --train-iters"),
        (["--lr-warmup-samples", "100"], 1, "--lr-warmup-samples cannot be combined with --train-iters"),
        (["--world-size", "2"], 1, "require --dry-run"),
        (["--dry-run", "--device-memory-gib", "-1"], 1, "--device-memory-gib must be above 0"),
        (["@nowhere.txt"], 1, "nowhere.txt"),
        (["--pipeline-model-parallel-size", "3"], 3, "layers are too few for --pipeline-model-parallel-size 3"),
        (["--pipeline-model-parallel-size", "2", "--tensor-model-parallel-size", "2"], 2, "x --pipeline.* not divide"),
        (["--checkpoint-activations", "--recompute-activations"], 1, "recomputes entire blocks"),
        (
            ["--checkpoint-activations", "--recompute-granularity", "selective"],
            1,
            "the core attention; give one of them",
        ),
        (["--rampup-batch-size", "1", "2", "10"], 1, "do not reach --global-batch-size"),
        (["--data-path", "0.5", "a", "0.5"], 1, "WEIGHT PREFIX"),
        (["--train-data-path", "t"], 1, "--data-path or --train-data-path"),
        (["--valid-data-path", "v", "--split", "1,1,1"], 1, "--valid-data-path"),
    ],
)
def test_contradicting_flags_are_refused(arguments: list[str], world: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_arguments([*MINIMAL, *arguments], world)


def test_abbreviations_are_not_guessed() -> None:
    with pytest.raises(ConfigError, match="unrecognized arguments: --num-lay"):
        parse_arguments([*MINIMAL, "--num-lay", "3"])


BY_SAMPLES = [word for word in MINIMAL if word not in ("--train-iters", "10")]


def test_a_run_length_in_samples_is_converted_to_iterations() -> None:
    extra = "--global-batch-size 8 --train-samples 100 --lr 1 --lr-warmup-fraction .1 --lr-decay-samples 80"
    arguments = parse_arguments([*BY_SAMPLES, *extra.split()])
    assert arguments.training.train_iters == 12  # an incomplete last batch of 4 samples is dropped, as in Megatron-LM
    assert [arguments.schedule.rate(i) for i in (1, 2, 7, 11, 12)] == pytest.approx([0, 1, 32 / 72, 0, 0])


def test_schedules_in_samples_follow_the_batch_ramp_up() -> None:
    """The learning rates depend on the consumed samples, while the batch grows from 2 to 8."""
    extra = "--global-batch-size 8 --rampup-batch-size 2 2 12 --train-samples 60 --lr 1 --lr-warmup-samples 6"
    arguments = parse_arguments([*BY_SAMPLES, *extra.split()])
    consumed = [arguments.batch.consumed_samples(i) for i in range(arguments.training.train_iters)]
    assert consumed[:4] == [0, 2, 4, 8]
    assert [arguments.schedule.rate(i + 1) for i in range(4)] == pytest.approx([0, 2 / 6, 4 / 6, 52 / 54])
    assert consumed[-1] + 8 <= 60


def test_warmup_stable_decay_is_given_by_megatrons_flags() -> None:
    extra = "--lr 1 --lr-decay-style WSD --lr-wsd-decay-iters 4 --lr-wsd-decay-style linear --lr-warmup-iters 2"
    schedule = parse_arguments([*MINIMAL, *extra.split()]).schedule
    assert [schedule.rate(i) for i in (2, 3, 7, 9, 11)] == [0.5, 1.0, 1.0, 0.5, 0.0]
    extra = "--lr 1 --global-batch-size 2 --train-samples 100 --lr-decay-style WSD --lr-wsd-decay-samples 50"
    schedule = parse_arguments([*BY_SAMPLES, *extra.split()]).schedule
    assert [schedule.rate(i) for i in (26, 51)] == [1.0, 0.0]
    assert schedule.rate(38) == pytest.approx(2 * 0.5 ** (24 / 50) - 1)  # exponential, Megatron-LM's default


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("--lr-decay-style WSD", "need each other"),
        ("--lr-wsd-decay-iters 5", "need each other"),
        ("--lr-wsd-decay-style linear", "--lr-wsd-decay-style linear needs --lr-wsd-decay-iters"),
        ("--lr-decay-style WSD --lr-wsd-decay-samples 5", "--lr-wsd-decay-samples cannot be combined with"),
        ("--lr-decay-style WSD --lr-wsd-decay-iters 8 --lr-warmup-iters 3", "does not fit between the warm-up and"),
    ],
)
def test_contradicting_flags_of_warmup_stable_decay_are_refused(extra: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_arguments([*MINIMAL, *extra.split()])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("", "--train-iters or --train-samples"),
        ("--train-samples 100 --lr-decay-iters 5", "--lr-decay-iters cannot be combined with --train-samples"),
        ("--train-samples 100 --lr-warmup-iters 5", "--lr-warmup-iters cannot be combined with --train-samples"),
        ("--train-samples 100 --lr-warmup-samples 5 --lr-warmup-fraction 0.1", "mutually exclusive"),
        ("--train-samples 100 --lr-warmup-samples 100", "100 samples does not fit into --lr-decay-samples 100"),
        ("--train-samples 7 --global-batch-size 8", "less than one global batch of 8"),
    ],
)
def test_contradicting_flags_in_samples_are_refused(extra: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_arguments([*BY_SAMPLES, *extra.split()])


def test_flags_are_read_from_a_file_and_overridden_by_later_ones(tmp_path: Path) -> None:
    (tmp_path / "flags.txt").write_text("# sizes\n--num-layers 3  # three\n\n--hidden-size 64 --ffn-hidden-size 96\n")
    arguments = parse_arguments([*MINIMAL, f"@{tmp_path}/flags.txt", "--hidden-size", "128"])
    assert arguments.model.num_hidden_layers == 3
    assert arguments.model.intermediate_size == 96
    assert arguments.model.hidden_size == 128  # the last occurrence is used


def test_a_dry_run_uses_the_given_world_size() -> None:
    arguments = parse_arguments([*MINIMAL, "--dry-run", "--world-size", "16", "--tensor-model-parallel-size", "4"])
    assert (arguments.dims.world_size, arguments.dims.data) == (16, 4)
    assert arguments.dry_run is not None
    assert not {"dry_run", "world_size", "device_memory_gib"} & arguments.given.keys()
    assert parse_arguments([*MINIMAL, "--dry-run"], 2).dims.world_size == 2


def test_a_loss_scale_without_fp16_is_ignored_with_a_notice(flags: Callable[..., list[str]]) -> None:
    for extra, scale, notices in (((), None, 1), (("--bf16",), None, 1), (("--fp16",), 128.0, 0)):
        arguments = parse_arguments(flags("--loss-scale", 128, *extra))
        assert arguments.precision.loss_scale == scale
        assert sum("--loss-scale is ignored" in notice for notice in arguments.notices) == notices


def test_a_file_of_flags_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "flags.txt").write_bytes(b"--lr 1e-3 \xb2")
    with pytest.raises(ConfigError, match=r"flags\.txt: not a text file with flags \(invalid start byte at byte 10\)"):
        parse_arguments([*MINIMAL, f"@{tmp_path}/flags.txt"])


def test_errors_in_a_file_of_flags_name_it(tmp_path: Path) -> None:
    for text in ("--no-such-flag", "--lr many", "--train-samples 8", "--split 0,0,0 --no-such"):
        (tmp_path / "flags.txt").write_text(text)
        with pytest.raises(ConfigError, match=r"flags were also read from .*flags\.txt"):
            parse_arguments([*MINIMAL, f"@{tmp_path}/flags.txt"])


def test_intervals_of_checkpoints_without_save_are_reported() -> None:
    notices = parse_arguments([*MINIMAL, "--save-interval", "5", "--keep-last", "2"]).notices
    assert notices == (
        "WARNING: --save-interval has no effect without --save",
        "WARNING: --keep-last has no effect without --save",
    )
    assert parse_arguments([*MINIMAL, "--save-interval", "5", "--save", "s"]).notices == ()
