"""How many processes share what: the layout of a run, which checks itself."""

from __future__ import annotations

from dataclasses import dataclass

from tape.configs import ProteinBertConfig
from tape.errors import ConfigError


@dataclass(frozen=True)
class ParallelDims:
    """``world_size`` processes = ``data`` groups x ``tensor`` ranks that share one copy of the model.

    Tensor ranks are neighbours (rank = data index * tensor + tensor index), so that they sit on one machine.

    Raises:
        ConfigError: the numbers don't fit.
    """

    world_size: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        if self.world_size < 1 or self.tensor < 1:
            raise ConfigError(f"a layout needs positive numbers, not world {self.world_size}, tensor {self.tensor}")
        if self.world_size % self.tensor:
            raise ConfigError(
                f"--tensor-model-parallel-size {self.tensor} does not divide the {self.world_size} processes; "
                f"start a multiple of {self.tensor}, for example torchrun --nproc-per-node {self.tensor}"
            )

    @property
    def data(self) -> int:
        """Copies of the model, each with rows of its own."""
        return self.world_size // self.tensor

    def check_model(self, config: ProteinBertConfig) -> None:
        """Make sure that heads and FFN split evenly.

        Raises:
            ConfigError: they don't.
        """
        for name, value in (
            ("attention heads", config.num_attention_heads),
            ("FFN columns", config.intermediate_size),
        ):
            if value % self.tensor:
                raise ConfigError(f"{value} {name} do not split over --tensor-model-parallel-size {self.tensor}")

    def __str__(self) -> str:
        return f"{self.world_size} processes = data {self.data} x tensor {self.tensor}"
