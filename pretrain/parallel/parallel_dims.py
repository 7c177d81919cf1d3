"""How many processes share what: the layout of a run, which checks itself."""

from __future__ import annotations

from dataclasses import dataclass

from tape.configs import ProteinBertConfig
from tape.errors import ConfigError


@dataclass(frozen=True)
class ParallelDims:
    """``world_size`` processes = ``pipeline`` stages x ``data`` copies x ``tensor`` ranks that share a stage.

    Tensor ranks are neighbours, so that they sit on one machine; stages are farthest apart, because they say least to
    each other (Narayanan et al. 2021): rank = (stage * data + data index) * tensor + tensor index.

    Attributes:
        sequence: between the regions that tensor ranks split, each of them has its part of the tokens.
        shard_data: copies share weights, gradients and optimizer state out among themselves.

    Raises:
        ConfigError: the numbers don't fit.
    """

    world_size: int = 1
    tensor: int = 1
    pipeline: int = 1
    sequence: bool = False
    shard_data: bool = False

    def __post_init__(self) -> None:
        if min(self.world_size, self.tensor, self.pipeline) < 1:
            raise ConfigError(
                f"a layout needs positive numbers, not world {self.world_size}, tensor {self.tensor}, pipeline "
                f"{self.pipeline}"
            )
        together = self.tensor * self.pipeline
        if self.world_size % together:
            flags = f"--tensor-model-parallel-size {self.tensor}"
            if self.pipeline > 1:
                flags += f" x --pipeline-model-parallel-size {self.pipeline}"
            raise ConfigError(
                f"{flags} does not divide the {self.world_size} processes; start a multiple of {together}, for example "
                f"torchrun --nproc-per-node {together}"
            )

    @property
    def data(self) -> int:
        """Copies of the model, each with rows of its own."""
        return self.world_size // (self.tensor * self.pipeline)

    @property
    def splits_tokens(self) -> bool:
        return self.sequence and self.tensor > 1

    @property
    def shards_data(self) -> bool:
        return self.shard_data and self.data > 1

    def place(self, rank: int) -> tuple[int, int, int]:
        """(stage, data index, tensor index) of a rank."""
        return rank // (self.data * self.tensor), rank // self.tensor % self.data, rank % self.tensor

    def layers_of(self, stage: int, layers: int) -> range:
        """Blocks of a stage; the first stages have one more when they don't divide."""
        share, more = divmod(layers, self.pipeline)
        first = stage * share + min(stage, more)
        return range(first, first + share + (stage < more))

    def check_model(self, config: ProteinBertConfig) -> None:
        """Make sure that heads and FFN split evenly and that every stage has a block.

        Raises:
            ConfigError: they don't.
        """
        for name, value in (
            ("attention heads", config.num_attention_heads),
            ("FFN columns", config.intermediate_size),
        ):
            if value % self.tensor:
                raise ConfigError(f"{value} {name} do not split over --tensor-model-parallel-size {self.tensor}")
        if config.num_hidden_layers < self.pipeline:
            raise ConfigError(
                f"{config.num_hidden_layers} layers are too few for --pipeline-model-parallel-size {self.pipeline}"
            )

    def as_dict(self) -> dict[str, int]:
        """Sizes by name, for records."""
        return {"tensor": self.tensor, "data": self.data, "pipeline": self.pipeline}

    def __str__(self) -> str:
        data = f"data {self.data}{' sharded' if self.shards_data else ''}"
        tensor = f"tensor {self.tensor}{' with sequence' if self.splits_tokens else ''}"
        pipeline = f"pipeline {self.pipeline} x " if self.pipeline > 1 else ""
        return f"{self.world_size} processes = {pipeline}{data} x {tensor}"
