"""The reader that runs the pages notices what a person would notice."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.pages import Block, Reader


def block(text: str, language: str = "sh", mark: str = "") -> Block:
    return Block("page.md", 1, language, text, mark)


def test_a_command_that_fails_is_seen(tmp_path: Path) -> None:
    """Also in the middle of a block and of a pipe."""
    with Reader(tmp_path, 1) as reader:
        for text in ("false\ntrue\n", "false | cat\n", "no-such-command\n"):
            with pytest.raises(AssertionError, match=r"page\.md:1"):
                reader.run(block(text))
        reader.run(block("exit 3\n", mark="exit 3: on purpose"))


def test_a_refused_request_is_seen(tmp_path: Path) -> None:
    """Nothing listens: curl fails without `-f`, too."""
    with Reader(tmp_path, 1) as reader, pytest.raises(AssertionError, match="exit code 7"):
        reader.run(block("curl http://127.0.0.1:8080/\n"))


def test_exported_variables_and_names_live_on(tmp_path: Path) -> None:
    """Blocks of a page share a shell's exports, Python's names and the folder."""
    with Reader(tmp_path, 1) as reader:
        reader.run(block("export WORD='two words'\n"))
        reader.run(block('[ "$WORD" = "two words" ]; echo "$WORD" > word\n'))
        reader.run(block("from pathlib import Path\nword = Path('word').read_text()\n", "python"))
        reader.run(block("assert word == 'two words\\n'\n", "python"))
        with pytest.raises(AssertionError):
            reader.run(block("assert not word\n", "python"))


def test_a_gateway_that_ends_at_once_is_seen(tmp_path: Path) -> None:
    """A block in the background that ends fails the page with its output."""
    with Reader(tmp_path, 1) as reader, pytest.raises(AssertionError, match="said so"):
        reader.run(block("echo said so\n", mark="background"))
