"""Worker of transformers, run in the environment of the peers with a folder as its argument."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from .inputs import PROTEINS, SIZES, read_inputs, write_outputs

_ESM = ("<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYCMHWXBUZO.-", "<null_1>", "<mask>")
_PROTBERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"LAGVESIKRDTPNQFYMHCWXUBZO")
_TAPE = ("<pad>", "<mask>", "<cls>", "<sep>", "<unk>", *"ABCDEFGHIKLMNOPQRSTUVWXYZ")


def random_model(config: Any) -> Any:
    """A masked language model with noise in all parameters, so that no two are equal."""
    torch.manual_seed(0)
    model = transformers.AutoModelForMaskedLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


@torch.no_grad()
def logits(model: Any, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    result: np.ndarray = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits.numpy()
    return result


def tokenized(folder: Path, spaced: bool) -> tuple[np.ndarray, np.ndarray]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [" ".join(sequence) if spaced else sequence for sequence in PROTEINS.values()]
    batch = tokenizer(texts, padding=True, return_tensors="np")
    return batch["input_ids"].astype(np.int64), batch["attention_mask"].astype(np.int64)


def save(folder: Path, model: Any, tokens: tuple[str, ...], tokenizer: str | None) -> None:
    """Save a model and its vocabulary, as the published ones are."""
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    if tokenizer is not None:
        settings = {"tokenizer_class": tokenizer, "do_lower_case": False}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def main(folder: Path) -> None:
    ids, mask = read_inputs(folder, "iupac")
    outputs: dict[str, np.ndarray] = {}
    for position in ("pre", "post"):
        place = folder / f"hf_{position}"
        model = transformers.AutoModelForMaskedLM.from_pretrained(place).eval()
        own, own_mask = tokenized(place, spaced=False)
        outputs[f"hf_{position}"], outputs["tokens"] = logits(model, own, own_mask), own
    for kind in ("Bert", "MegatronBert"):
        model = random_model(getattr(transformers, f"{kind}Config")(vocab_size=len(_TAPE), pad_token_id=0, **SIZES))
        save(folder / "theirs" / f"{kind}ForMaskedLM", model, _TAPE, None)
        outputs[f"{kind}ForMaskedLM"] = logits(model, ids, mask)
    esm = transformers.EsmConfig(
        vocab_size=len(_ESM),
        pad_token_id=1,
        mask_token_id=len(_ESM) - 1,
        position_embedding_type="rotary",
        token_dropout=True,
        **SIZES,
    )
    protbert = transformers.BertConfig(vocab_size=len(_PROTBERT), pad_token_id=0, **SIZES)
    for name, config, tokens, tokenizer in (
        ("EsmForMaskedLM", esm, _ESM, "EsmTokenizer"),
        ("ProtBert", protbert, _PROTBERT, "BertTokenizer"),
    ):
        place, model = folder / "theirs" / name, random_model(config)
        save(place, model, tokens, tokenizer)
        outputs[name] = logits(model, *tokenized(place, spaced=name == "ProtBert"))
    write_outputs(folder, outputs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
