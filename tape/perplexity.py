"""The one number by which language models are compared, for pretraining and finetuning alike."""

from __future__ import annotations

import math


def perplexity(mean_loss: float) -> float:
    """exp(mean loss in nats over the predicted tokens), infinite where that overflows."""
    return math.exp(mean_loss) if mean_loss < 700 else math.inf
