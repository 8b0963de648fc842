"""Values and options that several commands take."""

from __future__ import annotations

import argparse

_MOST = 86400  # seconds of a day, and more frames a second than there are


def number(text: str) -> float:
    """Read a number; argparse would call a word that is none an invalid value of the function's name."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def positive(text: str) -> float:
    """Read a number above 0."""
    value = number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
    if value > _MOST:
        raise argparse.ArgumentTypeError(f"{text} is greater than {_MOST}")
    return value


def not_negative(text: str) -> float:
    """Read 0 or a number above it."""
    return 0.0 if text.strip("0.") == "" else positive(text)


def unit(text: str) -> float:
    """Read a number from 0 to 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def count(text: str) -> int:
    """Read a whole number from 1."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def add_fit(parser: argparse.ArgumentParser) -> None:
    """Add the option for what a square shows of a picture."""
    parser.add_argument(
        "--fit",
        choices=("crop", "stretch"),
        help="crop the middle of the picture, or stretch all of it (default crop)",
    )
