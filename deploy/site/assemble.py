"""Put the pages of the documentation site together, for Zensical to build: `make docs`.

    python -m deploy.site.assemble [--output out/site/pages] [--mermaid FILE]

The pages are the README, `docs/`, the other Markdown files that they link to, and what is made from the OpenAPI
document, the command line and the docstrings.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from deploy.site import cli_reference, code_reference, http_reference
from deploy.site.links import FILES, SHOWN, START, BrokenLinkError, place, rewritten

ROOT = Path(__file__).resolve().parents[2]
# Pages that the navigation names, beside `docs/` and what the pages link to.
ALSO = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "client/README.md",
    "clients/README.md",
    "deploy/local/README.md",
)
# `dist/mermaid.min.js` of Mermaid 11.16.0, as npm has it.
MERMAID = "sha256:74d7c46dabca328c2294733910a8aa1ed0c37451776e8d5295da38a2b758fb9b"
HIDDEN = "---\nsearch:\n  exclude: true\n---\n\n"  # of pages that only show a file


class Site:
    """The folder of pages."""

    def __init__(self, output: Path, root: Path = ROOT) -> None:
        self._output = output
        self._root = root
        self._done: set[str] = set()
        self._wanted: list[str] = []

    def collect(self, paths: Iterable[str]) -> None:
        """Take files of the repository over, and all that they link to."""
        self._wanted += paths
        while self._wanted:
            path = self._wanted.pop()
            if path not in self._done:
                self._done.add(path)
                self._take(path)

    def write(self, name: str, text: str) -> None:
        """Write a page that no file of the repository is."""
        page = self._output / name
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")

    def _take(self, path: str) -> None:
        file = self._root / path
        name = place(path, self._root)
        if file.is_dir():
            self.write(name, HIDDEN + _listing(path, _tracked(self._root, path)))
        elif file.suffix == ".md":
            self.write(name, rewritten(self._text(path), path, self._root, self._wanted.append))
        elif file.suffix in SHOWN:
            self.write(name, HIDDEN + _shown(path, self._text(path)))
        else:
            (self._output / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, self._output / name)

    def _text(self, path: str) -> str:
        return (self._root / path).read_text(encoding="utf-8")


def _shown(path: str, text: str) -> str:
    """A page with a file's text."""
    return f"# {path}\n\n````` {SHOWN[Path(path).suffix]}\n{text.rstrip()}\n`````\n"


def _listing(path: str, files: Iterable[str]) -> str:
    """A page with the names of a folder's files."""
    return f"# {path}/\n\n" + "".join(f"- `{name}`\n" for name in files)


def _tracked(root: Path, folder: str) -> list[str]:
    """The files of a folder, without what git ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", folder]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    return sorted(filter(None, listed.split("\0")))


def _mermaid(file: Path, output: Path) -> None:
    """Put Mermaid's script beside the pages, if it is the one that we know, and the site's own scripts."""
    content = file.read_bytes()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if digest != MERMAID:
        raise SystemExit(f"{file} is {digest}, not {MERMAID}")
    output.mkdir(parents=True, exist_ok=True)
    (output / "mermaid.min.js").write_bytes(content)
    for script in Path(__file__).parent.glob("*.js"):
        shutil.copyfile(script, output / script.name)


def named(navigation: Any) -> Iterator[str]:
    """Yield the pages of a navigation, as zensical.toml has it."""
    if isinstance(navigation, str):
        yield navigation
    else:
        for item in navigation.values() if isinstance(navigation, dict) else navigation:
            yield from named(item)


def _navigation(output: Path) -> list[str]:
    """Return the faults of the navigation: pages that don't exist, and pages of `docs/` that it lacks."""
    pages = set(named(tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]))
    there = {str(path.relative_to(output)) for path in output.rglob("*.md")}
    lacking = {page for page in there - pages if not page.startswith(f"{FILES}/")}
    return [f"{page}: in the navigation, but not there" for page in sorted(pages - there)] + [
        f"{page}: not in the navigation of zensical.toml" for page in sorted(lacking)
    ]


def made() -> Mapping[str, str]:
    """Return the pages that no file of the repository is, by their names."""
    return {**http_reference.pages(), **cli_reference.pages(), **code_reference.pages()}


def main() -> int:
    """Write everything; exit code 1: a link or an entry of the navigation leads nowhere."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "site" / "pages")
    parser.add_argument("--mermaid", type=Path, required=True, help="mermaid.min.js")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.output, ignore_errors=True)
    site = Site(arguments.output)
    try:
        site.collect([START, *ALSO, *(path for path in _tracked(ROOT, "docs") if not path.endswith(".py"))])
    except BrokenLinkError as error:
        print(f"docs: {error}", file=sys.stderr)
        return 1
    for name, text in made().items():
        site.write(name, text)
    _mermaid(arguments.mermaid, arguments.output / "site")
    wrong = _navigation(arguments.output)
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
