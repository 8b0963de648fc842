"""What the gateway and some of its extras need, one requirement a line: for a layer of the image without the code.

python requirements.py embedded,redis > requirements.txt
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main() -> int:
    """Print them; 2: there is no such extra."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [name for name in sys.argv[1].split(",") if name]
    unknown = [name for name in wanted if name not in extras]
    if unknown:
        print(f"no such extra: {', '.join(unknown)}; there are {', '.join(extras)}", file=sys.stderr)
        return 2
    print(*project["dependencies"], *(need for name in wanted for need in extras[name]), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
