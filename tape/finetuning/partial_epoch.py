"""The position inside an epoch that a stop signal interrupted, so that the resumed run equals an uninterrupted one.

The order of the proteins is a function of (seed, epoch), so the remaining steps need no more than their number. What
else the epoch has accumulated is stored per rank: the states of the random generators, from which dropout draws, and
the sums behind the logged means.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from tape.errors import CheckpointError, ConfigError, quoted


@dataclass(frozen=True)
class PartialEpoch:
    """An interrupted epoch.

    Attributes:
        steps: optimizer steps completed in the epoch.
        seconds: time that they took.
        order: what the order of the proteins depends on: ``seed``, ``batch_size``, and ``proteins``, their number.
        ranks: per rank, ``random``: see :func:`random_state`, and ``means``: see
            :meth:`tape.finetuning.running_means.RunningMeans.sums`.
    """

    steps: int
    seconds: float
    order: dict[str, int]
    ranks: list[dict[str, Any]]

    def as_state(self) -> dict[str, Any]:
        """The value for ``checkpoint.bin``."""
        return asdict(self)

    @classmethod
    def from_state(cls, value: Any) -> PartialEpoch:
        """The inverse of :meth:`as_state`.

        Raises:
            CheckpointError: it has other fields.
        """
        try:
            partial = cls(**value)
            is_valid = (
                type(partial.steps) is int
                and partial.steps >= 0
                and isinstance(partial.seconds, int | float)
                and all(type(partial.order[name]) is int for name in ("seed", "batch_size", "proteins"))
                and all(len(rank["means"]) == 2 and "random" in rank for rank in partial.ranks)
            )
        except (TypeError, KeyError):
            is_valid = False
        if not is_valid:
            raise CheckpointError(f"damaged: 'partial_epoch' must be the position in an epoch, not {quoted(value)}")
        return partial

    def check_order(self, order: dict[str, int]) -> None:
        """Check that the resumed run has the same order of proteins.

        Raises:
            ConfigError: it has another seed, batch size or number of proteins.
        """
        for name, value in self.order.items():
            if order.get(name) != value:
                option = "the number of training proteins" if name == "proteins" else f"--{name}"
                raise ConfigError(
                    f"the run was interrupted after {self.steps} steps of an epoch, in which {option} was {value}, not"
                    f" {order.get(name)}: resume it with the same, or from a complete epoch by --from_pretrained"
                    " RUN/EPOCH --overwrite"
                )


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of all random generators of this process, as tensors and numbers.

    Data sets of third parties may draw from those of numpy and Python.
    """
    _, keys, position, has_gauss, gauss = np.random.get_state()
    version, words, next_gauss = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": [version, torch.tensor(words, dtype=torch.int64), next_gauss],
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Set the states of all random generators.

    Raises:
        CheckpointError: the state is damaged.
    """
    try:
        torch.set_rng_state(state["torch"])
        keys, position, has_gauss, gauss = state["numpy"]
        np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))
        version, words, next_gauss = state["python"]
        random.setstate((version, tuple(words.tolist()), next_gauss))
        if device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], device)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"damaged: the saved states of the random generators can't be set ({error})") from error
