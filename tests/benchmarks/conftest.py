"""The benchmarks are scripts: their folder goes on the path, as it does when one is run."""

from __future__ import annotations

import sys

from support.servers.triton_server import ROOT

sys.path.append(str(ROOT / "benchmarks"))
