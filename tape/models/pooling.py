"""One vector a protein from its residue states, for heads that predict one value or one class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tape.configs import POOLINGS
from tape.errors import ConfigError


def residue_mask(states: Tensor, input_mask: Tensor | None) -> Tensor:
    """(B, S) bool, True at residues: neither padding nor the ``<cls>`` and ``<sep>`` around each protein.

    Args:
        states: (B, S, ...) of tokens, padding last.
        input_mask: (B, S), nonzero at real tokens; None means all are.
    """
    batch, length = states.shape[:2]
    position = torch.arange(length, device=states.device)
    if input_mask is None:
        tokens = torch.full((batch,), length, device=states.device)
    else:
        tokens = (input_mask != 0).sum(1)
    return (position >= 1) & (position < (tokens - 1).unsqueeze(1))


class ProteinPooling(nn.Module):
    """(B, S, H) -> (B, H).

    - ``cls``: what the model itself gives for a protein, the state of ``<cls>``. No parameters.
    - ``mean``: mean over residues. No parameters.
    - ``attention``: residues weighted by softmax(states . query / sqrt(H)) with a learned ``query`` (H,); it starts at
      0, which is the mean.

    Args:
        kind: one of these.
        hidden_size: H.
    """

    def __init__(self, kind: str, hidden_size: int) -> None:
        super().__init__()
        if kind not in POOLINGS:
            raise ConfigError(f"pooling must be one of {', '.join(POOLINGS)}, not {kind!r}")
        self.kind = kind
        if kind == "attention":
            self.query = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, states: Tensor, pooled: Tensor, input_mask: Tensor | None = None) -> Tensor:
        """Pool.

        Args:
            states: (B, S, H).
            pooled: (B, H), the model's own vector of a protein.
            input_mask: (B, S), nonzero at real tokens.
        """
        if self.kind == "cls":
            return pooled
        residues = residue_mask(states, input_mask)
        scores = torch.zeros_like(states[..., 0], dtype=torch.float32)
        if self.kind == "attention":
            scores = (states.float() @ self.query.float()) / states.shape[-1] ** 0.5
        weights = scores.masked_fill(~residues, torch.finfo(torch.float32).min).softmax(-1)
        return torch.einsum("bs,bsh->bh", weights.to(states.dtype), states)
