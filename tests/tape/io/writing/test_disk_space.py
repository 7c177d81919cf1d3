"""Free space, and numbers of bytes for people."""

from __future__ import annotations

import pytest

from tape.io.writing import describe_space, format_bytes
from tests.support.small_disk import mounted_tmpfs


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.00 kB"), (2_470_000_000, "2.47 GB"), (5 * 10**15, "5000.00 TB")],
)
def test_bytes_are_stated_in_decimal_units(number: int, text: str) -> None:
    assert format_bytes(number) == text


def test_the_space_of_a_directory_that_does_not_exist_yet_is_that_of_its_disk() -> None:
    with mounted_tmpfs("size=64k") as disk:
        assert describe_space(disk / "new" / "deep", 2_000_000) == "2.00 MB are needed, 65.54 kB are free"
