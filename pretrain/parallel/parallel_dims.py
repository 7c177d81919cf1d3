"""The layout of a run: how many processes each kind of parallelism has."""

from __future__ import annotations

from dataclasses import dataclass

from tape.configs import ProteinBertConfig
from tape.errors import ConfigError


@dataclass(frozen=True)
class ParallelDims:
    """``world_size`` processes = ``pipeline`` stages x ``data`` replicas x ``tensor`` ranks per stage.

    As in Megatron-LM (Narayanan et al. 2021), tensor-parallel ranks are adjacent, so that they are on one machine, and
    pipeline stages are farthest apart, because they communicate least:
    rank = (stage * data + data rank) * tensor + tensor rank.

    Attributes:
        world_size: number of processes.
        tensor: number of tensor-parallel ranks.
        pipeline: number of pipeline stages.
        sequence_parallel: whether the tensor-parallel ranks shard activations by tokens outside the tensor-parallel
            regions.
        fsdp: whether the data-parallel ranks shard parameters, gradients and optimizer state.

    Raises:
        ConfigError: the numbers are not positive, or do not divide the world size.
    """

    world_size: int = 1
    tensor: int = 1
    pipeline: int = 1
    sequence_parallel: bool = False
    fsdp: bool = False

    def __post_init__(self) -> None:
        if min(self.world_size, self.tensor, self.pipeline) < 1:
            raise ConfigError(
                f"a layout needs positive numbers, not world size {self.world_size}, tensor {self.tensor}, pipeline "
                f"{self.pipeline}"
            )
        model_parallel = self.tensor * self.pipeline
        if self.world_size % model_parallel:
            flags = f"--tensor-model-parallel-size {self.tensor}"
            if self.pipeline > 1:
                flags += f" x --pipeline-model-parallel-size {self.pipeline}"
            raise ConfigError(
                f"{flags} does not divide the {self.world_size} processes; start a multiple of {model_parallel}, for "
                f"example torchrun --nproc-per-node {model_parallel}"
            )

    @property
    def data(self) -> int:
        """Number of data-parallel ranks, each of which trains a replica of the model on its own rows."""
        return self.world_size // (self.tensor * self.pipeline)

    @property
    def sequence_parallel_enabled(self) -> bool:
        return self.sequence_parallel and self.tensor > 1

    @property
    def fsdp_enabled(self) -> bool:
        return self.fsdp and self.data > 1

    def coordinates(self, rank: int) -> tuple[int, int, int]:
        """(stage, data rank, tensor rank) of a global rank."""
        return rank // (self.data * self.tensor), rank // self.tensor % self.data, rank % self.tensor

    def layers_of(self, stage: int, layers: int) -> range:
        """The layers of a pipeline stage; the first stages have one more if they can't be divided evenly."""
        share, more = divmod(layers, self.pipeline)
        first = stage * share + min(stage, more)
        return range(first, first + share + (stage < more))

    def check_model(self, config: ProteinBertConfig) -> None:
        """Make sure that the model can be parallelized in this way.

        Raises:
            ConfigError: attention heads or FFN can't be sharded evenly, or there are fewer layers than stages.
        """
        for name, value in (
            ("attention heads", config.num_attention_heads),
            ("FFN columns", config.intermediate_size),
        ):
            if value % self.tensor:
                raise ConfigError(f"{value} {name} do not divide by --tensor-model-parallel-size {self.tensor}")
        if config.num_hidden_layers < self.pipeline:
            raise ConfigError(
                f"{config.num_hidden_layers} layers are too few for --pipeline-model-parallel-size {self.pipeline}"
            )

    def as_dict(self) -> dict[str, int]:
        """Sizes by name, as they are stored in checkpoints."""
        return {"tensor": self.tensor, "data": self.data, "pipeline": self.pipeline}

    def __str__(self) -> str:
        pipeline = f"pipeline {self.pipeline} x " if self.pipeline > 1 else ""
        data = f"data {self.data}{' (FSDP)' if self.fsdp_enabled else ''}"
        tensor = f"tensor {self.tensor}{' (sequence parallel)' if self.sequence_parallel_enabled else ''}"
        return f"{self.world_size} processes = {pipeline}{data} x {tensor}"
