"""Configuration of encoders of ``transformers``: their own one, and the ids of TAPE's tokens in them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from tape.configs import EncoderConfig
from tape.errors import ConfigError, quoted
from tape.io.json_files import read_json_object
from tape.tokenizers import IUPAC_VOCAB

from .huggingface_tokens import import_transformers, read_token_ids
from .meta_device import on_meta_device

# Settings of the program that wrote config.json, not of the model. Weights are loaded as fp32; code is never loaded.
_NOT_KEPT = (
    "_attn_implementation",
    "_name_or_path",
    "attn_implementation",
    "auto_map",
    "dtype",
    "output_attentions",
    "output_hidden_states",
    "torch_dtype",
    "transformers_version",
)

# What the classes of transformers raise for values that they can't use.
_INVALID = (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError)


class HuggingFaceConfig(EncoderConfig):
    """Configuration of an encoder of ``transformers`` with TAPE's heads.

    Args:
        encoder: content of the ``config.json`` that ``transformers`` wrote.
        token_ids: token of TAPE's ``iupac`` vocabulary -> id in the encoder, see
            :func:`tape.models.huggingface_tokens.read_token_ids`.
        hidden_size: size of the encoder's states.
        max_position_embeddings: largest number of tokens with ``<cls>`` and ``<sep>``; None if there is no limit, as
            with rotary embeddings.
        vocab_size: number of TAPE's tokens.

    Raises:
        ConfigError: a value is missing or invalid.
    """

    tape_vocabulary = "iupac"  # of the input ids, for any encoder
    settings_beside_weights = ("encoder", "token_ids", *EncoderConfig.settings_beside_weights)

    def __init__(
        self,
        encoder: Mapping[str, Any] | None = None,
        token_ids: Mapping[str, int] | None = None,
        hidden_size: int = 0,
        max_position_embeddings: int | None = None,
        vocab_size: int = len(IUPAC_VOCAB),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(encoder, Mapping) or not isinstance(token_ids, Mapping):
            raise ConfigError(
                "the model type huggingface has no default architecture: give --from_pretrained a directory that"
                " transformers' save_pretrained has written (config.json with model_type, weights and tokenizer)"
            )
        self.encoder = dict(encoder)
        self.token_ids = dict(token_ids)
        self.hidden_size = hidden_size
        if max_position_embeddings is not None:
            self.max_position_embeddings = max_position_embeddings
        self.vocab_size = vocab_size
        self._check()

    def _check(self) -> None:
        super()._check()
        if self.vocab_size != len(IUPAC_VOCAB):
            raise ConfigError(f"vocab_size must be {len(IUPAC_VOCAB)}, the tokens of TAPE, not {self.vocab_size}")
        unknown = [token for token in IUPAC_VOCAB if token not in self.token_ids and token != "<mask>"]
        if unknown:
            raise ConfigError(f"token_ids has no {', '.join(unknown)}")
        for token, index in self.token_ids.items():
            if not isinstance(index, int) or isinstance(index, bool) or index < 0:
                raise ConfigError(f"token_ids has {quoted(index)} as the id of {quoted(token)}")

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]) -> HuggingFaceConfig:
        """Read a ``config.json`` of this class, or one of ``transformers`` beside the files of its tokenizer.

        Raises:
            CheckpointError: the file is missing or not a JSON object, or the tokenizer can't be used.
            ConfigError: a value is invalid, the architecture is not supported, or ``transformers`` is not installed.
        """
        path = Path(path)
        values = read_json_object(path)
        if not is_of_transformers(values):
            return super().from_json_file(path)
        try:
            values = {name: value for name, value in values.items() if name not in _NOT_KEPT}
            theirs = transformers_config(values)
            with on_meta_device():
                encoder = build_encoder(theirs)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        return cls(values, read_token_ids(path.parent), theirs.hidden_size, position_limit(encoder))


def is_of_transformers(values: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` was written by ``transformers``."""
    return "model_type" in values


def transformers_config(values: Mapping[str, Any]) -> Any:
    """The configuration object of ``transformers`` for the content of its ``config.json``.

    Raises:
        ConfigError: ``transformers`` has no such encoder, or a value is invalid.
    """
    transformers = import_transformers()
    kind = values.get("model_type")
    encoders = transformers.models.auto.modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if kind not in encoders:
        raise ConfigError(
            f"model_type {quoted(kind)} is not an encoder of transformers {transformers.__version__} with a masked"
            " language model, such as bert, esm and megatron-bert"
        )
    try:
        config = transformers.CONFIG_MAPPING[kind].from_dict(dict(values))
    except Exception as error:  # transformers 5 checks types, with errors that derive from Exception alone
        raise ConfigError(f"transformers refuses its values for {kind} ({quoted(error)})") from error
    # in transformers 5, only configurations of models that can be decoders have these
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False):
        raise ConfigError(f"{kind} is a decoder or has one here; only encoders are supported")
    return config


def build_encoder(config: Any, attentions: bool = False) -> Any:
    """The encoder of ``transformers`` with random weights, without parts that its states do not depend on.

    Args:
        config: of :func:`transformers_config`.
        attentions: whether it has to return attention maps, which not every implementation of attention does.

    Raises:
        ConfigError: a value of the configuration is invalid.
    """
    return without_unused_parts(_build(import_transformers().AutoModel, config, attentions))


def build_masked_lm(config: Any, attentions: bool = False) -> Any:
    """The masked language model of ``transformers`` with random weights; arguments as of :func:`build_encoder`."""
    return _build(import_transformers().AutoModelForMaskedLM, config, attentions)


def _build(factory: Any, config: Any, attentions: bool) -> Any:
    options = {"attn_implementation": "eager"} if attentions else {}
    try:
        with _errors_only():
            return factory.from_config(config, trust_remote_code=False, **options)
    except _INVALID as error:
        raise ConfigError(f"transformers can't build an encoder {config.model_type} of it ({quoted(error)})") from error


@contextmanager
def _errors_only() -> Iterator[None]:
    """Without log lines of ``transformers`` that are for its developers, such as on ``GenerationMixin``."""
    levels = import_transformers().logging
    before = levels.get_verbosity()
    levels.set_verbosity_error()
    try:
        yield
    finally:
        levels.set_verbosity(before)


def without_unused_parts(encoder: Any) -> Any:
    """Remove an encoder's pooler, most of which were never trained, and ESM's regression of contacts; in place."""
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    if hasattr(encoder, "contact_head"):
        del encoder.contact_head
    for module in encoder.modules():
        if "inv_freq" in dict(module.named_buffers(recurse=False)):  # computed; some files have it, others don't
            module.register_buffer("inv_freq", module.inv_freq, persistent=False)
    return encoder


def position_limit(encoder: nn.Module) -> int | None:
    """Tokens that a position table has rows for; None without one. RoBERTa and ESM-1b start after the padding's row."""
    for name, module in encoder.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None
