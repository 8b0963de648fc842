"""The container's health check: `python -m triton_vision_gateway.health [--tls] 127.0.0.1:8080 /livez`.

It imports nothing but the standard library: it runs every few seconds, on the cores that serve.
"""

from __future__ import annotations

import http.client
import ssl
import sys


def main(*arguments: str) -> int:
    """0: the gateway there answers 200; 1: it doesn't. What it says is printed, for `docker inspect`."""
    *options, address, path = arguments
    # This host's own certificate needn't name this host's own address.
    own = ssl._create_unverified_context()  # noqa: S323, SLF001  # nothing secret is asked or believed
    connection = (
        http.client.HTTPSConnection(address, timeout=4, context=own)
        if "--tls" in options
        else http.client.HTTPConnection(address, timeout=4)
    )
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
