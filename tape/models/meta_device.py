"""Building models without memory for their weights: on torch's meta device, and without initializing them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_RANDOM_METHODS = frozenset({torch.Tensor.normal_, torch.Tensor.uniform_})


@contextmanager
def on_meta_device() -> Iterator[None]:
    """Modules built in this context have parameters with shape and dtype, but without memory and values.

    The state of the random number generators does not change.
    """
    with torch.device("meta"), _WithoutInitialization():
        yield


def allocate(model: nn.Module, device: torch.device | str) -> None:
    """Give a model that was built on the meta device memory on ``device``, whose content is arbitrary.

    As ``model.to_empty``, but that one imports sympy, which takes 0.3 s. Tied weights must be tied again.
    """
    model._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device=device))


class _WithoutInitialization(TorchFunctionMode):
    """Makes random initialization do nothing, and norms (of weight normalization) return only their shape.

    On the meta device, they have no values in any case, but their first call imports torch._dynamo, which takes as long
    as the import of torch.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        arguments: tuple[Any, ...] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        options = options or {}
        if function in _RANDOM_METHODS or getattr(function, "__module__", None) == nn.init.__name__:
            return arguments[0] if arguments else options["tensor"]
        if function is torch.Tensor.norm and arguments[0].is_meta and isinstance(options["dim"], int | None):
            return _shape_of_norm(arguments[0], options["dim"], options["keepdim"])
        return function(*arguments, **options)


def _shape_of_norm(tensor: torch.Tensor, dim: int | None, keepdim: bool) -> torch.Tensor:
    if dim is None:
        return torch.empty((1,) * tensor.dim() if keepdim else (), dtype=tensor.dtype, device="meta")
    return tensor.narrow(dim, 0, 1) if keepdim else tensor.select(dim, 0)
