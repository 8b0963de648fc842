"""The record by which `app.families` hands the routes of a family to the application."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter


@dataclass(frozen=True, slots=True)
class FamilyRoutes:
    """Routes of one family, and an example of the JSON answer of each, by operation id."""

    router: APIRouter
    examples: Mapping[str, dict[str, Any]]

    @property
    def paths(self) -> tuple[str, ...]:
        """Templates of the paths."""
        return tuple(getattr(route, "path", "") for route in self.router.routes)
