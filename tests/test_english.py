"""Rules of the project's English that a program can check (docstring openings, words that have a plainer form)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from support.paths import ROOT

FOLDERS = (
    "app", "routing", "export", "benchmarks", "deploy", "docs", "tests", "client/src", "client/tests",
)  # fmt: skip
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "deploy").rglob("*.md"),
        ROOT / "client" / "README.md",
    ]
)
# A docstring begins with a verb or a noun phrase.
OPENING = re.compile(r"(what|who|whom|whose|whether|how|of|where|which|why)\b", re.IGNORECASE)
WORDS = re.compile(r"\banew\b", re.IGNORECASE)


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield line number and text of every docstring."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_docstrings_open_with_a_verb_or_a_noun() -> None:
    """No docstring opens with a question word or with "of"."""
    assert [
        f"{named(path)}:{line}: {text.splitlines()[0]}"
        for path in SOURCES
        for line, text in docstrings(path.read_text(encoding="utf-8"))
        if OPENING.match(text.lstrip("`"))
    ] == []


def test_rare_words_have_their_plain_form() -> None:
    """Files say "again", never its rare synonym."""
    texts = {path: path.read_text(encoding="utf-8") for path in (*SOURCES, *DOCUMENTS)}
    del texts[Path(__file__)]
    assert [named(path) for path, text in texts.items() if WORDS.search(text)] == []


def test_a_bad_opening_is_seen() -> None:
    """The check above can fail."""
    assert [text for _, text in docstrings('def f():\n    """Whether it is."""\n') if OPENING.match(text)]
