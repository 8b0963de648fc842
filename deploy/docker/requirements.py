"""The locked packages of the gateway and some of its extras, for a layer of the image without the code.

python requirements.py embedded,redis > requirements.txt    # for pip install --require-hashes -r
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LOCKS = Path(__file__).resolve().parent / "locks"
NOT_EXTRAS = ("base", "build")


def main() -> int:
    """Print them; 2: there is no such extra."""
    extras = sorted(path.stem for path in LOCKS.glob("*.lock") if path.stem not in NOT_EXTRAS)
    wanted = [name for name in sys.argv[1].split(",") if name]
    unknown = [name for name in wanted if name not in extras]
    if unknown:
        print(f"no such extra: {', '.join(unknown)}; there are {', '.join(extras)}", file=sys.stderr)
        return 2
    print(*locked(["base", *wanted]).values(), sep="\n")
    return 0


def locked(names: list[str]) -> dict[str, str]:
    """Package -> its line with the hashes, of these locks together."""
    found: dict[str, str] = {}
    for name in names:
        text = (LOCKS / f"{name}.lock").read_text(encoding="utf-8")
        blocks = re.split(r"\n(?=\S)", text.strip())
        found |= {block.split("==")[0]: block for block in blocks if not block.startswith("#")}
    return found


if __name__ == "__main__":
    sys.exit(main())
