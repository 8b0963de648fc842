"""`gateway smoke`: is what stands there well? A Triton server by gRPC or HTTP, or a gateway, asked from outside."""

from __future__ import annotations

import argparse
import fnmatch
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from app.commands.smoke.endpoints import each
from app.commands.smoke.gateway import GatewayTarget
from app.commands.smoke.http import key_headers
from app.commands.smoke.inputs import fault_of, nothing_to_compare
from app.commands.smoke.report import UNREACHABLE, Check, Report, Status
from app.commands.smoke.triton import Answer, Asked, Found, GrpcTriton, HttpTriton, Models, Target
from app.errors import DeadlineExceeded, GatewayError, TritonUnavailable
from app.pipelines.inventory import matching
from app.pipelines.inventory import patterns as patterns_of
from app.process.catalogue import load_catalogue
from app.settings import Settings
from routing.catalogue import Branch, Catalogue


def smoke(parsed: argparse.Namespace) -> int:
    """Run the command; answers the exit code."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s: %(message)s", stream=sys.stderr)
    settings = _settings(parsed)
    catalogue = load_catalogue(settings)
    servers = [settings] if parsed.url is not None else each(settings)
    if len(servers) > 1:
        return _several(parsed, servers, catalogue)
    (settings,) = servers
    try:
        target = _target(parsed, settings, catalogue)
    except (ValueError, OSError) as error:
        return _give_up(str(error), as_json=parsed.json)
    patterns = [pattern.strip() for pattern in parsed.branches.split(",")]
    try:
        report = check(target, catalogue, patterns, strict=parsed.strict)
    except GatewayError as error:
        return _give_up(f"{target.title} doesn't answer: {_words(error)}", as_json=parsed.json)
    finally:
        target.close()
    print(json.dumps(report.document()) if parsed.json else report.table())
    return report.exit_code


def _several(parsed: argparse.Namespace, servers: Sequence[Settings], catalogue: Catalogue) -> int:
    """Check each Triton of a list by itself; answers the exit code: 2 where none answers."""
    reports, away = [], 0
    patterns = [pattern.strip() for pattern in parsed.branches.split(",")]
    for settings in servers:
        try:
            target = _target(parsed, settings, catalogue)
        except (ValueError, OSError) as error:
            return _give_up(str(error), as_json=parsed.json)
        try:
            reports.append(check(target, catalogue, patterns, strict=parsed.strict))
        except GatewayError as error:
            away += 1
            rows = [Check("server", "live", "required", "failed", detail=_words(error))]
            reports.append(Report(target.title, parsed.strict, rows))
        finally:
            target.close()
    exit_code = UNREACHABLE if away == len(servers) else max(report.exit_code for report in reports)
    if parsed.json:
        whole = {"exit_code": exit_code, "endpoints": [report.document() for report in reports]}
        print(json.dumps(whole))
    else:
        print("\n\n".join(report.table() for report in reports))
    return exit_code


def check(target: Target, catalogue: Catalogue, patterns: Sequence[str], *, strict: bool = False) -> Report:
    """Everything, one after another.

    Raises:
        GatewayError: nobody answers from the start, or somebody who is no such server.
    """
    rows = target.server()
    report = Report(target.title, strict, rows)
    try:
        models = target.models()
    except GatewayError as error:
        if all(row.status == "failed" for row in rows):
            raise  # it answers, but as nothing that we know
        report.checks.append(Check("server", "index", "required", "failed", detail=_words(error)))
        return report
    report.checks += _model_checks(models)
    report.checks += _inferences(target, _chosen(catalogue, models, patterns))
    report.target = target.title
    if models.foreign:
        report.notes.append(f"READY, and not of the catalogue: {', '.join(models.foreign)}")
    return report


def _settings(parsed: argparse.Namespace) -> Settings:
    """Return the settings, in which the command line goes before the environment."""
    given: dict[str, Any] = {"triton_url": parsed.triton_url, "triton_transport": parsed.transport}
    named = {name: value for name, value in given.items() if value is not None}
    return Settings(engine="triton", warmup=False, **named)  # the first run is part of what is checked


def _target(parsed: argparse.Namespace, settings: Settings, catalogue: Catalogue) -> Target:
    if parsed.url is not None:
        headers = key_headers(parsed.api_key_file)
        return GatewayTarget(parsed.url, parsed.timeout, headers, parsed.operate_url)
    variant = parsed.variant or settings.variant or ""
    fault = catalogue.variant_fault(variant)
    if fault is not None:
        raise ValueError(f"--variant {fault}")
    asked = Asked(catalogue, variant, _required(parsed, settings, catalogue))
    if settings.triton_url.startswith(("http://", "https://")):
        return HttpTriton(settings.triton_url, asked, parsed.timeout)
    return GrpcTriton(settings, asked, parsed.timeout)


def _required(parsed: argparse.Namespace, settings: Settings, catalogue: Catalogue) -> list[str]:
    """Patterns of the branches that must be READY."""
    required = patterns_of(settings.require_ready if parsed.require is None else parsed.require)
    for pattern in required:
        if pattern != "checklist" and not matching(catalogue, [pattern]):
            raise ValueError(f"no branch is called {pattern} (`gateway routes` prints their names)")
    return required


def _model_checks(models: Models) -> Iterator[Check]:
    for row in models.rows:
        status: Status = "ok" if row.ready else "missing" if row.absent else "failed"
        detail = "" if row.ready else f"{row.readiness}: {row.reason}" if row.reason else row.readiness
        yield Check("model", row.name, row.need, status, detail=detail, checklist=row.checklist or "")
    if not any(row.ready for row in models.rows):
        yield Check("server", "models", "required", "failed", detail="no model of the catalogue is READY")


def _chosen(catalogue: Catalogue, models: Models, patterns: Sequence[str]) -> Iterator[tuple[Branch, Found]]:
    """The READY branches to try, in the catalogue's order."""
    ready = {row.name: row for row in models.rows if row.ready}
    for name, branch in catalogue.branches.items():
        if name in ready and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            yield branch, ready[name]


def _inferences(target: Target, chosen: Iterable[tuple[Branch, Found]]) -> Iterator[Check]:
    """Two inferences per branch; once the server has stopped answering, the rest is not tried."""
    away: str | None = None
    for branch, row in chosen:
        check = Check("inference", branch.name, row.need, "failed", checklist=row.checklist or "")
        if away is not None:
            yield replace(check, detail=f"not tried: {away}")
            continue
        try:
            answers = [target.infer(branch, number) for number in (0, 1)]
        except GatewayError as error:
            yield replace(check, detail=_words(error))
            away = _gone(target, error)
            continue
        yield _judged(target, branch, check, answers)


def _judged(target: Target, branch: Branch, check: Check, answers: Sequence[Answer]) -> Check:
    outputs = [answer.outputs for answer in answers]
    fault = fault_of(outputs, target.shapes(branch))
    detail = fault or ("no box in either picture" if nothing_to_compare(outputs) else "")
    status: Status = "failed" if fault else "ok"
    return replace(check, status=status, ms=answers[1].ms, first_ms=answers[0].ms, detail=detail)


def _gone(target: Target, error: GatewayError) -> str | None:
    """Return the reason to skip the remaining checks: after a transport failure, the server does not answer for
    itself either.
    """
    if not isinstance(error, TritonUnavailable | DeadlineExceeded):
        return None
    try:
        target.server()
    except GatewayError as gone:
        return _words(gone)
    return None


def _words(error: GatewayError) -> str:
    if isinstance(error, DeadlineExceeded):
        return "no answer in time"
    return error.detail


def _give_up(message: str, *, as_json: bool) -> int:
    print(f"gateway smoke: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"exit_code": UNREACHABLE, "error": message}))
    return UNREACHABLE
