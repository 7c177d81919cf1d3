"""Safetensors files written tensor by tensor are what the safetensors library reads, and the other way round."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from converter.formats.tensor_files import open_weights
from tape.configs import ProteinOneHotConfig
from tape.errors import CheckpointError
from tape.models.lazy_tensors import LazyTensor, write_safetensors
from tape.models.model_directory import load_state_dict, save_model_directory


def some_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "odd": torch.randn(3, generator=generator).half(),
        "wide": torch.randn(2, 3, generator=generator).double(),
        "scalar": torch.tensor(2.5),
        "count": torch.tensor(7),
        "brain": torch.randn(2, 2, generator=generator).bfloat16(),
        "view": torch.arange(12.0).view(3, 4).T,
        "empty": torch.zeros(0, 4),
        "flags": torch.tensor([True, False]),
    }


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    tensors = some_tensors()
    with (tmp_path / "a.safetensors").open("wb") as stream:
        write_safetensors(stream, {name: LazyTensor.of(value) for name, value in tensors.items()})
    read = load_file(tmp_path / "a.safetensors")
    assert read.keys() == tensors.keys()
    for name, value in tensors.items():
        assert read[name].dtype == value.dtype
        assert torch.equal(read[name], value), name


def test_tensors_are_loaded_one_after_the_other() -> None:
    loads: list[str] = []

    def lazy(name: str) -> LazyTensor:
        def load() -> torch.Tensor:
            loads.append(name)
            return torch.ones(2)

        return LazyTensor((2,), torch.float32, load)

    class Watched(io.BytesIO):
        def write(self, data: object) -> int:
            loads.append("write")
            return super().write(data)

    write_safetensors(Watched(), {"a": lazy("a"), "b": lazy("b")})
    assert loads == ["write", "a", "write", "b", "write"]


def test_a_tensor_that_is_not_as_declared_is_named() -> None:
    with pytest.raises(CheckpointError, match="a: declared as"):
        write_safetensors(io.BytesIO(), {"a": LazyTensor((3,), torch.float32, lambda: torch.zeros(2))})
    with pytest.raises(CheckpointError, match=r"c: torch.complex64 can't be written"):
        write_safetensors(io.BytesIO(), {"c": LazyTensor.of(torch.zeros(1, dtype=torch.complex64))})


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_model_directory_takes_tied_views_and_lazy_tensors(tmp_path: Path, weights: str) -> None:
    base = torch.arange(6.0)
    state = {"a": base, "b": base, "c": base[2:], "d": LazyTensor((2,), torch.float32, lambda: torch.ones(2))}
    save_model_directory(tmp_path, state, ProteinOneHotConfig(), weights=weights)
    read = load_state_dict(tmp_path)
    assert torch.equal(read["a"], read["b"])
    assert torch.equal(read["c"], base[2:])
    assert torch.equal(read["d"], torch.ones(2))
    if weights.endswith(".bin"):
        assert read["c"].untyped_storage().nbytes() == read["c"].nbytes


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    entry = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = f'{{"bias":{entry},"bias":{entry}}}'.encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    for read in (load_state_dict, open_weights):
        with pytest.raises(CheckpointError, match=r"model\.safetensors: the key 'bias' is repeated"):
            read(file)
