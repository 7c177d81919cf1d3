"""TAPE's maps from the names of published models to the addresses of their files, from :mod:`tape.hub.cache`."""

from __future__ import annotations

from tape.hub.cache import TRANSFORMERS, TRROSETTAS, UNIREPS, PublishedModel


def _weights(models: dict[str, PublishedModel]) -> dict[str, str]:
    return {name: model.weights for name, model in models.items()}


def _configs(models: dict[str, PublishedModel]) -> dict[str, str]:
    return {name: model.config for name, model in models.items()}


BERT_PRETRAINED_MODEL_ARCHIVE_MAP = _weights(TRANSFORMERS)
BERT_PRETRAINED_CONFIG_ARCHIVE_MAP = _configs(TRANSFORMERS)
UNIREP_PRETRAINED_MODEL_ARCHIVE_MAP = _weights(UNIREPS)
UNIREP_PRETRAINED_CONFIG_ARCHIVE_MAP = _configs(UNIREPS)
TRROSETTA_PRETRAINED_MODEL_ARCHIVE_MAP = _weights(TRROSETTAS)
TRROSETTA_PRETRAINED_CONFIG_ARCHIVE_MAP = _configs(TRROSETTAS)
# none were published
LSTM_PRETRAINED_MODEL_ARCHIVE_MAP: dict[str, str] = {}
LSTM_PRETRAINED_CONFIG_ARCHIVE_MAP: dict[str, str] = {}
RESNET_PRETRAINED_MODEL_ARCHIVE_MAP: dict[str, str] = {}
RESNET_PRETRAINED_CONFIG_ARCHIVE_MAP: dict[str, str] = {}

URL_PREFIX = BERT_PRETRAINED_MODEL_ARCHIVE_MAP["bert-base"].rpartition("/")[0] + "/"
