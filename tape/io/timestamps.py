"""The time that records and tables state."""

from __future__ import annotations

from datetime import datetime, timezone


def utc_now() -> str:
    """The present time in UTC, in ISO 8601 with seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
