"""Engines run branches: `triton`, `embedded`, and the fake for tests."""

import os

# Official builds of ONNX Runtime report their use to its makers unless this is set before they are imported: switched
# off later, they have already written an identifier into the home folder and started to upload.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
