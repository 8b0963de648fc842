"""The container's health check: `python -m app.health 127.0.0.1:8080 /livez`.

It imports nothing but the standard library: it runs every few seconds, on the cores that serve.
"""

from __future__ import annotations

import http.client
import sys


def main(address: str, path: str) -> int:
    """0: the gateway there answers 200; 1: it doesn't. What it says is printed, for `docker inspect`."""
    connection = http.client.HTTPConnection(address, timeout=4)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        sys.stdout.write(answer.read(4096).decode(errors="replace") + "\n")
    except (OSError, http.client.HTTPException) as error:
        sys.stdout.write(f"{address}: {error}\n")
        return 1
    finally:
        connection.close()
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
