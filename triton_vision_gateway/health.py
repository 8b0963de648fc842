"""The container's health check: `python -m triton_vision_gateway.health [--tls] 127.0.0.1:8080 /livez`."""

from __future__ import annotations

import sys

from triton_vision_gateway import add_to_path

if __name__ == "__main__":
    add_to_path()
    from app.process.health import main

    sys.exit(main(*sys.argv[1:]))
