"""Requests for passes of evaluation and embedding. Also runs in the environment of the peers."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from .memory import peak_above_the_model
from .protocol import Answer, Message

# splits, and names of FASTA files; tape-proteins reads no splits of other names
WARM_UP, TEST = "valid", "cb513"


def inference_answers(setup: Message, run: Callable[[str, int, Path], object]) -> Answer:
    """Answers requests with a ``batch_size``: a pass over the proteins of ``TEST``, or of ``WARM_UP``.

    Args:
        setup: the worker's setup, with the number of ``tokens`` of ``TEST`` and an empty directory ``scratch``.
        run: computes a split with a batch size and writes its results to a path that doesn't exist yet.
    """
    numbers = count()

    def answer(request: Message) -> Message:
        split = WARM_UP if request["warm_up"] else TEST
        target = Path(setup["scratch"]) / f"result{next(numbers)}"
        began = time.perf_counter()
        memory = peak_above_the_model(0, lambda: run(split, request["batch_size"], target))
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "tokens": setup["tokens"], "memory_bytes": memory}

    return answer
