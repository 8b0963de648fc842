"""Secrets and signatures of webhooks, as Standard Webhooks (standardwebhooks.com) defines them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

_PREFIX = "whsec_"


def secrets(text: str) -> tuple[bytes, ...]:
    """Read signing secrets with spaces between them: `whsec_` and the Base64 of 24 to 64 bytes.

    Raises:
        ValueError: one is none; the message holds nothing of it.
    """
    keys = []
    for part in text.split():
        try:
            keys.append(base64.b64decode(part.removeprefix(_PREFIX), validate=True))
        except binascii.Error:
            keys.append(b"")
        if not part.startswith(_PREFIX) or not 24 <= len(keys[-1]) <= 64:
            raise ValueError("is whsec_ and 24 to 64 bytes in Base64; several with spaces between them")
    return tuple(keys)


def signature(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`, one signature per key."""
    content = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    digests = (hmac.new(key, content, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
