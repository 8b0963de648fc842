"""Names of uploaded files: words for people and for answers, never paths."""

from __future__ import annotations

import re
import unicodedata

_LONGEST_NAME = 200
_UNSAFE = re.compile(r"""[/\\<>:"'|?*`&$;]""")


def clean_name(text: str) -> str:
    """Return words for people, never a path: what can't be seen is left out, separators and quotes become `_`.

    Control characters, bidirectional overrides and lone surrogates are among what can't be seen.
    """
    kinds = [(one, unicodedata.category(one)[0]) for one in unicodedata.normalize("NFC", text)]
    seen = "".join(" " if kind == "Z" else one for one, kind in kinds if kind != "C")
    return _UNSAFE.sub("_", seen).strip(" .")[:_LONGEST_NAME].strip()


def file_name(sent: str | None) -> str:
    """Return the cleaned last part of a path that a form gives a file; empty where it gives none."""
    return clean_name(re.split(r"[/\\]", sent or "")[-1])
