"""Amounts of memory: what people write, and what is no amount."""

from __future__ import annotations

import pytest

from routing.units import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("6GiB", 6 << 30),
        ("6144MiB", 6 << 30),
        ("6GB", 6_000_000_000),
        ("6 gb", 6_000_000_000),
        (" 1.5GiB ", 3 << 29),
        ("512Mi", 512 << 20),
        ("2T", 2_000_000_000_000),
        ("4KiB", 4096),
    ],
)
def test_an_amount_is_read(text: str, size: int) -> None:
    """Binary and decimal units, in either case, with or without the B."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "6", "GiB", "6 apples", "-1GiB", "0GiB", "1e3GiB", "6GiBs", "6,5GiB", "٦GiB"]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    """A bare number has no unit to trust; the message shows one that works."""
    with pytest.raises(ValueError, match="such as 6GiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 MiB"),
        (1 << 20, "1.0 MiB"),
        (812 << 20, "812 MiB"),
        (1024 << 20, "1.0 GiB"),
        (5530 << 20, "5.4 GiB"),
    ],
)
def test_an_amount_is_written(size: int, text: str) -> None:
    """In the unit that a reader compares with a card's memory."""
    assert format_size(size) == text
