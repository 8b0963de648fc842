"""Add this project's version to a parts list: cyclonedx-py reads pyproject.toml, which leaves it to `app.__version__`.

python deploy/supply/sbom.py out/sbom.cdx.json
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Write the file again, and say how many components it has."""
    path = Path(sys.argv[1])
    document = json.loads(path.read_text(encoding="utf-8"))
    source = (ROOT / "app" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    assert version is not None  # noqa: S101  # a test compares it with the wheel's
    document["metadata"]["component"]["version"] = version[1]
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(
        f"{path}: {document['metadata']['component']['name']} {version[1]}, {len(document['components'])} components"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
