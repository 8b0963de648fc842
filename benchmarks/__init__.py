"""Cost of the gateway, and where it arises. A folder per question, run from the root of the repository.

    python -m benchmarks.QUESTION        # speed, growth, matrix, tracking, video, dashboards

docs/benchmarks/README.md explains the figures. `common/` holds what several questions use, `peers/` the services that
the gateway is compared with.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Before any module of this package imports ONNX Runtime: see app/engine/__init__.py.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
