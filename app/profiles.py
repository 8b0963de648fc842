"""Profiles from YAML: files of the operator's, with `${VAR}` and prompt files; forms of a caller's, without either."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from app.errors import InvalidParameter
from app.pipelines.profile import Profile

_ADAPTER = TypeAdapter(Profile)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MAX_BYTES = 1 << 17  # of a caller's: PyYAML reads about 100 kB a second
SUFFIXES = (".yaml", ".yml")


class _Plain(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types here
    """YAML without aliases: a caller's few lines of them unfold into gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) can't be used here; write out what they stand for")
        return super().compose_node(parent, index)


def load(path: Path, environment: Mapping[str, str]) -> Profile:
    """A profile file: `${VAR}` and `${VAR:-default}` expanded in its values, prompt files read from beside it.

    Raises:
        InvalidParameter: it can't be read, or is no profile; the message names the file, the place and the fault.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"the profile {path} can't be read: {error}") from error
    document = _expanded(_document(text, path.name), environment, path.name)
    _read_prompts(document, path)
    return _profile(document, path.name, path.stem)


def parse(text: str) -> Profile:
    """A profile that a caller sent: it stands for itself, and reads neither the environment nor files.

    Raises:
        InvalidParameter: it is no profile, or wants the environment or a file.
    """
    if len(text.encode("utf-8")) > MAX_BYTES:
        raise InvalidParameter(f"the profile has more than {MAX_BYTES} bytes")
    document = _document(text, "profile", _Plain)
    _refuse_references(document)
    return _profile(document, "profile", "inline")


def restored(text: str) -> Profile:
    """A profile from the JSON of `Profile.to_dict`.

    Raises:
        InvalidParameter: it is damaged, or another version wrote it.
    """
    return _profile(_document(text, "profile.json"), "profile.json", "stored")


def named(folder: Path | None, name: str, environment: Mapping[str, str]) -> Profile:
    """A profile of the operator's by its name (the file's, without suffix).

    Raises:
        InvalidParameter: there is none of this name, or it is broken.
    """
    known = names(folder)
    if not _PLAIN_NAME.fullmatch(name) or name not in known or folder is None:
        raise InvalidParameter(f"no profile {name[:100]!r}; there are {', '.join(known) or 'none'}")
    return load(known[name], environment)


def names(folder: Path | None) -> dict[str, Path]:
    """The profiles of a folder: name -> file."""
    if folder is None or not folder.is_dir():
        return {}
    return {
        path.stem: path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES and path.is_file()
    }


def _document(text: str, where: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> dict[str, Any]:
    try:
        document = yaml.load(text, Loader=loader)  # noqa: S506  # both are safe loaders
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # ValueError: a date or number beyond Python's
        raise InvalidParameter(f"{where}: no YAML: {error}") from error
    if not isinstance(document, dict):
        raise InvalidParameter(f"{where}: a profile is a mapping of keys to values")
    return document


def _profile(document: dict[str, Any], where: str, name: str) -> Profile:
    try:
        return _ADAPTER.validate_python({"name": name, **document})
    except ValidationError as error:
        raise InvalidParameter(f"{where}: {'; '.join(_fault(fault) for fault in error.errors())}") from error


def _fault(fault: Any) -> str:
    place = ".".join(str(part) for part in fault["loc"] if part not in ("TrackingRule", "bool"))
    words = {"unexpected_keyword_argument": "unknown key", "missing": "is missing"}
    return f"{place or 'profile'}: {words.get(fault['type'], fault['msg'].removeprefix('Value error, '))}"


def _expanded(value: Any, environment: Mapping[str, str], where: str) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item, environment, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, environment, where) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match.groups()
        if name not in environment and default is None:
            raise InvalidParameter(
                f"{where}: the environment has no {name}, and ${{{name}}} names no default"
            )
        return environment.get(name) or default or ""

    return _VARIABLE.sub(replace, value)


def _prompt_sets(document: Mapping[str, Any]) -> dict[str, Any]:
    """The `prompts` mapping of the document, empty where there is none or the document is malformed there."""
    place: Any = document
    for key in ("components", "core_clip", "prompts"):
        place = place.get(key) if isinstance(place, dict) else None
    return place if isinstance(place, dict) else {}


def _read_prompts(document: Mapping[str, Any], path: Path) -> None:
    """Put the prompts of a file in place of its name: one a line, `#` begins a comment line."""
    sets = _prompt_sets(document)
    for name, source in sets.items():
        if not isinstance(source, str):
            continue
        try:
            lines = (path.parent / source).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidParameter(f"{path.name}: prompts {name}: {source} can't be read: {error}") from error
        sets[name] = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _refuse_references(document: Mapping[str, Any]) -> None:
    if any(isinstance(source, str) for source in _prompt_sets(document).values()):
        raise InvalidParameter(
            "profile: prompts are lists here; files are read from the operator's profiles only"
        )
    if _VARIABLE.search(str(document)):
        raise InvalidParameter("profile: ${…} is expanded in the operator's profiles only")
