"""The encoder against an independent implementation, packed against padded, and the bugs of the original."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from tape.errors import CheckpointError, ConfigError
from tape.models.attention import PackedLayout
from tape.models.modeling_bert import (
    ProteinBertForContactPrediction,
    ProteinBertForMaskedLM,
    ProteinBertForSequenceClassification,
    ProteinBertForSequenceToSequenceClassification,
    ProteinBertForValuePrediction,
    ProteinBertModel,
)

TASK_MODELS = [
    ProteinBertForMaskedLM,
    ProteinBertForValuePrediction,
    ProteinBertForSequenceClassification,
    ProteinBertForSequenceToSequenceClassification,
    ProteinBertForContactPrediction,
]


def randomize(model: nn.Module, seed: int = 0) -> None:
    """Weights large enough for every part to matter, layer norms and biases included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        for name, parameter in model.named_parameters():
            if "ln.weight" in name or "LayerNorm.weight" in name:
                parameter.add_(1.0)


def megatron_bert(model: ProteinBertForMaskedLM):
    """``transformers.MegatronBertForMaskedLM`` with the weights of ``model``."""
    transformers = pytest.importorskip("transformers")
    ours = model.config
    config = transformers.MegatronBertConfig(
        vocab_size=ours.vocab_size,
        hidden_size=ours.hidden_size,
        num_hidden_layers=ours.num_hidden_layers,
        num_attention_heads=ours.num_attention_heads,
        intermediate_size=ours.intermediate_size,
        hidden_act="gelu" if ours.hidden_act == "gelu" else "gelu_pytorch_tanh",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=ours.max_position_embeddings,
        type_vocab_size=ours.type_vocab_size,
        layer_norm_eps=ours.layer_norm_eps,
    )
    renames = (
        (".input_ln.", ".attention.ln."),
        (".attention.dense.", ".attention.output.dense."),
        (".post_attn_ln.", ".ln."),
        (".mlp.dense_h_4h.", ".intermediate.dense."),
        (".mlp.dense_4h_h.", ".output.dense."),
        (".final_ln.", ".ln."),
        ("mlm.bias", "cls.predictions.bias"),
        ("mlm.transform.", "cls.predictions.transform."),
        ("mlm.decoder.", "cls.predictions.decoder."),
    )
    state = {}
    for name, value in model.state_dict().items():
        for old, new in renames:
            name = name.replace(old, new)
        state[name] = value
    state["cls.predictions.decoder.bias"] = state["cls.predictions.bias"]
    oracle = transformers.MegatronBertForMaskedLM(config)
    missing, unexpected = oracle.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("position_ids" in name for name in missing)
    return oracle.eval()


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_tanh"])
def test_equals_transformers_megatron_bert(tiny_config, proteins, hidden_act):  # bug 2 in docs/compatibility.md
    model = ProteinBertForMaskedLM(tiny_config(hidden_act=hidden_act)).eval()
    randomize(model)
    oracle = megatron_bert(model)
    for lengths in [(3,), (64,), (5, 17, 64), tuple(range(3, 65, 6))]:
        ids, mask = proteins(*lengths)
        real = mask.bool()
        with torch.no_grad():
            states = model.bert(ids, mask)[0]
            logits = model(ids, mask)[0]
            expected_states = oracle.bert(ids, attention_mask=mask).last_hidden_state
            expected_logits = oracle(ids, attention_mask=mask).logits
        assert (states - expected_states)[real].abs().max() < 1e-5
        assert (logits - expected_logits)[real].abs().max() < 1e-5 * expected_logits.abs().max().clamp(min=1)


def tape_bert(tiny_config, tmp_path, prefix: str = ""):
    """A checkpoint as tape-proteins 0.5 writes it, and ``transformers.BertModel`` with the same weights."""
    transformers = pytest.importorskip("transformers")
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    sizes += ("max_position_embeddings", "type_vocab_size", "layer_norm_eps")
    values = {name: getattr(tiny_config(), name) for name in sizes}
    oracle = transformers.BertModel(transformers.BertConfig(**values)).eval()
    randomize(oracle)
    state = {prefix + name: value for name, value in oracle.state_dict().items() if "position_ids" not in name}
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "config.json").write_text(json.dumps(values))
    return oracle, state


def test_tapes_post_layer_norm_checkpoint_equals_transformers_bert(tiny_config, proteins, tmp_path):
    oracle, state = tape_bert(tiny_config, tmp_path, "bert.")
    state["mlm.bias"] = torch.zeros(30)
    torch.save(state, tmp_path / "pytorch_model.bin")
    model, info = ProteinBertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert model.config.layer_norm_position == "post"
    assert info["missing_keys"] == []
    assert info["unexpected_keys"] == ["mlm.bias"]
    ids, mask = proteins(5, 17, 64)
    with torch.no_grad():
        expected = oracle(ids, attention_mask=mask)
        states, pooled = model(ids, mask)
    assert (states - expected.last_hidden_state)[mask.bool()].abs().max() < 1e-5
    torch.testing.assert_close(pooled, expected.pooler_output)


@pytest.mark.parametrize("inside", [False, True])
def test_load_state_dict_takes_the_names_of_tape(tiny_config, tmp_path, inside):
    _, state = tape_bert(tiny_config, tmp_path, "")
    torch.save(state, tmp_path / "pytorch_model.bin")
    model = ProteinBertModel.from_pretrained(tmp_path)
    other = ProteinBertModel(model.config)
    if inside:
        wrapper = nn.ModuleDict({"encoder": other})
        wrapper.load_state_dict({f"encoder.{name}": value for name, value in state.items()})
    else:
        other.load_state_dict(state)
    assert all(torch.equal(other.state_dict()[name], value) for name, value in model.state_dict().items())


def test_load_state_dict_takes_the_unused_parameters_of_proteinlm(tiny_config):
    model = ProteinBertModel(tiny_config())
    unused = {"bert_tail_dense.weight": torch.ones(32, 32), "bert_tail_dense.bias": torch.ones(32)}
    model.load_state_dict(model.state_dict() | unused)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        model.load_state_dict(model.state_dict() | {"bert_tail_dense2.weight": torch.ones(1)})


@pytest.mark.parametrize(("position", "other"), [("pre", "post"), ("post", "pre")])
def test_load_state_dict_refuses_weights_of_the_other_arrangement(tiny_config, position, other):
    """Without ``strict``, the blocks would keep random weights."""
    model = ProteinBertForMaskedLM(tiny_config(layer_norm_position=position))
    state = ProteinBertForMaskedLM(tiny_config(layer_norm_position=other)).state_dict()
    with pytest.raises(RuntimeError, match=f"are those of a {other}-layer-norm model, but .*='{position}'") as caught:
        model.load_state_dict(state, strict=False)
    assert str(caught.value).count("layer-norm model") == 1


def test_embeddings_are_computed_alone(tiny_config, proteins):
    model = ProteinBertModel(tiny_config(output_hidden_states=True)).eval()
    ids, mask = proteins(9)
    torch.testing.assert_close(model.embeddings(ids), model(ids, mask)[2][0])


def test_tapes_finetuned_checkpoint_keeps_its_heads(tiny_config, proteins, tmp_path):
    """tape-proteins 0.5: heads of 512, one linear map for contacts; config.json states neither."""
    _, encoder = tape_bert(tiny_config, tmp_path, "bert.")
    head = {"weight_v": torch.randn(512, 32), "weight_g": torch.tensor(2.0), "bias": torch.randn(512)}
    last = {"weight_v": torch.randn(1, 512), "weight_g": torch.tensor(1.0), "bias": torch.zeros(1)}
    state = {**encoder, **{f"predict.value_prediction.main.0.{name}": value for name, value in head.items()}}
    torch.save({**state, **{f"predict.value_prediction.main.3.{n}": v for n, v in last.items()}}, tmp_path / "a.bin")
    model, info = ProteinBertForValuePrediction.from_pretrained(tmp_path / "a.bin", output_loading_info=True)
    assert info["missing_keys"] == []
    assert model.config.head_hidden_size == 512
    ids, mask = proteins(5, 17)
    pooled = model.bert(ids, mask)[1]
    hidden = torch.relu(pooled @ (2 * head["weight_v"] / head["weight_v"].norm()).T + head["bias"])
    expected = hidden @ (last["weight_v"] / last["weight_v"].norm()).T
    torch.testing.assert_close(model(ids, mask)[0], expected)
    contact = {"predict.predict.1.weight": torch.randn(2, 64), "predict.predict.1.bias": torch.zeros(2)}
    torch.save({**encoder, **contact}, tmp_path / "b.bin")
    contacts, info = ProteinBertForContactPrediction.from_pretrained(tmp_path / "b.bin", output_loading_info=True)
    assert info["missing_keys"] == []
    assert contacts.config.contact_head == "linear"
    model.save_pretrained(tmp_path / "ours")
    assert torch.equal(
        ProteinBertForValuePrediction.from_pretrained(tmp_path / "ours")(ids, mask)[0], model(ids, mask)[0]
    )


def test_final_layer_norm_acts_and_learns(tiny_config, proteins):  # bug 2 in docs/compatibility.md
    ids, mask = proteins(20)
    model = ProteinBertModel(tiny_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    output = model(ids, mask)[0]
    assert output.std().item() == pytest.approx(1.0, abs=0.1)  # at initialization the residual stream has about 0.05
    output.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.final_ln.parameters())


def test_original_without_final_layer_norm_can_be_had(tiny_config, proteins):
    ids, mask = proteins(20)
    with_norm = ProteinBertModel(tiny_config()).eval()
    without = ProteinBertModel(tiny_config(apply_final_ln=False)).eval()
    without.load_state_dict(with_norm.state_dict())
    torch.testing.assert_close(with_norm.encoder.final_ln(without(ids, mask)[0]), with_norm(ids, mask)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_padding_is_masked_in_every_precision(tiny_config, proteins, dtype):  # bug 3 in docs/compatibility.md
    model = ProteinBertModel(tiny_config()).eval()
    randomize(model)
    model = model.to(dtype)
    ids, mask = proteins(9, width=40)
    disturbed = torch.where(mask.bool(), ids, torch.full_like(ids, 7))
    with torch.no_grad():
        torch.testing.assert_close(model(ids, mask)[0][:, :9], model(disturbed, mask)[0][:, :9], rtol=0, atol=0)
        alone = model(ids[:, :9])[0].float()
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.15, torch.float16: 0.02}[dtype]
    assert (model(ids, mask)[0][:, :9].float() - alone).abs().max() < tolerance


def test_dropout_follows_attention_and_mlp(tiny_config, proteins):  # bug 7 in docs/compatibility.md
    config = tiny_config(hidden_dropout_prob=0.999999, attention_probs_dropout_prob=0.0)
    layer = ProteinBertModel(config).encoder.layer[0].train()
    hidden = torch.randn(1, 10, 32)
    # with everything dropped, both branches vanish and the block is the identity
    torch.testing.assert_close(layer(hidden, None), hidden)


def test_mask_defaults_to_all_real(tiny_config, proteins):
    ids, mask = proteins(12)
    model = ProteinBertModel(tiny_config()).eval()
    sequence_output, pooled_output = model(ids)
    torch.testing.assert_close(sequence_output, model(ids, mask)[0])
    torch.testing.assert_close(pooled_output, sequence_output[:, 0])


def test_packed_row_equals_single_proteins_forward_and_backward(tiny_config, proteins):
    lengths = (3, 40, 17, 41, 5, 5, 64)
    model = ProteinBertForMaskedLM(tiny_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    randomize(model)
    singles = [proteins(length, seed=length + row)[0] for row, length in enumerate(lengths)]
    weights = [torch.randn(1, length, 30, generator=torch.Generator().manual_seed(length)) for length in lengths]
    packed = model(torch.cat(singles, 1), packing=PackedLayout.from_lengths(lengths))[0]
    (packed * torch.cat(weights, 1)).sum().backward()
    packed_gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    outputs = [model(ids)[0] for ids in singles]
    sum((o * w).sum() for o, w in zip(outputs, weights, strict=True)).backward()
    torch.testing.assert_close(packed, torch.cat(outputs, 1), rtol=1e-5, atol=1e-5)
    for got, parameter in zip(packed_gradients, model.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad, rtol=1e-4, atol=1e-4)


def test_packed_pooled_output_is_the_first_token_of_each_protein(tiny_config, proteins):
    model = ProteinBertModel(tiny_config()).eval()
    singles = [proteins(length, seed=length)[0] for length in (7, 12)]
    pooled = model(torch.cat(singles, 1), packing=PackedLayout.from_lengths((7, 12)))[1]
    torch.testing.assert_close(pooled, torch.cat([model(ids)[1] for ids in singles]))


def test_packing_refuses_a_mask_and_empty_proteins(tiny_config, proteins):
    ids, mask = proteins(8)
    with pytest.raises(ConfigError, match="not both"):
        ProteinBertModel(tiny_config())(ids, mask, packing=PackedLayout.from_lengths([8]))
    with pytest.raises(ConfigError, match="at least one token"):
        PackedLayout.from_lengths([4, 0])


def test_blocks_are_recomputed_and_nothing_else_changes(tiny_config, proteins):
    # bug 38 in docs/compatibility.md: activation checkpointing was unreachable, and lacked the final layer norm
    ids, mask = proteins(10, 20)
    model = ProteinBertModel(tiny_config(output_hidden_states=True, output_attentions=True))
    calls, found = [], []
    for number, layer in enumerate(model.encoder.layer):
        layer.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
    for recompute in (False, True):
        model.encoder.checkpoint_activations = recompute
        torch.manual_seed(3)
        model.zero_grad()
        outputs = model(ids, mask)
        assert calls == [0, 1, 2]
        outputs[0].square().sum().backward()
        assert calls == [0, 1, 2, *([2, 1, 0] if recompute else [])]
        calls.clear()
        found.append((outputs, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[0], found[1])


def test_a_contact_model_that_recomputes_gives_the_same_gradients(tiny_config, proteins):
    ids, mask = proteins(10, 20)
    targets = torch.randint(0, 2, (2, 18, 18))
    weights = ProteinBertForContactPrediction(tiny_config(contact_num_blocks=3)).state_dict()
    found = []
    for recompute in (False, True):
        model = ProteinBertForContactPrediction(tiny_config(contact_num_blocks=3, contact_checkpoint=recompute))
        model.load_state_dict(weights)
        kept = 0

        def count(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        torch.manual_seed(3)  # dropout on attention maps, states and pair features
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            (loss, _), _ = model.train()(ids, mask, targets)
        loss.backward()
        found.append((loss.detach(), kept, [p.grad for p in model.parameters() if p.grad is not None]))
    (loss, kept, gradients), (again, fewer, others) = found
    assert fewer < kept / 2
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close(others, gradients)


def test_too_long_a_protein_is_a_clear_error(tiny_config, proteins):
    with pytest.raises(ConfigError, match=r"65 tokens.*64 positions"):
        ProteinBertModel(tiny_config())(proteins(65)[0])


def test_attention_maps_and_states_on_request(tiny_config, proteins):
    ids, mask = proteins(6, 9)
    model = ProteinBertModel(tiny_config(output_attentions=True, output_hidden_states=True)).eval()
    states, _, hidden, maps = model(ids, mask)
    assert len(hidden) == 4
    assert [m.shape for m in maps] == [(2, 4, 9, 9)] * 3
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(2, 4, 9))
    assert maps[0][0, :, :, 6:].abs().max() == 0
    torch.testing.assert_close(hidden[-1], states)


@pytest.mark.parametrize("model_class", TASK_MODELS)
@pytest.mark.parametrize("contact_head", ["linear", "resnet"])
def test_prediction_does_not_depend_on_the_batch(
    tiny_config, proteins, model_class, contact_head
):  # bug 17 in docs/compatibility.md
    if contact_head == "linear" and model_class is not ProteinBertForContactPrediction:
        pytest.skip("only contact prediction has two heads")
    model = model_class(tiny_config(contact_head=contact_head)).eval()
    randomize(model)
    ids, mask = proteins(10, 31, 64)
    with torch.no_grad():
        together = model(ids, mask)[0]
        for row, length in enumerate((10, 31, 64)):
            alone = model(ids[row : row + 1, :length])[0]
            end = alone.shape[1] if alone.dim() > 2 else None
            batched = together[row : row + 1]
            if alone.dim() == 4:
                batched = batched[:, :end, :end]
            elif alone.dim() == 3:
                batched = batched[:, :end]
            torch.testing.assert_close(batched, alone, rtol=1e-4, atol=1e-4 * alone.abs().max().item())


@pytest.mark.parametrize("model_class", TASK_MODELS)
@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_save_and_load_round_trip(tiny_config, proteins, tmp_path, model_class, weights):
    model = model_class(tiny_config()).eval()
    randomize(model)
    model.save_pretrained(tmp_path, weights=weights)
    again = model_class.from_pretrained(tmp_path)
    assert not again.training
    ids, mask = proteins(10, 20)
    torch.testing.assert_close(again(ids, mask)[0], model(ids, mask)[0], rtol=0, atol=0)


def test_encoder_and_task_models_load_each_other(tiny_config, tmp_path):  # bug 4 in docs/compatibility.md
    base = ProteinBertModel(tiny_config())
    randomize(base)
    state = {**base.state_dict(), "bert_tail_dense.weight": torch.ones(32, 32), "bert_tail_dense.bias": torch.ones(32)}
    base.config.save_pretrained(tmp_path)
    torch.save(state, tmp_path / "pytorch_model.bin")
    for loaded in (
        ProteinBertModel.from_pretrained(tmp_path),
        ProteinBertForValuePrediction.from_pretrained(tmp_path).bert,
    ):
        for name, value in base.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value), name
    task = ProteinBertForValuePrediction.from_pretrained(tmp_path)
    task.save_pretrained(tmp_path / "task")
    assert torch.equal(
        ProteinBertModel.from_pretrained(tmp_path / "task").encoder.final_ln.weight, base.encoder.final_ln.weight
    )


def test_a_missing_encoder_weight_is_an_error(tiny_config, tmp_path):  # bug 4 in docs/compatibility.md
    model = ProteinBertForMaskedLM(tiny_config())
    state = dict(model.state_dict())
    del state["bert.encoder.layer.1.attention.self.key.weight"]
    model.config.save_pretrained(tmp_path)
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"layer\.1\.attention\.self\.key\.weight"):
        ProteinBertForMaskedLM.from_pretrained(tmp_path)


def test_a_stale_decoder_never_overwrites_word_embeddings(tiny_config, tmp_path):  # bug 5 in docs/compatibility.md
    model = ProteinBertForMaskedLM(tiny_config())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["mlm.decoder.weight"] = torch.full_like(state["mlm.decoder.weight"], 9.0)
    model.config.save_pretrained(tmp_path)
    torch.save(state, tmp_path / "pytorch_model.bin")
    loaded = ProteinBertForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.bert.embeddings.word_embeddings.weight, state["bert.embeddings.word_embeddings.weight"])
    assert loaded.mlm.decoder.weight is loaded.bert.embeddings.word_embeddings.weight


def test_shape_mismatch_names_file_and_shapes(tiny_config, tmp_path):
    ProteinBertModel(tiny_config()).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"embeddings.*\(30, 32\).*\(29, 32\)"):
        ProteinBertModel.from_pretrained(tmp_path, vocab_size=29)


def test_state_dict_names_are_the_published_ones(tiny_config):
    names = set(ProteinBertForContactPrediction(tiny_config()).state_dict())
    for expected in (
        "bert.embeddings.word_embeddings.weight",
        "bert.encoder.layer.2.attention.self.query.bias",
        "bert.encoder.layer.0.attention.dense.weight",
        "bert.encoder.layer.0.mlp.dense_h_4h.weight",
        "bert.encoder.layer.0.mlp.dense_4h_h.bias",
        "bert.encoder.layer.0.post_attn_ln.weight",
        "bert.encoder.final_ln.bias",
        "predict.predict.1.weight",
        "predict.predict.ResidualBlock1.bn2.running_var",
        "predict.linear.0.bias",
    ):
        assert expected in names
    names = set(ProteinBertForSequenceToSequenceClassification(tiny_config()).state_dict())
    assert {"classify.classify.main.0.running_mean", "classify.classify.main.1.weight_g"} <= names
    assert {"classify.classify.main.4.weight_v"} <= names
    names = set(ProteinBertForMaskedLM(tiny_config()).state_dict())
    assert {"mlm.bias", "mlm.transform.LayerNorm.weight", "mlm.decoder.weight"} <= names


def test_damaged_and_foreign_files_are_refused(tiny_config, tmp_path):
    model = ProteinBertModel(tiny_config())
    model.save_pretrained(tmp_path, weights="pytorch_model.bin")
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        ProteinBertModel.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no such"):
        ProteinBertModel.from_pretrained(tmp_path / "absent")
