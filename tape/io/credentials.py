"""Addresses as they may be shown and stored: without user names, passwords and signatures.

``https://USER:PASSWORD@HOST/PATH`` is a form that private servers of models use, and the query of a presigned address
of S3 is as good as a password. Messages, logs and records have the address without both.
"""

from __future__ import annotations

import re

_USER = re.compile(r"(?<=://)[^/\s\"'?#]*@")
_QUERY = re.compile(r"(\w://[^\s\"'?]*)\?[^\s\"'#)]+")


def without_user(address: str) -> str:
    """An address without user name and password."""
    return _USER.sub("", address)


def without_credentials(text: str) -> str:
    """An address, or a text with addresses, without user names, passwords and the values of queries."""
    return _QUERY.sub(r"\1?...", without_user(text))
