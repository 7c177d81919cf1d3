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


class _WithoutInitialization(TorchFunctionMode):
    """Makes random initialization do nothing.

    On the meta device it has no effect in any case, but its first call imports torch._dynamo, which takes as long as
    the import of torch.
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
        return function(*arguments, **options)
