"""Reading pickles from untrusted files. Nothing that a file names is looked up or called.

:mod:`.unpickler` interprets the instructions of a pickle, :mod:`.types` defines what it may name and contain,
:mod:`.arrays` builds numpy's arrays, and :mod:`.bounds` limits the size of the result. The pickles of torch add their
own types to :data:`PLAIN_DATA`; see :mod:`tape.models.torch_files` and :mod:`pretrain.checkpointing.index_pickle`.
"""

from .python_types import keys_and_values
from .types import (
    Constructor,
    ForbiddenNameError,
    Name,
    PickleTypes,
    RefusedPickleError,
    Unfinished,
    constructors,
    is_size,
    refuse_arguments,
)
from .unpickler import PLAIN_DATA, RestrictedUnpickler, restricted_loads

__all__ = [
    "PLAIN_DATA",
    "Constructor",
    "ForbiddenNameError",
    "Name",
    "PickleTypes",
    "RefusedPickleError",
    "RestrictedUnpickler",
    "Unfinished",
    "constructors",
    "is_size",
    "keys_and_values",
    "refuse_arguments",
    "restricted_loads",
]
