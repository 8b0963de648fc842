"""Location of this program's own files: a checkout of the repository, or an installed wheel (docs/install.md)."""

from __future__ import annotations

from pathlib import Path

_CODE = Path(__file__).resolve().parents[1]
NAME = "triton-vision-gateway"
INSTALLED = _CODE.name == "_code"
"""True in an installed wheel: there are no tests, benchmarks, dashboards or Makefile beside the code."""
_DATA = _CODE.with_name("_data") if INSTALLED else _CODE
CHECKOUT_MODELS = None if INSTALLED else _CODE / "triton" / "models"
"""Where `make run` builds; there is no such folder in an installed wheel."""
PROFILES = _DATA / "profiles"
PICTURE = _DATA / "docs" / "astronaut.jpg"


def package(extra: str) -> str:
    """Return the argument of `pip install` for an extra of this project."""
    return f"'{NAME}[{extra}]'" if INSTALLED else f"'.[{extra}]'"


def how_to_build() -> str:
    """The command that builds models here."""
    return "gateway up" if INSTALLED else "make models"


def needs_checkout(command: str, script: str) -> str:
    """One line for a command whose script isn't part of the wheel."""
    return f"{command} needs a checkout of the repository: {script} isn't part of the installed package"


def models() -> Path:
    """The folder in which `gateway up` keeps what it builds: `repository/` of it is a Triton model repository."""
    from platformdirs import user_cache_path  # noqa: PLC0415  # an extra: starter

    return user_cache_path(NAME, appauthor=False) / "models"


def videos() -> Path:
    """The folder in which `gateway up` keeps video jobs and their artefacts."""
    from platformdirs import user_data_path  # noqa: PLC0415  # as above

    return user_data_path(NAME, appauthor=False) / "videos"
