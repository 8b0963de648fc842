"""Versions of the schemas of what the service stores, so that two releases can share a store during an upgrade.

A minor version adds to its predecessor: tables, columns with defaults, fields that may be missing. A release works with
any minor version of its major version, older or newer. A new major version needs all gateways of the old one stopped.
See docs/upgrades.md.
"""

from __future__ import annotations

from dataclasses import dataclass

_MINOR_BITS = 16


@dataclass(frozen=True, slots=True, order=True)
class SchemaVersion:
    """`major.minor`; both 0 to 32767."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @property
    def number(self) -> int:
        """The version as one integer of 31 bits, as SQLite's `user_version` holds it; greater for a later version."""
        return self.major << _MINOR_BITS | self.minor

    @classmethod
    def of(cls, number: int) -> SchemaVersion:
        """Return the version of a `number`; 0 is 1.0, which wrote none."""
        return cls(number >> _MINOR_BITS, number & (1 << _MINOR_BITS) - 1) if number else cls(1, 0)

    def fault(self, found: SchemaVersion) -> str | None:
        """Return why a release with this version can't use a store of the version `found`; None if it can."""
        if found.major > self.major:
            return (
                f"its schema has version {found}, and this release knows {self.major}.x: start the newer release, or "
                "restore a backup from before the upgrade (docs/upgrades.md)"
            )
        if found.major < self.major:
            return (
                f"its schema has version {found}, and this release needs {self.major}.x: upgrade one release at a time "
                "(docs/upgrades.md)"
            )
        return None


# The index of the video jobs, in SQLite and in PostgreSQL.
#   1.0  jobs, callbacks, sources
#   1.1  idempotency_keys
#   1.2  jobs.fence, jobs.manifest_sha256
JOBS = SchemaVersion(1, 2)
