"""UniRep against a loop over one protein's residues written out by hand."""

from __future__ import annotations

import torch
from torch import nn

from tape.configs import UniRepConfig
from tape.models.modeling_unirep import UniRepForLM, UniRepForValuePrediction, UniRepModel

LENGTHS = (7, 2, 12)


def small(**changes) -> UniRepConfig:
    return UniRepConfig(**{"input_size": 4, "hidden_size": 6, "head_hidden_size": 16, **changes})


def widen(model: nn.Module) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.7)


def unirep_proteins(proteins) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = proteins(*LENGTHS)
    return ids.clamp(max=25), mask


def read_alone(model: UniRepModel, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """States (S, H) and pooled (2H,) of one protein; weight normalization row by row with explicit sums."""
    cell = model.encoder.mlstm_cell

    def weight(layer: nn.Module) -> torch.Tensor:
        rows = [g * v / v.square().sum().sqrt() for g, v in zip(layer.weight_g, layer.weight_v, strict=True)]
        return torch.stack(rows)

    h = c = torch.zeros(6)
    states = []
    for token in ids.tolist():
        x = model.embed_matrix.weight[token]
        m = (weight(cell.wmx) @ x) * (weight(cell.wmh) @ h)
        z = weight(cell.wx) @ x + weight(cell.wh) @ m + cell.wh.bias
        i, f, o, u = z[:6], z[6:12], z[12:18], z[18:]
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(u)
        h = torch.sigmoid(o) * torch.tanh(c)
        states.append(h)
    return torch.stack(states), torch.cat([h, c])


def test_states_and_pooled_are_those_of_each_protein_alone(proteins):
    model = UniRepModel(small()).eval()
    widen(model)
    ids, mask = unirep_proteins(proteins)
    states, pooled = model(ids, mask)
    for row, length in enumerate(LENGTHS):
        alone, vector = read_alone(model, ids[row, :length])
        torch.testing.assert_close(states[row, :length], alone)
        torch.testing.assert_close(pooled[row], vector)
        held = states[row, length:]
        torch.testing.assert_close(held, alone[-1].expand_as(held))  # the state stands still at padding


def test_the_language_model_predicts_the_next_token(proteins):
    model = UniRepForLM(small()).eval()
    widen(model)
    ids, mask = unirep_proteins(proteins)
    targets = torch.where(mask.bool(), ids, -1)
    (loss, _), logits = model(ids, mask, targets)
    assert logits.shape == (3, 12, 26)
    log_probability = []
    for row, length in enumerate(LENGTHS):
        states, _ = read_alone(model.unirep, ids[row, :length])
        expected = model.feedforward(torch.cat([torch.zeros(1, 6), states[:-1]]))
        torch.testing.assert_close(logits[row, :length, 1:], expected)  # no row for padding: token t is row t - 1
        log_probability.append(expected.log_softmax(-1).gather(1, ids[row, :length, None] - 1))
    torch.testing.assert_close(loss, -torch.cat(log_probability).mean())
    assert logits.softmax(-1)[..., 0].max() == 0
    changed = ids.clone()
    changed[0, 4] = 5 + (changed[0, 4] - 4) % 20
    moved = (model(changed, mask, targets)[1] - logits)[0].abs().sum(-1)
    assert moved[:5].sum() == 0
    assert moved[5] > 0


def test_without_targets_the_language_model_gives_the_logits_of_tape(proteins):
    """At each position 25 logits of the next token, in column c that of token c + 1."""
    model = UniRepForLM(small()).eval()
    widen(model)
    ids, mask = unirep_proteins(proteins)
    (found,) = model(ids, mask)
    _, aligned = model(ids, mask, ids)
    assert found.shape == (3, 12, 25)
    torch.testing.assert_close(found[:, :-1], aligned[:, 1:, 1:])


def test_half_precision_reads_too(proteins):
    model = UniRepForValuePrediction(small()).eval()
    ids, mask = unirep_proteins(proteins)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (prediction,) = model(ids, mask)
    torch.testing.assert_close(prediction.float(), model(ids, mask)[0], atol=2e-2, rtol=2e-2)


def test_state_dict_names_are_the_published_ones():
    shapes = {name: tuple(value.shape) for name, value in UniRepForLM(small()).state_dict().items()}
    cell = "unirep.encoder.mlstm_cell"
    for name, rows, columns in (("wmx", 6, 4), ("wmh", 6, 6), ("wx", 24, 4), ("wh", 24, 6)):
        assert shapes.pop(f"{cell}.{name}.weight_g") == (rows, 1)
        assert shapes.pop(f"{cell}.{name}.weight_v") == (rows, columns)
    assert shapes == {
        "unirep.embed_matrix.weight": (26, 4),
        f"{cell}.wh.bias": (24,),
        "feedforward.weight": (25, 6),
        "feedforward.bias": (25,),
    }
    config = UniRepConfig()
    assert (config.vocab_size, config.input_size, config.hidden_size) == (26, 10, 1900)
