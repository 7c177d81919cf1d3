"""Name and version of ``metrics.jsonl``, apart from :mod:`.metrics_logger`, which writes it and imports torch."""

from __future__ import annotations

METRICS_NAME = "metrics.jsonl"
SCHEMA, VERSION = "proteinlm-metrics", 2
# The fields that differ between two runs of the same computation; all others are equal, bit for bit.
TIMING_FIELDS = frozenset({"seconds", "tokens_per_second", "utilisation", "memory_bytes", "seconds_left"})
