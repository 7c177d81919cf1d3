"""Hang detection: heartbeats of all ranks, and a diagnosis that names the rank and what it was doing."""

from .watchdog import LostRankError, watched

__all__ = ["LostRankError", "watched"]
