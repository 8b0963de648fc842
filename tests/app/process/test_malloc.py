"""Memory that is given back and taken again a thousand times costs no page faults."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BLOCKS = """
import resource, sys
import numpy as np
from app.process.malloc import keep_pages
if sys.argv[1] == "keep":
    assert keep_pages()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(24 << 20, np.uint8)
before = faults()
for number in range(40):
    np.ones((4 << 20) + number * (1 << 18), np.uint8)
print(faults() - before)
"""


def faults(how: str) -> int:
    """Count page faults of forty blocks of 4 to 14 MB, one after another, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS, how], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_blocks_that_come_and_go_keep_their_pages() -> None:
    """Hardly a page is mapped again, where glibc alone maps thousands."""
    assert faults("keep") < 500 < faults("default")


RETURNED = """
import numpy as np
from app.process.malloc import give_back, keep_pages
assert keep_pages()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
blocks = [np.ones(16 << 20, np.uint8) for _ in range(20)]
keep = np.ones(1 << 20, np.uint8)
del blocks
kept = resident() - before
give_back()
print(kept, resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="malloc_trim is glibc's")
def test_what_large_pictures_took_can_be_given_back() -> None:
    """Freed blocks below the top of the heap stay resident until they are returned."""
    done = subprocess.run(
        [sys.executable, "-c", RETURNED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    kept, left = map(int, done.stdout.split())
    assert left < 20 << 20 < 300 << 20 < kept
