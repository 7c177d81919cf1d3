"""benchmarks/attention_distance.py on models whose attention is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.attention_distance import attention_of_blocks, main, restore_initial
from tape import ProteinBertConfig, ProteinBertModel
from tape.errors import ConfigError, DataError

LENGTH = 42


def build(**options: object) -> ProteinBertModel:
    torch.manual_seed(1)
    config = ProteinBertConfig(
        vocab_size=30,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        output_attentions=True,
        output_hidden_states=True,
        **options,
    )
    return ProteinBertModel(config).eval()


def protein() -> torch.Tensor:
    return torch.randint(5, 25, (LENGTH,), generator=torch.Generator().manual_seed(3))


def test_attention_to_all_residues_equally_is_shared_by_their_number() -> None:
    model = build()
    for name, parameter in model.named_parameters():
        if "query" in name:
            torch.nn.init.zeros_(parameter)
    (block, *_) = attention_of_blocks(model, [protein()], within=2)
    near = sum(min(place + 2, LENGTH - 1) - max(place - 2, 0) + 1 for place in range(LENGTH))
    assert block.within == pytest.approx([near / LENGTH**2] * 4)


def test_an_initial_attention_to_neighbors_is_found_in_all_blocks() -> None:
    blocks = attention_of_blocks(build(initial_attention="neighbours", initializer_range=0.03), [protein()], within=8)
    assert len(blocks) == 3
    assert min(min(block.within) for block in blocks) > 0.9


def test_the_stream_and_its_positions_have_their_root_mean_square() -> None:
    model, ids = build(), protein()
    with torch.no_grad():
        model.embeddings.position_embeddings.weight.fill_(0.25)
        first, *_ = attention_of_blocks(model, [ids, ids], within=1)
        stream = model.embeddings(ids[None])
    assert first.position == pytest.approx(0.25)
    assert first.stream == pytest.approx(stream.square().mean().sqrt().item(), rel=1e-5)


def test_initial_attention_is_restored_after_the_first_block_only() -> None:
    options = {"initial_attention": "neighbours", "initializer_range": 0.03}
    model = build(**options)
    with torch.no_grad():
        for parameter in model.parameters():  # as training may leave it
            parameter.add_(torch.randn_like(parameter))
    before, trained = attention_of_blocks(model, [protein()], within=8), dict(model.state_dict())
    trained = {name: value.clone() for name, value in trained.items()}
    restore_initial(model, 1e-3, seed=5)
    after = attention_of_blocks(model, [protein()], within=8)
    assert after[0].within == before[0].within
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, trained[name])}
    assert {name.split(".")[2] for name in changed if "query" in name} == {"1", "2"}
    assert after[2].stream < before[2].stream  # of which the outputs were a part
    assert not any(name.startswith(("embeddings.", "pooler.", "encoder.final_ln.")) for name in changed)


def test_a_table_a_record_and_a_model_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build().save_pretrained(tmp_path / "model")
    sequences = ["MKTAYIAKQR", "GCTVEDRCLIGMGA" * 2, "MK" * 14]
    fasta = tmp_path / "x.fasta"
    fasta.write_text("".join(f">p{number}\n{sequence}\n" for number, sequence in enumerate(sequences)))
    words = [str(fasta), str(tmp_path / "model"), "--lengths", "20", "30", "--number", "2", "--within", "3"]
    main([*words, "--restore-initial", str(tmp_path / "out"), "--json", str(tmp_path / "r.json")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == ["1", "2", "3"] * 2
    record = json.loads((tmp_path / "r.json").read_text())
    assert [Path(result["model"]).name for result in record["results"]] == ["model", "out"]
    assert (tmp_path / "out" / "config.json").is_file()
    with pytest.raises(DataError, match="2 proteins of 20 to 30 residues; 3 are needed"):
        main([*words, "--number", "3"])


def test_contradictions_are_refused(tmp_path: Path) -> None:
    for words, message in [
        (["m", "--residual-multiplier", "0.1"], "needs --restore-initial"),
        (["m", "n", "--restore-initial", "o"], "takes one MODEL"),
        (["m", "--number", "0"], "at least 1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            main([str(tmp_path / "x.fasta"), *words])
