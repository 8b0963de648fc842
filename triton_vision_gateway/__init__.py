"""The name of this program in Python: `python -m triton_vision_gateway` is `gateway`.

`app`, `routing` and `export` are common names. An installed wheel keeps them inside this package, in `_code`, so that
nothing at the top level of site-packages is called so, and puts that folder first on the search path of its own
processes. In a checkout they lie beside this package.
"""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_INSIDE = _HERE / "_code"
INSTALLED = _INSIDE.is_dir()
"""False in a checkout."""
DATA = _HERE / "_data" if INSTALLED else _HERE.parent
"""The folder with `profiles/`, `triton/models/*/config.pbtxt` and `docs/astronaut.jpg`."""


def add_to_path() -> None:
    """Let this process import `app`, `routing` and `export` of this program, whoever else has packages of these names.

    Processes that it starts get the search path from it.
    """
    folder = str(_INSIDE if INSTALLED else _HERE.parent)
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)
