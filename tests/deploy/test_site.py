"""Links of the repository's Markdown and what the site makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.site.links import BrokenLinkError, place, rewritten


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small repository."""
    for name in (
        "README.md",
        "CHANGELOG.md",
        "docs/a.md",
        "docs/b/README.md",
        "docs/p.png",
        "app/x.py",
        "app/d.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "link", "becomes"),
    [
        ("README.md", "docs/a.md#part", "a.md#part"),
        ("README.md", "docs/b/", "b/README.md"),
        ("README.md", "CHANGELOG.md", "files/CHANGELOG.md"),
        ("docs/a.md", "../README.md", "index.md"),
        ("docs/a.md", "p.png", "p.png"),
        ("docs/b/README.md", "../../app/x.py", "../files/app/x.py.md"),
        ("docs/a.md", "../app", "files/app.md"),
        ("docs/a.md", "../app/d.json", "files/app/d.json"),
        ("CHANGELOG.md", "docs/a.md", "../a.md"),
        ("docs/a.md", "https://example.com/x.md", "https://example.com/x.md"),
        ("docs/a.md", "#here", "#here"),
    ],
)
def test_links_lead_to_the_same_file(root: Path, source: str, link: str, becomes: str) -> None:
    """Pages of docs/ are at the top, other files below files/, code on a page that shows it."""
    linked: list[str] = []
    assert rewritten(f"see [x]({link}).", source, root, linked.append) == f"see [x]({becomes})."
    assert len(linked) == (0 if link.startswith(("https:", "#")) else 1)


def test_linked_files_are_collected(root: Path) -> None:
    """By their paths in the repository, a folder's README for the folder."""
    linked: list[str] = []
    rewritten("[x](a.md) [y](b/) [z](../app/x.py#L1)", "docs/c.md", root, linked.append)
    assert linked == ["docs/a.md", "docs/b/README.md", "app/x.py"]
    assert [place(path, root) for path in linked] == ["a.md", "b/README.md", "files/app/x.py.md"]


def test_code_is_left_alone(root: Path) -> None:
    """A fence may contain what looks like a link."""
    text = "```md\n[x](nowhere.md)\n```\n"
    assert rewritten(text, "docs/a.md", root, print) == text


def test_a_link_that_leads_nowhere_is_an_error(root: Path) -> None:
    """So is one that leaves the repository."""
    for link in ("nowhere.md", "../../else.md"):
        with pytest.raises(BrokenLinkError, match=r"docs/a\.md"):
            rewritten(f"[x]({link})", "docs/a.md", root, print)
