"""The blocks of code of the README, the tutorials and the other pages, run one after another as a reader would."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from support.pages import Reader, blocks
from support.paths import ROOT

from deploy.local.triton_server import free_ports

# Not the benchmarks' reports, whose commands measure for minutes, nor client/README.md, which its own tests run.
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [
        ROOT / "README.md",
        ROOT / "clients/README.md",
        ROOT / "deploy/local/README.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("docs/tutorials/*.md"),
    ]
)
RUNNABLE = [page for page in PAGES if any(not block.skipped for block in blocks(page))]
# Blocks that can't run here; each says why. A new one is a decision: change the number with it.
SKIPPED: dict[str, int] = {
    "README.md": 1,
    "clients/README.md": 1,
    "deploy/local/README.md": 2,
    "docs/backups.md": 3,
    "docs/bulk-ray.md": 5,
    "docs/bulk.md": 1,
    "docs/cli.md": 1,
    "docs/dashboards.md": 1,
    "docs/install.md": 5,
    "docs/memory.md": 1,
    "docs/models.md": 3,
    "docs/outputs.md": 2,
    "docs/own-models.md": 5,
    "docs/pictures.md": 1,
    "docs/precision.md": 1,
    "docs/release.md": 3,
    "docs/smoke.md": 1,
    "docs/replicas.md": 5,
    "docs/sources.md": 2,
    "docs/tensorrt.md": 2,
    "docs/triton.md": 4,
    "docs/tutorials/kubernetes.md": 5,
    "docs/tutorials/triton-gpu.md": 6,
    "docs/webhooks.md": 3,
}


@pytest.mark.parametrize("page", RUNNABLE)
def test_every_block_works(page: str, clone: Path, request: pytest.FixtureRequest) -> None:
    """In the order of the page, each block ends with the exit code that the page promises."""
    here = blocks(page)
    if any(".pt" in block.text for block in here):
        shutil.copytree(request.getfixturevalue("checkpoints"), clone, dirs_exist_ok=True)
    starts = any(block.mark == "background" for block in here)
    port = free_ports(1)[0] if starts else request.getfixturevalue("gateway_port")
    with Reader(clone, port) as reader:
        for block in here:
            if not block.skipped:
                reader.run(block)


def test_no_more_blocks_are_left_out_than_known() -> None:
    """The number of blocks that no test runs is written down, page by page."""
    assert Counter(block.page for page in PAGES for block in blocks(page) if block.skipped) == SKIPPED


def test_pages_have_blocks_to_run() -> None:
    """The search finds the README and every tutorial that can run here."""
    assert {"README.md", "docs/tutorials/first-boxes.md", "docs/tutorials/own-classes.md"} <= set(RUNNABLE)
