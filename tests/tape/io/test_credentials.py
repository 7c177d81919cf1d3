"""Addresses without credentials."""

from __future__ import annotations

import pytest

from tape.io.credentials import without_credentials


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://host/a/b", "https://host/a/b"),
        ("https://me:secret@host:8080/a@b", "https://host:8080/a@b"),
        ("http://me@host/a", "http://host/a"),
        ("https://host/a?X-Amz-Signature=secret&x=1", "https://host/a?..."),
        ("cp http://a:secret@h/x 'http://b:secret@h/y?k=secret' z", "cp http://h/x 'http://h/y?...' z"),
        ("/data/me@host/x?y", "/data/me@host/x?y"),
    ],
)
def test_credentials_are_removed(text: str, expected: str) -> None:
    assert without_credentials(text) == expected
