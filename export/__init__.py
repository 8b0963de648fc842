"""Exporters, the preprocess graphs and the Triton repository. Never imported by `app`.

YOLO11 and the preprocess graphs need only ONNX and ONNX Runtime, the other families PyTorch.

Run as `python -P -m export`: the project root must stay off `sys.path`, or its folder `triton/` stands in for the
package of that name.
"""

import os

# Before ONNX Runtime is imported, as in app/engine/__init__.py.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
