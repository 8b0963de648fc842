"""Profiles from YAML or JSON.

Files of the operator may use `${VAR}` and prompt files; profiles of callers may use neither.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from app.documents import clipped, is_text, read_json, read_json_or_yaml
from app.errors import InvalidParameter
from app.videos.profile import ComponentKind, Profile, profile_type

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MAX_BYTES = 1 << 17  # of a caller's profile: PyYAML reads about 100 kB per second
MAX_PROMPTS = 1000  # in all sets together; the service passes its GATEWAY_MAX_PROMPTS instead
SUFFIXES = (".yaml", ".yml")
_OTHER_VALUES = 4000  # values of a profile that are no prompts, the names of classes among them
_MOST_FAULTS = 10
_LONGEST_FILE = 64 << 20  # characters; prompts of a command have no other limit


class ProfileReader:
    """Reads profiles of the components that there are.

    Args:
        kinds: the components, see `app.videos.profile.profile_type`.
    """

    def __init__(self, kinds: Iterable[ComponentKind]) -> None:
        kinds = tuple(kinds)
        self._adapter = TypeAdapter(profile_type(kinds))
        self._with_prompts = tuple(
            kind.name for kind in kinds if any(entry.name == "prompts" for entry in fields(kind.Config))
        )

    def load(self, path: Path, environment: Mapping[str, str], max_prompts: int = MAX_PROMPTS) -> Profile:
        """A profile file: `${VAR}` and `${VAR:-default}` expanded in its values, prompt files read from beside it.

        Raises:
            InvalidParameter: it can't be read, or is no profile; the message names the file, the place and the fault.
        """
        try:
            text = _read(path)
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidParameter(f"the profile {path} can't be read: {error}") from error
        with _named(path.name):
            document = _expanded(_document(text, max_prompts), environment)
            _read_prompts(self._prompt_sets(document), path)
            return self._profile(document, path.stem, max_prompts)

    def parse(self, text: str, max_prompts: int = MAX_PROMPTS) -> Profile:
        """A profile that a caller sent; it reads neither the environment nor files.

        Raises:
            InvalidParameter: it is no profile, has too many prompts, or refers to the environment or to a file.
        """
        if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            raise InvalidParameter(f"the profile has more than {MAX_BYTES} bytes")
        with _named("profile"):
            document = _document(text, max_prompts)
            _refuse_references(document, self._prompt_sets(document))
            return self._profile(document, "inline", max_prompts)

    def restored(self, text: str) -> Profile:
        """A profile from the JSON of `Profile.to_dict`.

        Raises:
            InvalidParameter: it is damaged, or another version wrote it.
        """
        with _named("profile.json"):
            most = len(text)  # how much there may be was decided when it came
            return self._profile(_mapping(read_json(text, most)), "stored", most)

    def named(
        self, folder: Path | None, name: str, environment: Mapping[str, str], max_prompts: int = MAX_PROMPTS
    ) -> Profile:
        """A profile of the operator by its name (the file's, without suffix).

        Raises:
            InvalidParameter: there is none of this name, or it is broken.
        """
        known = names(folder)
        if not _PLAIN_NAME.fullmatch(name) or name not in known or folder is None:
            raise InvalidParameter(f"no profile {name[:100]!r}; there are {', '.join(known) or 'none'}")
        return self.load(known[name], environment, max_prompts)

    def _profile(self, document: dict[str, Any], name: str, max_prompts: int) -> Profile:
        try:
            profile = self._adapter.validate_python({"name": name, **document})
        except ValidationError as error:
            raise InvalidParameter(_faults(error)) from error
        check_prompts(profile, max_prompts)
        return profile

    def _prompt_sets(self, document: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The `prompts` mappings of the document; those that are malformed are left to the check of the whole."""
        components = document.get("components")
        asked = components if isinstance(components, dict) else {}
        found = [asked.get(name) for name in self._with_prompts]
        sets = [component.get("prompts") for component in found if isinstance(component, dict)]
        return [prompts for prompts in sets if isinstance(prompts, dict)]


def _read(path: Path) -> str:
    """Return the text of a file.

    Raises:
        OSError: it can't be read, or is longer than any profile, as a device without an end is.
        UnicodeDecodeError: it is no UTF-8.
    """
    with path.open(encoding="utf-8-sig") as file:
        text = file.read(_LONGEST_FILE + 1)
    if len(text) > _LONGEST_FILE:
        raise OSError(errno.EFBIG, f"it has more than {_LONGEST_FILE} characters")
    return text


def check_prompts(profile: Profile, most: int) -> None:
    """Count the prompts of all sets together.

    Raises:
        InvalidParameter: there are more than `most`.
    """
    sets = [getattr(config, "prompts", {}) for _, config in profile.components.given()]
    count = sum(len(prompts) for named in sets for prompts in named.values())
    if count > most:
        raise InvalidParameter(f"{count} prompts; the limit is {most}")


def names(folder: Path | None) -> dict[str, Path]:
    """The profiles of a folder: name -> file."""
    if folder is None or not folder.is_dir():
        return {}
    return {
        path.stem: path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES and path.is_file()
    }


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    """Put the name of the document before what is wrong with it."""
    try:
        yield
    except InvalidParameter as error:
        raise InvalidParameter(f"{where}: {error.detail}") from error


def _document(text: str, max_prompts: int) -> dict[str, Any]:
    return _mapping(read_json_or_yaml(text, max_prompts + _OTHER_VALUES))


def _mapping(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise InvalidParameter("a profile is a mapping of keys to values")
    return document


def _faults(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if any("TrackingRule" in fault["loc"] and fault["type"] != "dataclass_type" for fault in faults):
        faults = [fault for fault in faults if fault["loc"][-1] != "bool"]  # a rule was meant, no switch
    words = [_fault(fault) for fault in faults[:_MOST_FAULTS]]
    more = len(faults) - len(words)
    return "; ".join([*words, f"and {more} more"] if more else words)


def _fault(fault: Any) -> str:
    place = ".".join(clipped(str(part)) for part in fault["loc"] if part not in ("TrackingRule", "bool"))
    words = {"unexpected_keyword_argument": "unknown key", "missing": "is missing"}
    said = words.get(fault["type"], clipped(fault["msg"].removeprefix("Value error, "), 200))
    return f"{place or 'profile'}: {said}"


def _expanded(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, environment) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match.groups()
        if name not in environment and default is None:
            raise InvalidParameter(f"the environment has no {name}, and ${{{name}}} names no default")
        found = environment.get(name) or default or ""
        if not is_text(found):
            raise InvalidParameter(f"the variable {name} is not UTF-8")
        return found

    return _VARIABLE.sub(replace, value)


def _read_prompts(sets: Iterable[dict[str, Any]], path: Path) -> None:
    """Put the prompts of a file in place of its name: one per line, `#` begins a comment line."""
    for prompts in sets:
        for name, source in prompts.items():
            if not isinstance(source, str):
                continue
            try:
                lines = _read(path.parent / source).splitlines()
            except (OSError, ValueError) as error:  # ValueError: not UTF-8, or no path
                raise InvalidParameter(f"prompts {name}: {source} can't be read: {error}") from error
            prompts[name] = [
                line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")
            ]


def _refuse_references(document: Mapping[str, Any], sets: Iterable[Mapping[str, Any]]) -> None:
    if any(isinstance(source, str) for prompts in sets for source in prompts.values()):
        raise InvalidParameter("prompts are lists here; files are read from the operator's profiles only")
    if _VARIABLE.search(str(document)):
        raise InvalidParameter("${…} is expanded in the operator's profiles only")
