"""`gateway smoke`: is what stands there well? A Triton server by gRPC or HTTP, or a gateway, asked from outside."""

from __future__ import annotations

import argparse
import fnmatch
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from app.commands.smoke_gateway import GatewayTarget
from app.commands.smoke_http import key_headers
from app.commands.smoke_inputs import fault_of, nothing_to_compare
from app.commands.smoke_report import UNREACHABLE, Check, Need, Report, Status
from app.commands.smoke_triton import Answer, Found, GrpcTriton, HttpTriton, Models, Target
from app.errors import DeadlineExceeded, GatewayError, TritonUnavailable
from app.settings import Settings
from routing import catalogue as catalogues
from routing.catalogue import Branch, Catalogue


def smoke(parsed: argparse.Namespace) -> int:
    """Run the command; answers the exit code."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s: %(message)s", stream=sys.stderr)
    catalogue = catalogues.load()
    try:
        target = _target(parsed, catalogue)
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


def _target(parsed: argparse.Namespace, catalogue: Catalogue) -> Target:
    if parsed.url is not None:
        headers = key_headers(parsed.api_key_file)
        return GatewayTarget(parsed.url, parsed.timeout, headers, parsed.operate_url)
    given: dict[str, Any] = {"triton_url": parsed.triton_url, "triton_transport": parsed.transport}
    named = {name: value for name, value in given.items() if value is not None}
    settings = Settings(engine="triton", warmup=False, **named)  # what is tried here is the first run
    variant = parsed.variant or settings.variant or catalogue["detect"].default_variant or ""
    if variant not in catalogue["detect"].variants:
        raise ValueError(f"--variant is one of {', '.join(catalogue['detect'].variants)}")
    if settings.triton_url.startswith(("http://", "https://")):
        return HttpTriton(settings.triton_url, catalogue, variant, parsed.timeout)
    return GrpcTriton(settings, catalogue, variant, parsed.timeout)


def _model_checks(models: Models) -> Iterator[Check]:
    lists: tuple[tuple[Need, list[Found]], ...] = (
        ("required", models.required),
        ("optional", models.optional),
        ("extra", models.extra),
    )
    for need, rows in lists:
        for row in rows:
            status: Status = "ok" if row.ready else "missing" if row.absent else "failed"
            detail = "" if row.ready else f"{row.readiness}: {row.reason}" if row.reason else row.readiness
            yield Check("model", row.name, need, status, detail=detail)


def _chosen(catalogue: Catalogue, models: Models, patterns: Sequence[str]) -> Iterator[tuple[Branch, Need]]:
    """The READY branches to try, in the catalogue's order."""
    lists: tuple[tuple[Need, list[Found]], ...] = (
        ("required", models.required),
        ("optional", models.optional),
        ("extra", models.extra),
    )
    needs = {row.name: need for need, rows in lists for row in rows if row.ready}
    for name, branch in catalogue.branches.items():
        if name in needs and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            yield branch, needs[name]


def _inferences(target: Target, chosen: Iterable[tuple[Branch, Need]]) -> Iterator[Check]:
    """Two inferences a branch; once the server has stopped to answer, the rest is not tried."""
    away: str | None = None
    for branch, need in chosen:
        if away is not None:
            yield Check("inference", branch.name, need, "failed", detail=f"not tried: {away}")
            continue
        try:
            answers = [target.infer(branch, number) for number in (0, 1)]
        except GatewayError as error:
            yield Check("inference", branch.name, need, "failed", detail=_words(error))
            away = _gone(target, error)
            continue
        yield _judged(target, branch, need, answers)


def _judged(target: Target, branch: Branch, need: Need, answers: Sequence[Answer]) -> Check:
    outputs = [answer.outputs for answer in answers]
    fault = fault_of(outputs, target.shapes(branch))
    detail = fault or ("no box in either picture" if nothing_to_compare(outputs) else "")
    status: Status = "failed" if fault else "ok"
    return Check(
        "inference", branch.name, need, status, ms=answers[1].ms, first_ms=answers[0].ms, detail=detail
    )


def _gone(target: Target, error: GatewayError) -> str | None:
    """Why the others needn't be tried: after a failure of the wire, the server doesn't answer for itself either."""
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
