"""trRosetta against features and a network written out for one protein at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tape.configs import TRRosettaConfig
from tape.errors import ConfigError
from tape.models.modeling_trrosetta import OUTPUTS, MSAFeatureExtractor, TRRosetta

# sequences, residues
SIZES = ((7, 9), (1, 14), (12, 5))


def small(**changes: Any) -> TRRosettaConfig:
    return TRRosettaConfig(**{"num_features": 6, "num_layers": 6, "dropout": 0.0, **changes})


def alignments(seed: int = 0) -> list[np.ndarray]:
    """Alignments whose sequences resemble their first, so that weights differ."""
    rng = np.random.default_rng(seed)
    made = []
    for depth, length in SIZES:
        msa = np.tile(rng.integers(0, 21, length), (depth, 1))
        changed = rng.random(msa.shape) < rng.uniform(0, 0.5, (depth, 1))
        changed[0] = False
        made.append(np.where(changed, rng.integers(0, 21, msa.shape), msa))
    return made


def padded(msas: list[np.ndarray]) -> torch.Tensor:
    hot = torch.zeros(len(msas), max(len(m) for m in msas), max(m.shape[1] for m in msas), 21)
    for row, msa in enumerate(msas):
        hot[row, : len(msa), : msa.shape[1]] = F.one_hot(torch.from_numpy(msa), 21)
    return hot


def plain_features(msa: np.ndarray) -> np.ndarray:
    """(526, L, L), by loops over sequences and residues."""
    depth, length = msa.shape
    weight = np.array([1 / sum(np.sum(a == b) > 0.8 * length for b in msa) for a in msa])
    profile = np.zeros((length, 21))
    for sequence, w in zip(msa, weight, strict=True):
        profile[np.arange(length), sequence] += w
    profile = profile / weight.sum() + 1e-9
    first = np.eye(21)[msa[0]][:, :20]
    single = np.concatenate([first, profile, -(profile * np.log(profile)).sum(1, keepdims=True)], 1)
    pair = np.zeros((length, length, 442))
    if depth > 1:
        hot = np.eye(21)[msa].reshape(depth, -1)
        points = weight.sum() - np.sqrt(weight.mean())
        mean = (weight[:, None] * hot).sum(0) / points
        covariance = sum(w * np.outer(row - mean, row - mean) for row, w in zip(hot, weight, strict=True)) / points
        inverse = np.linalg.inv(covariance + np.eye(21 * length) * 4.5 / np.sqrt(weight.sum()))
        norm = np.zeros((length, length))
        for i in range(length):
            for j in range(length):
                block = inverse[21 * i : 21 * i + 21, 21 * j : 21 * j + 21]
                pair[i, j, :441] = block.reshape(-1)
                norm[i, j] = 0 if i == j else np.sqrt((block[:20, :20] ** 2).sum())
        corrected = norm - norm.sum(0, keepdims=True) * norm.sum(1, keepdims=True) / norm.sum()
        np.fill_diagonal(corrected, 0)
        pair[..., 441] = corrected
    features = np.zeros((length, length, 526))
    for i in range(length):
        for j in range(length):
            features[i, j] = np.concatenate([single[i], single[j], pair[i, j]])
    return features.transpose(2, 0, 1)


def plain_network(model: TRRosetta, features: torch.Tensor) -> dict[str, torch.Tensor]:
    """Distributions of one protein's features (1, 526, L, L)."""

    def normal(layer: nn.Module, values: torch.Tensor) -> torch.Tensor:
        return F.instance_norm(values, weight=layer.weight, bias=layer.bias, eps=1e-6)

    conv, norm, _, _, *blocks = model.trrosetta.resnet
    hidden = F.elu(normal(norm, F.conv2d(features, conv.weight, conv.bias)))
    for block, dilation in zip(blocks, (1, 2, 4, 8, 16, 1), strict=True):
        first, second = (
            lambda x, conv=conv, d=dilation: F.conv2d(x, conv.weight, conv.bias, padding=d, dilation=d)
            for conv in (block.conv1, block.conv2)
        )
        inner = normal(block.norm2, second(F.elu(normal(block.norm1, first(hidden)))))
        hidden = F.elu(hidden + inner)
    symmetric = (hidden + hidden.transpose(2, 3)) / 2
    found = {}
    for name in OUTPUTS:
        head = getattr(model.trrosetta, f"predict_{name}")
        values = F.conv2d(symmetric if name in ("dist", "omega") else hidden, head.weight, head.bias)
        found[name] = values[0].permute(1, 2, 0)
    return found


@pytest.fixture(scope="module")
def model() -> TRRosetta:
    torch.manual_seed(0)
    model = TRRosetta(small()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
    return model


def labels(seed: int = 1) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    made = {}
    for name, (bins, ignored) in OUTPUTS.items():
        made[name] = torch.full((3, 14, 14), ignored)
        for row, (_, length) in enumerate(SIZES):
            made[name][row, :length, :length] = torch.from_numpy(rng.integers(ignored, bins, (length, length)))
    return made


def test_features_are_those_of_each_alignment_alone():
    msas = alignments()
    features = MSAFeatureExtractor(small())(padded(msas))
    assert features.shape == (3, 526, 14, 14)
    for row, msa in enumerate(msas):
        length = msa.shape[1]
        expected = torch.from_numpy(plain_features(msa)).float()
        torch.testing.assert_close(features[row, :, :length, :length], expected, rtol=1e-4, atol=1e-4)
        assert features[row, :, length:].abs().sum() == 0


def test_distributions_and_loss_are_those_of_each_protein_alone(model):  # bug 17 in docs/compatibility.md
    msas, given = alignments(), labels()
    hot = padded(msas)
    (loss, losses), together = model(hot, **given)
    assert [together[f"p_{name}"].shape for name in ("dist", "theta", "omega", "phi")] == [
        (3, 14, 14, bins) for bins in (37, 25, 25, 13)
    ]
    expected_losses = dict.fromkeys(OUTPUTS, 0.0)
    for row, msa in enumerate(msas):
        length = msa.shape[1]
        features = model.extract_features(padded([msa]))
        for name, logits in plain_network(model, features).items():
            expected = logits.softmax(-1)
            torch.testing.assert_close(together[f"p_{name}"][row, :length, :length], expected, rtol=1e-4, atol=1e-5)
            truth = given[name][row, :length, :length]
            expected_losses[name] += F.cross_entropy(
                logits.reshape(-1, logits.shape[-1]), truth.reshape(-1), ignore_index=OUTPUTS[name][1]
            ) / len(msas)
        (alone,) = model(padded([msa]))
        torch.testing.assert_close(alone["p_phi"][0], together["p_phi"][row, :length, :length], rtol=1e-4, atol=1e-5)
    for name, value in expected_losses.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, sum(expected_losses.values()), rtol=1e-4, atol=1e-5)
    p = together["p_dist"]
    torch.testing.assert_close(p, p.transpose(1, 2))


def test_a_protein_without_labels_adds_nothing(model):
    hot = padded(alignments())
    nothing = {name: torch.full((3, 14, 14), ignored) for name, (_, ignored) in OUTPUTS.items()}
    assert model(hot, **nothing)[0][0].item() == 0.0


def test_outputs_begin_uniform_and_blocks_as_the_identity():
    torch.manual_seed(0)
    fresh = TRRosetta(small()).eval()
    (probabilities,) = fresh(padded(alignments()))
    torch.testing.assert_close(probabilities["p_dist"], torch.full((3, 14, 14, 37), 1 / 37))
    assert fresh.trrosetta.resnet[4].norm2.weight.abs().sum().item() == 0


def test_state_dict_names_are_the_published_ones(model, tmp_path):
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for number in range(4, 10):
        for part in (1, 2):
            assert shapes.pop(f"trrosetta.resnet.{number}.conv{part}.weight") == (6, 6, 3, 3)
            for name in (f"conv{part}.bias", f"norm{part}.weight", f"norm{part}.bias"):
                assert shapes.pop(f"trrosetta.resnet.{number}.{name}") == (6,)
    for name, (bins, _) in OUTPUTS.items():
        assert shapes.pop(f"trrosetta.predict_{name}.weight") == (bins, 6, 1, 1)
        assert shapes.pop(f"trrosetta.predict_{name}.bias") == (bins,)
    assert shapes == {
        "trrosetta.resnet.0.weight": (6, 526, 1, 1),
        "trrosetta.resnet.0.bias": (6,),
        "trrosetta.resnet.1.weight": (6,),
        "trrosetta.resnet.1.bias": (6,),
    }
    assert len(TRRosetta(TRRosettaConfig()).trrosetta.resnet) == 4 + 61
    published = {**model.state_dict(), "trrosetta.predict_bb.weight": torch.ones(3, 6, 1, 1)}
    model.config.save_pretrained(tmp_path)
    torch.save({**published, "trrosetta.predict_bb.bias": torch.ones(3)}, tmp_path / "pytorch_model.bin")
    loaded, info = TRRosetta.from_pretrained(tmp_path, output_loading_info=True)
    assert (info["missing_keys"], info["unexpected_keys"]) == ([], [])
    hot = padded(alignments())
    torch.testing.assert_close(loaded(hot)[0]["p_dist"], model(hot)[0]["p_dist"], rtol=0, atol=0)


@pytest.mark.parametrize("wrong", [{"num_layers": 0}, {"kernel_size": 4}, {"dropout": 1.5}])
def test_configurations_that_make_no_network_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TRRosettaConfig(**wrong)
