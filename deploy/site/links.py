"""Links of the repository's Markdown, rewritten for the site.

On a code host a page may link to any file of the repository. The site has the README as its start page, the pages of
`docs/` at its root, and every other file that a page links to below `files/`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

START = "README.md"
FILES = "files"
SHOWN = {".py": "python", ".sh": "sh", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}  # suffix -> language
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//|#")


class BrokenLinkError(Exception):
    """A page links to a file that the repository doesn't have."""


def place(path: str, root: Path) -> str:
    """Return the path on the site of a file or folder of the repository; both are relative, with `/`."""
    if path == START:
        return "index.md"
    if (root / path).is_dir() or Path(path).suffix in SHOWN:
        return f"{FILES}/{path}.md"  # a page that shows it
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{FILES}/{path}"


def rewritten(text: str, source: str, root: Path, linked: Callable[[str], None]) -> str:
    """Return a page with its links as the site needs them.

    Args:
        text: Markdown; fenced code is left alone.
        source: The page's path in the repository, with `/`.
        root: The repository.
        linked: Called with the path in the repository of each file that a link leads to.

    Raises:
        BrokenLinkError: A relative link leads nowhere.
    """
    here = posixpath.dirname(place(source, root)) or "."

    def of(match: re.Match[str]) -> str:
        if _ELSEWHERE.match(match[2]):
            return match[0]
        file, mark, fragment = match[2].partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), file))
        if path.startswith("..") or not (root / path).exists():
            raise BrokenLinkError(f"{source} links to {match[2]}, which isn't there")
        if (root / path / "README.md").is_file():
            path = f"{path}/README.md"
        linked(path)
        return f"{match[1]}{posixpath.relpath(place(path, root), here)}{mark}{fragment}{match[3]}"

    return "".join(line if code else _LINK.sub(of, line) for code, line in lines(text))


def lines(text: str) -> Iterator[tuple[bool, str]]:
    """Each line with its end, and True for those of fenced code."""
    fence = ""
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if fence:
            yield True, line
            if mark and mark[1].startswith(fence) and line.strip() == mark[1]:
                fence = ""
        else:
            fence = mark[1] if mark else ""
            yield bool(mark), line
