"""Pooling of residue states to one vector per protein, for heads that predict one value or one class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tape.configs import POOLINGS
from tape.errors import ConfigError, quoted


def residue_mask(states: Tensor, input_mask: Tensor | None) -> Tensor:
    """(B, S) bool, True at residues; False at padding and at the ``<cls>`` and ``<sep>`` of each protein.

    Args:
        states: (B, S, ...) states of the tokens, with padding at the end.
        input_mask: (B, S), nonzero at real tokens; None means no padding.
    """
    batch, length = states.shape[:2]
    position = torch.arange(length, device=states.device)
    if input_mask is None:
        tokens = torch.full((batch,), length, device=states.device)
    else:
        tokens = (input_mask != 0).sum(1)
    return (position >= 1) & (position < (tokens - 1).unsqueeze(1))


class ProteinPooling(nn.Module):
    """Pooling (B, S, H) -> (B, H).

    - ``cls``: the model's own pooled output, such as the state of ``<cls>``. No parameters.
    - ``mean``: mean over residues. No parameters.
    - ``attention``: mean weighted by softmax(states . query / sqrt(H)) with a learned ``query`` (H,). The query is
      initialized to 0, which gives the plain mean.

    Args:
        kind: one of these names.
        hidden_size: H.

    Raises:
        ConfigError: unknown ``kind``.
    """

    def __init__(self, kind: str, hidden_size: int) -> None:
        super().__init__()
        if kind not in POOLINGS:
            raise ConfigError(f"pooling must be one of {', '.join(POOLINGS)}, not {quoted(kind)}")
        self.kind = kind
        if kind == "attention":
            self.query = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, states: Tensor, pooled: Tensor, input_mask: Tensor | None = None) -> Tensor:
        """Pool the states of each protein, in fp32 unless ``kind`` is ``cls``.

        Args:
            states: (B, S, H).
            pooled: (B, H), the model's own pooled output.
            input_mask: (B, S), nonzero at real tokens.
        """
        if self.kind == "cls":
            return pooled
        residues = residue_mask(states, input_mask)
        scores = torch.zeros_like(states[..., 0], dtype=torch.float32)
        if self.kind == "attention":
            with torch.autocast(states.device.type, enabled=False):
                scores = (states.float() @ self.query.float()) / states.shape[-1] ** 0.5
        weights = scores.masked_fill(~residues, torch.finfo(torch.float32).min).softmax(-1)
        # In fp32, also under autocast: a mutation changes the mean over 200 residues by less than bf16 resolves.
        with torch.autocast(states.device.type, enabled=False):
            return torch.einsum("bs,bsh->bh", weights, states.float())
