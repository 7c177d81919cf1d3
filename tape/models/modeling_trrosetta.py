"""trRosetta: predicts distances and orientations of residue pairs from an alignment (Yang et al. 2020).

A dilated residual network over residue pairs maps features of the alignment (its first sequence, profile and
regularized inverse covariance) to four distributions. The names of the parameters are those of tape-proteins 0.5, whose
``xaa`` to ``xae`` are the published networks. Features are computed per protein, and padding is set to 0 before every
convolution and excluded from normalization, so predictions do not depend on the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tape.compatibility.names import names_of
from tape.configs import TRRosettaConfig

from .dropout import Dropout
from .modeling_utils import ProteinModel

__getattr__ = names_of(__name__)  # of tape-proteins 0.5

SYMBOLS = 21  # 20 amino acids and the gap
_AMINO_ACIDS = 20
_FEATURES = 2 * (2 * SYMBOLS) + SYMBOLS**2 + 1
_LARGEST_DILATION = 16

# output -> number of bins, and the label that is ignored
OUTPUTS: dict[str, tuple[int, int]] = {"dist": (37, -1), "theta": (25, 0), "omega": (25, 0), "phi": (13, 0)}


class MSAFeatureExtractor(nn.Module):
    """Features of residue pairs from one-hot alignments; no parameters.

    Args:
        config: ``msa_cutoff`` is the sequence identity above which sequences are down-weighted as similar;
            ``penalty_coeff`` is the ridge regularization of the inverse covariance.
    """

    feature_size = _FEATURES

    def __init__(self, config: TRRosettaConfig) -> None:
        super().__init__()
        self.msa_cutoff = config.msa_cutoff
        self.penalty_coeff = config.penalty_coeff

    def forward(self, msa1hot: Tensor) -> Tensor:
        """(B, N, L, 21), padded with 0 in N and L -> (B, 526, L, L) in the same data type, 0 at padding."""
        longest = msa1hot.shape[2]
        features = msa1hot.new_zeros(msa1hot.shape[0], _FEATURES, longest, longest)
        with torch.autocast(msa1hot.device.type, enabled=False):  # half precision is too inaccurate for an inverse
            for row, (msa, length) in enumerate(zip(msa1hot, protein_lengths(msa1hot).tolist(), strict=True)):
                depth = int((msa.sum((1, 2)) > 0).sum())
                features[row, :, :length, :length] = self._features(msa[:depth, :length].float()).to(features.dtype)
        return features

    def _features(self, msa: Tensor) -> Tensor:
        """(N, L, 21) -> (526, L, L): features of residue i, of residue j, and of the pair."""
        weights = self.reweight(msa)
        single = self.extract_features_1d(msa, weights)
        length = msa.shape[1]
        left = single.unsqueeze(1).expand(-1, length, -1)
        right = single.unsqueeze(0).expand(length, -1, -1)
        return torch.cat([left, right, self.extract_features_2d(msa, weights)], -1).permute(2, 0, 1)

    def reweight(self, msa: Tensor) -> Tensor:
        """(N,) weight of each sequence: one over the number of sequences whose identity with it exceeds the cutoff."""
        flat = msa.flatten(1)
        similar = flat @ flat.T > msa.shape[1] * self.msa_cutoff
        return 1.0 / similar.float().sum(1)

    def extract_features_1d(self, msa: Tensor, weights: Tensor) -> Tensor:
        """(L, 42): the first sequence, the weighted profile including gaps, and the entropy of the profile."""
        profile = torch.einsum("n,nla->la", weights, msa) / weights.sum() + 1e-9
        entropy = -(profile * profile.log()).sum(1, keepdim=True)
        return torch.cat([msa[0, :, :_AMINO_ACIDS], profile, entropy], 1)

    def extract_features_2d(self, msa: Tensor, weights: Tensor) -> Tensor:
        """(L, L, 442): blocks of the inverse covariance, and their norms with average product correction."""
        depth, length, _ = msa.shape
        if depth == 1:  # a single sequence has no covariance
            return msa.new_zeros(length, length, SYMBOLS**2 + 1)
        points = weights.sum() - weights.mean().sqrt()
        flat = msa.flatten(1)
        centered = (flat - (flat * weights[:, None]).sum(0) / points) * weights[:, None].sqrt()
        ridge = self.penalty_coeff / weights.sum().sqrt()
        covariance = centered.T @ centered / points
        covariance.diagonal().add_(ridge)
        blocks = torch.linalg.inv(covariance).view(length, SYMBOLS, length, SYMBOLS)
        off_diagonal = 1 - torch.eye(length, device=msa.device)
        norms = blocks[:, :-1, :, :-1].square().sum((1, 3)).sqrt() * off_diagonal
        average = norms.sum(0, keepdim=True) * norms.sum(1, keepdim=True) / norms.sum().clamp(min=1e-12)
        contacts = (norms - average) * off_diagonal
        return torch.cat([blocks.permute(0, 2, 1, 3).flatten(2), contacts.unsqueeze(-1)], -1)


def protein_lengths(msa1hot: Tensor) -> Tensor:
    """(B,) number of residues of each protein of (B, N, L, 21): the symbols of its first sequence."""
    return (msa1hot[:, 0].sum(-1) > 0).sum(1)


class PairInstanceNorm(nn.Module):
    """Instance norm over the real residue pairs of each protein, with the state dict of ``InstanceNorm2d``."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, pairs: Tensor, mask: Tensor) -> Tensor:
        """(B, C, L, L) and mask (B, 1, L, L), 1 at real pairs -> (B, C, L, L), 0 at padding."""
        values, real = pairs.float(), mask.float()
        count = real.sum((2, 3), keepdim=True).clamp(min=1)
        centered = (values - (values * real).sum((2, 3), keepdim=True) / count) * real
        variance = centered.square().sum((2, 3), keepdim=True) / count
        scale = self.weight[:, None, None] * (variance + self.eps).rsqrt()
        return ((centered * scale + self.bias[:, None, None]) * real).to(pairs.dtype)


class DilatedResidualBlock(nn.Module):
    """conv, norm, ELU, dropout, conv, norm, sum, ELU; (B, C, L, L) with padding 0 -> the same."""

    def __init__(self, num_features: int, kernel_size: int, dilation: int, dropout: float) -> None:
        super().__init__()
        padding = (kernel_size - 1) * dilation // 2
        self.conv1 = nn.Conv2d(num_features, num_features, kernel_size, padding=padding, dilation=dilation)
        self.norm1 = PairInstanceNorm(num_features)
        self.dropout = Dropout(dropout)
        self.conv2 = nn.Conv2d(num_features, num_features, kernel_size, padding=padding, dilation=dilation)
        self.norm2 = PairInstanceNorm(num_features)

    def forward(self, pairs: Tensor, mask: Tensor) -> Tensor:
        hidden = self.dropout(F.elu(self.norm1(self.conv1(pairs), mask)))
        return F.elu(pairs + self.norm2(self.conv2(hidden), mask))


class TRRosettaAbstractModel(ProteinModel):
    """Base class of the predictor and the complete model."""

    config_class = TRRosettaConfig
    config: TRRosettaConfig
    base_model_prefix = "trrosetta"
    unused_parameters = ("predict_bb.",)  # beta-strand pairings, which neither a loss nor an output used

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, DilatedResidualBlock):  # initially, each block is the identity
            nn.init.zeros_(module.norm2.weight)


class TRRosettaPredictor(TRRosettaAbstractModel):
    """Maps pair features to distributions of distance (37 bins), theta (25), omega (25) and phi (13)."""

    def __init__(self, config: TRRosettaConfig) -> None:
        super().__init__(config)
        width = config.num_features
        stem = [nn.Conv2d(_FEATURES, width, 1), PairInstanceNorm(width), nn.ELU(), Dropout(config.dropout)]
        dilations = [2 ** (index % (_LARGEST_DILATION.bit_length())) for index in range(config.num_layers)]
        blocks = [DilatedResidualBlock(width, config.kernel_size, dilation, config.dropout) for dilation in dilations]
        self.resnet = nn.Sequential(*stem, *blocks)
        for name, (bins, _) in OUTPUTS.items():
            setattr(self, f"predict_{name}", nn.Conv2d(width, bins, 1))
        self.init_weights()

    def init_weights(self) -> None:
        """As in the base class; the initial output distributions are uniform."""
        super().init_weights()
        for name in OUTPUTS:
            nn.init.zeros_(getattr(self, f"predict_{name}").weight)

    def forward(
        self,
        features: Tensor,
        theta: Tensor | None = None,
        phi: Tensor | None = None,
        dist: Tensor | None = None,
        omega: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Any, ...]:
        """Predict the geometry of residue pairs.

        Args:
            features: (B, 526, L, L).
            theta, phi, dist, omega: (B, L, L) bins; -1 (distance) and 0 (angles) are ignored.
            lengths: (B,) number of residues of each protein; None means no padding.

        Returns:
            ``(probabilities,)`` with ``p_dist``, ``p_theta``, ``p_omega``, ``p_phi``, each (B, L, L, bins). With
            labels, ``((loss, losses), probabilities)``. The loss of a protein is the sum of its mean cross entropies;
            the loss of a batch is the mean over proteins.
        """
        logits = self._logits(features, _pair_mask(features, lengths))
        probabilities = {f"p_{name}": logits[name].float().softmax(-1) for name in ("dist", "theta", "omega", "phi")}
        given = {"dist": dist, "theta": theta, "omega": omega, "phi": phi}
        losses = {
            name: _loss(logits[name], labels, OUTPUTS[name][1]) for name, labels in given.items() if labels is not None
        }
        if not losses:
            return (probabilities,)
        return (torch.stack(list(losses.values())).sum(), losses), probabilities

    def _logits(self, features: Tensor, mask: Tensor) -> dict[str, Tensor]:
        conv, norm, activation, dropout, *blocks = self.resnet
        hidden = dropout(activation(norm(conv(features), mask)))
        for block in blocks:
            hidden = block(hidden, mask)
        symmetric = 0.5 * (hidden + hidden.transpose(-1, -2))
        inputs = {"dist": symmetric, "omega": symmetric, "theta": hidden, "phi": hidden}
        return {name: getattr(self, f"predict_{name}")(inputs[name]).permute(0, 2, 3, 1) for name in OUTPUTS}


def _pair_mask(features: Tensor, lengths: Tensor | None) -> Tensor:
    """(B, 1, L, L), 1 if both residues are real."""
    longest = features.shape[-1]
    if lengths is None:
        return features.new_ones(features.shape[0], 1, longest, longest)
    real = torch.arange(longest, device=features.device) < lengths.to(features.device)[:, None]
    return (real[:, None, :, None] & real[:, None, None, :]).to(features.dtype)


def _loss(logits: Tensor, labels: Tensor, ignored: int) -> Tensor:
    """Mean over proteins of each protein's mean cross entropy, which is 0 for a protein without labels."""
    losses = F.cross_entropy(logits.permute(0, 3, 1, 2).float(), labels, ignore_index=ignored, reduction="none")
    counted = (labels != ignored).sum((1, 2)).clamp(min=1)
    return (losses.sum((1, 2)) / counted).mean()


class TRRosetta(TRRosettaAbstractModel):
    """Maps alignments to distributions of the geometry of residue pairs."""

    def __init__(self, config: TRRosettaConfig) -> None:
        super().__init__(config)
        self.extract_features = MSAFeatureExtractor(config)
        self.trrosetta = TRRosettaPredictor(config)

    def forward(
        self,
        msa1hot: Tensor,
        theta: Tensor | None = None,
        phi: Tensor | None = None,
        dist: Tensor | None = None,
        omega: Tensor | None = None,
    ) -> tuple[Any, ...]:
        """As :meth:`TRRosettaPredictor.forward`, for alignments (B, N, L, 21), padded with 0 in N and L."""
        features = self.extract_features(msa1hot)
        outputs: tuple[Any, ...] = self.trrosetta(features, theta, phi, dist, omega, protein_lengths(msa1hot))
        return outputs
