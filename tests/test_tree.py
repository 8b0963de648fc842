"""Tests of the repository's content and of the links in its documents."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from support.paths import ROOT

DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "deploy/local/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "tutorials").glob("*.md")),
    "docs/comparison.md",
    "docs/faq.md",
    "docs/models.md",
    "docs/provenance.md",
    "docs/routing.md",
    "docs/gpu-check.md",
    "docs/memory.md",
    "docs/kubernetes.md",
    "docs/tensorrt.md",
    "docs/triton.md",
    "docs/install.md",
    "docs/release.md",
    "docs/cli.md",
    "docs/bulk.md",
    "docs/bulk-ray.md",
    "docs/bulk-outputs.md",
    "docs/embeddings.md",
    "docs/outputs.md",
    "docs/videos.md",
    "docs/upgrades.md",
    "docs/backups.md",
    "docs/webhooks.md",
    "docs/sources.md",
    "docs/pictures.md",
    "docs/access.md",
    "docs/page.md",
    "SECURITY.md",
    "client/README.md",
    "clients/README.md",
]


def _tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    return [ROOT / name for name in listing.stdout.split("\0") if name]


def test_no_weights_and_nothing_large_is_tracked() -> None:
    """Weights have licences of their own, and a clone stays small."""
    for path in _tracked():
        assert path.suffix not in {".onnx", ".pt", ".pth", ".safetensors"}, path
        assert not path.exists() or path.stat().st_size < 1_500_000, path


@pytest.mark.parametrize("name", DOCUMENTS)
def test_local_links_lead_somewhere(name: str) -> None:
    """Every relative link of the documents exists."""
    document = ROOT / name
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (document.parent / link).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_that_documents_name_exist(name: str) -> None:
    """A reader can run every `make` that is written down."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
    assert {target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set()


LARGEST_FOLDER = 15
PATH_EDIT = re.compile(r"sys\.path(\.(append|extend|insert)\(|(\[.*\])? *\+?= )|\baddsitedir\(")


def test_no_folder_holds_more_files_of_code_than_a_reader_takes_in() -> None:
    """A folder that grows past the limit has a second idea in it."""
    modules = [path for path in _tracked() if path.suffix == ".py" and path.name != "__init__.py"]
    sizes = Counter(str(path.parent.relative_to(ROOT)) for path in modules if path.exists())
    assert {folder: size for folder, size in sizes.items() if size > LARGEST_FOLDER} == {}


def test_no_script_edits_the_search_path() -> None:
    """The imports of a script don't depend on where it lies; `app/media/video` and the installed command are others."""
    scripts = [path for path in _tracked() if path.suffix in {".py", ".sh"} and path.exists()]
    edits = [
        str(path.relative_to(ROOT))
        for path in scripts
        if path.relative_to(ROOT).parts[0] in {"benchmarks", "clients", "deploy", "docs", "tests"}
        and PATH_EDIT.search(path.read_text(encoding="utf-8"))
    ]
    assert edits == []


@pytest.mark.parametrize(
    "line", ["path.insert(0, folder)", "path[:0] = [a]", "path += [a]", "path.append(a)"]
)
def test_an_edit_of_the_search_path_is_seen(line: str) -> None:
    """The check above can fail."""
    assert PATH_EDIT.search(f"sys.{line}")
