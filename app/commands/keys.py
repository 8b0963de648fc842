"""`gateway keys new`: a key, and the line of the configuration that recognises it."""

from __future__ import annotations

import argparse
import json
import sys
import time

from app.keys.access import ApiKey, digest_of, entry, expiry_of, new_key, parse, rate_of, scopes_of

_DAY_S = 86400
_MOST_DIGITS = 6  # of days: 2,700 years


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `gateway keys`."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    new = actions.add_parser("new", help="create a key; it is shown only once and not stored")
    new.add_argument(
        "name",
        help="name of the key's owner, shown in logs and metrics: lower-case letters, digits, and . _ - inside",
    )
    new.add_argument(
        "--scopes", default="infer", help="infer, operate, or both with a comma (default: infer)"
    )
    new.add_argument("--rate", help="requests per second (default: no limit)")
    new.add_argument("--burst", help="requests at once (default: a second's worth)")
    new.add_argument("--expires", help="a date, a date with time and zone, or a number of days such as 90d")
    new.add_argument("--json", action="store_true", help="print one JSON object instead")


def keys(parsed: argparse.Namespace) -> int:
    """Run the command; answers the exit code."""
    secret = new_key()
    try:
        (made,) = parse(entry(_asked(parsed, digest_of(secret.encode()))))
    except ValueError as error:
        print(f"gateway keys: {str(error).removeprefix('entry 1: ')}", file=sys.stderr)
        return 2
    if parsed.json:
        print(json.dumps({"key": secret, "entry": entry(made)}))
        return 0
    print(f"key    {secret}")
    print(f"entry  {entry(made)}")
    print(
        "Give the key to the caller; it can't be shown again. Add the entry to GATEWAY_API_KEYS (separate several\n"
        "by ;) or as a line to the file of GATEWAY_API_KEYS_FILE.",
        file=sys.stderr,
    )
    return 0


def _asked(parsed: argparse.Namespace, digest: bytes) -> ApiKey:
    return ApiKey(
        parsed.name,
        digest,
        scopes_of(parsed.scopes),
        rate_of(parsed.rate, parsed.burst),
        None if parsed.expires is None else _expiry(parsed.expires),
    )


def _expiry(text: str) -> float:
    days = text.removesuffix("d")
    if days != text and days.isdecimal():
        if len(days) > _MOST_DIGITS:
            raise ValueError(f"expires= is a number of days with at most {_MOST_DIGITS} digits, such as 90d")
        return float(int(time.time()) + int(days) * _DAY_S)
    return expiry_of(text)
