"""Shapes of the parameters of tape-proteins 0.5's transformer, the BERT of Devlin et al. 2018."""

from __future__ import annotations

from tape.configs import ProteinBertConfig


def parameter_shapes(config: ProteinBertConfig, has_head: bool, has_pooler: bool) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter by its name there."""
    hidden, wide, vocabulary = config.hidden_size, config.intermediate_size, config.vocab_size
    shapes: dict[str, tuple[int, ...]] = {}

    def dense(name: str, rows: int, columns: int) -> None:
        shapes.update({f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)})

    def norm(name: str) -> None:
        shapes.update({f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)})

    tables = {"word": vocabulary, "position": config.max_position_embeddings, "token_type": config.type_vocab_size}
    shapes |= {f"bert.embeddings.{name}_embeddings.weight": (rows, hidden) for name, rows in tables.items()}
    norm("bert.embeddings.LayerNorm")
    for number in range(config.num_hidden_layers):
        layer = f"bert.encoder.layer.{number}."
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            dense(f"{layer}attention.{part}", hidden, hidden)
        dense(layer + "intermediate.dense", wide, hidden)
        dense(layer + "output.dense", hidden, wide)
        norm(layer + "attention.output.LayerNorm")
        norm(layer + "output.LayerNorm")
    if has_pooler:
        dense("bert.pooler.dense", hidden, hidden)
    if has_head:
        dense("mlm.transform.dense", hidden, hidden)
        norm("mlm.transform.LayerNorm")
        shapes |= {"mlm.bias": (vocabulary,), "mlm.decoder.weight": (vocabulary, hidden)}
    return shapes
