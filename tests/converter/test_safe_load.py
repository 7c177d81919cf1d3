"""Untrusted checkpoints are read without executing code in them (bug 35 in docs/compatibility.md)."""

from __future__ import annotations

import argparse
import io
import operator
import os
import pickle
import re
import subprocess
import sys
import types
import zipfile
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converter.safe_load import Placeholder, load_checkpoint_file
from tape.errors import CheckpointError
from tests.support.megatron_writer import training_state


class Runs:
    """An object whose pickle calls ``function`` when it is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zip_file", [True, False])
def test_training_state_of_all_versions_is_read(tmp_path: Path, zip_file: bool) -> None:
    state = {
        "args": argparse.Namespace(params_dtype=torch.half, lr=np.float64(1e-4), path="x"),
        "flag": np.bool_(True),
        **training_state(),
    }
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=zip_file)
    loaded = load_checkpoint_file(tmp_path / "a.pt")
    assert loaded["args"].params_dtype == torch.half
    assert loaded["args"].lr == 1e-4
    assert np.array_equal(loaded["np_rng_state"][1], state["np_rng_state"][1])


def test_files_of_numpy_1_are_read(tmp_path: Path) -> None:
    torch.save({"np_rng_state": np.random.get_state()}, tmp_path / "new.pt", _use_new_zipfile_serialization=False)
    old = (tmp_path / "new.pt").read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "old.pt").write_bytes(old)
    assert load_checkpoint_file(tmp_path / "old.pt")["np_rng_state"][0] == "MT19937"


# A member with the value 1 and the name a, and a combination of flags, as Python up to 3.10 and from 3.11.4 on pickles
# them, and as 3.11.0 to 3.11.3 does. CLASS stands for the class.
PICKLED_MEMBERS = {
    "by value": (b"cCLASS\nK\x01\x85R", "CLASS(1)"),
    "by name": (b"c__builtin__\ngetattr\n(cCLASS\nX\x01\x00\x00\x00atR", "CLASS.a"),
    "combined": (
        b"c_operator\nor_\n(c__builtin__\ngetattr\n(cCLASS\nX\x01\x00\x00\x00atRc__builtin__\ngetattr\n"
        b"(cCLASS\nX\x01\x00\x00\x00btRtR",
        "CLASS.a | CLASS.b",
    ),
}


@pytest.mark.parametrize("form", PICKLED_MEMBERS)
@pytest.mark.parametrize(
    "name",
    [
        "megatron.core.transformer.enums.AttnBackend",
        "megatron.core.transformer.enums.CudaGraphScope",
        "megatron.core.rerun_state_machine.RerunMode",
        "megatron.training.any_later_module.SomeMode",
    ],
)
def test_enums_of_megatron_core_are_replaced_by_placeholders(tmp_path: Path, name: str, form: str) -> None:
    code, text = PICKLED_MEMBERS[form]
    write_pickle(tmp_path / "a.pt", code.replace(b"CLASS", "\n".join(name.rsplit(".", 1)).encode()))
    value = load_checkpoint_file(tmp_path / "a.pt")
    assert type(value) is Placeholder
    assert repr(value) == text.replace("CLASS", name)


def test_enums_as_this_python_pickles_them_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = class_of_module(monkeypatch, "megatron.core.transformer.enums", "AttnBackend", Enum)
    torch.save({"args": argparse.Namespace(num_layers=2, value=kind(1))}, tmp_path / "a.pt")
    loaded = load_checkpoint_file(tmp_path / "a.pt")["args"]
    assert (loaded.num_layers, type(loaded.value)) == (2, Placeholder)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("builtins.getattr", Runs(getattr, torch.ones(1), "data")),
        ("_operator.or_", Runs(operator.or_, 1, 2)),
        ("_operator.or_", Runs(operator.or_, set(), set())),
    ],
)
def test_operations_on_anything_else_than_members_are_refused(tmp_path: Path, name: str, call: Runs) -> None:
    torch.save({"args": call}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match=rf"evil\.pt: refused.*{re.escape(name)}"):
        load_checkpoint_file(tmp_path / "evil.pt")


@pytest.mark.parametrize(
    ("code", "text"),
    [(b"csignal\nSIGTERM\n", "signal.SIGTERM"), (b"csignal\nSignals\nK\x0f\x85R", "signal.Signals(15)")],
    ids=["before 3.11.4", "from 3.11.4 on"],
)
def test_the_signal_of_a_run_is_replaced(tmp_path: Path, code: bytes, text: str) -> None:
    write_pickle(tmp_path / "a.pt", code)
    assert repr(load_checkpoint_file(tmp_path / "a.pt")) == text


@pytest.mark.parametrize("name", ["signal", "alarm", "SIGTERM.__class__", "pthread_kill"])
def test_other_names_of_the_signal_module_are_refused(tmp_path: Path, name: str) -> None:
    write_pickle(tmp_path / "a.pt", b"csignal\n%s\n" % name.encode())
    with pytest.raises(CheckpointError, match=re.escape(f"refers to signal.{name}")):
        load_checkpoint_file(tmp_path / "a.pt")


def test_buffers_of_transformer_engine_are_replaced(tmp_path: Path) -> None:
    torch.save({"extra": io.BytesIO(b"state")}, tmp_path / "a.pt")
    assert type(load_checkpoint_file(tmp_path / "a.pt")["extra"]) is Placeholder


@pytest.mark.parametrize("zip_file", [True, False])
def test_classes_of_megatron_are_replaced_by_placeholders(
    tmp_path: Path, zip_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 0 pickles its loss scaler with the optimizer, releases from 2021 on an enum with the arguments."""
    scaler = class_of_module(monkeypatch, "megatron.fp16.loss_scaler", "DynamicLossScaler")
    kind = class_of_module(monkeypatch, "megatron.core.enums", "ModelType", Enum)
    loss_scaler = scaler()
    loss_scaler.cur_scale = 65536.0
    state = {
        "args": argparse.Namespace(model_type=kind(1), num_layers=2),
        "model": {"w": torch.ones(2)},
        "optimizer": {"loss_scaler": loss_scaler, "dynamic_loss_scale": True},
    }
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=zip_file)
    loaded = load_checkpoint_file(tmp_path / "a.pt")
    assert loaded["args"].num_layers == 2
    assert isinstance(loaded["args"].model_type, Placeholder)
    assert type(loaded["optimizer"]["loss_scaler"]) is Placeholder
    assert "cur_scale" not in vars(loaded["optimizer"]["loss_scaler"])
    assert torch.equal(loaded["model"]["w"], torch.ones(2))


def write_pickle(path: Path, code: bytes) -> None:
    """A file of torch.save with a pickle of these instructions."""
    torch.save(0, path)
    content = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(content, "w") as changed:
        for name in archive.namelist():
            changed.writestr(name, b"\x80\x02" + code + b"." if name.endswith("/data.pkl") else archive.read(name))
    path.write_bytes(content.getvalue())


def class_of_module(monkeypatch: pytest.MonkeyPatch, module: str, name: str, base: type = object) -> Any:
    """A class whose pickle names a class that is not installed."""
    made: Any = Enum(name, {"encoder_or_decoder": 1}) if base is Enum else type(name, (base,), {})
    made.__module__, made.__qualname__ = module, name
    parts = module.split(".")
    for number in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:number]), types.ModuleType(".".join(parts[:number])))
    setattr(sys.modules[module], name, made)
    return made


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_the_error_names_the_forbidden_function_for_every_protocol(tmp_path: Path, protocol: int, form: str) -> None:
    for name, function, arguments in (
        ("subprocess.call", subprocess.call, (["touch", str(tmp_path / "it_ran")],)),
        ("builtins.eval", eval, (f"open({str(tmp_path / 'it_ran')!r}, 'w')",)),
    ):
        content = {"w": [1.5, "subprocess", b"x"], "model": Runs(function, *arguments)}
        if form == "plain":
            (tmp_path / "evil.pt").write_bytes(pickle.dumps(content, protocol))
        else:
            torch.save(
                content, tmp_path / "evil.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=form == "zip"
            )
        with pytest.raises(CheckpointError, match=rf"evil\.pt: refused: its pickle refers to {name},"):
            load_checkpoint_file(tmp_path / "evil.pt")
        assert not (tmp_path / "it_ran").exists()


def test_a_composed_name_is_refused_too(tmp_path: Path) -> None:
    # protocol 4; the name of the module is from the memo, or that of the function is not the last string before
    memo = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93\x8c\x04true\x85R."
    computed = b"\x80\x04\x8c\x02os\x8c\x06systemN0\x93\x8c\x04true\x85R."
    for content in (memo, computed):
        (tmp_path / "evil.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"refers to os\.system,"):
            load_checkpoint_file(tmp_path / "evil.pt")


@pytest.mark.parametrize("zip_file", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_checkpoints_of_other_pickle_protocols_are_read(tmp_path: Path, protocol: int, zip_file: bool) -> None:
    state = {"model": {"w": torch.ones(2)}, "args": argparse.Namespace(lr=np.float64(1e-4)), **training_state()}
    torch.save(state, tmp_path / "a.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=zip_file)
    loaded = load_checkpoint_file(tmp_path / "a.pt")
    assert torch.equal(loaded["model"]["w"], torch.ones(2))
    assert loaded["args"].lr == 1e-4
    assert np.array_equal(loaded["np_rng_state"][1], state["np_rng_state"][1])


@pytest.mark.parametrize("zip_file", [True, False])
@pytest.mark.parametrize(
    ("name", "function", "arguments"),
    [
        ("system", os.system, ("touch {}",)),
        ("eval", eval, ("open({!r}, 'w')",)),
        ("exec", exec, ("open({!r}, 'w')",)),
        ("mkdir", os.mkdir, ("{}",)),
    ],
)
def test_malicious_pickle_is_refused_by_name_and_does_not_run(
    tmp_path: Path, name: str, function: Any, arguments: tuple[str, ...], zip_file: bool
) -> None:
    trace = tmp_path / "it_ran"
    payload = Runs(function, *(argument.format(str(trace)) for argument in arguments))
    torch.save({"model": payload}, tmp_path / "evil.pt", _use_new_zipfile_serialization=zip_file)
    with pytest.raises(CheckpointError, match=rf"evil\.pt: refused.*{name}"):
        load_checkpoint_file(tmp_path / "evil.pt")
    assert not trace.exists()


@pytest.mark.parametrize("zip_file", [True, False])
@pytest.mark.parametrize("kept", [0, 1, 40, 0.5, 0.99])
def test_truncated_file_is_named(tmp_path: Path, kept: float, zip_file: bool) -> None:
    unsharded, cut = tmp_path / "whole.pt", tmp_path / "cut.pt"
    torch.save({"model": torch.zeros(1000)}, unsharded, _use_new_zipfile_serialization=zip_file)
    content = unsharded.read_bytes()
    cut.write_bytes(content[: int(kept if kept >= 1 or kept == 0 else len(content) * kept)])
    with pytest.raises(
        CheckpointError, match=r"cut\.pt: (refused or damaged, or not a PyTorch checkpoint|the file is empty)"
    ):
        load_checkpoint_file(cut)


def test_missing_files_and_files_of_other_formats_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pt: no such file"):
        load_checkpoint_file(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("this is not a checkpoint\n" * 20)
    with pytest.raises(CheckpointError, match=r"text\.pt: refused or damaged, or not a PyTorch"):
        load_checkpoint_file(tmp_path / "text.pt")
