"""Run `gateway gpu-check`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from app import extras
from app.commands.gpu_check import report
from app.commands.gpu_check.reference import WHERE
from app.commands.gpu_check.report import Alone, Precisions, Results
from app.commands.gpu_check.runs import Run, alone, together
from app.commands.plan.command import RESERVE, total_memory, wanted
from app.commands.plan.estimates import estimates
from app.commands.predict.errors import CommandFailed
from app.commands.predict.repository import find, readiness
from app.installation import package
from app.main import embedded_providers
from app.process import gpus
from app.process.catalogue import load_catalogue
from app.settings import Settings
from routing.catalogue import Branch
from routing.fit import by_priority
from routing.memory import Device, ModelMemory, need
from routing.policy import Readiness
from routing.units import format_size, parse_size

FAILED, USAGE, INTERRUPTED = 1, 2, 130
_CUDA, _TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


def run(parsed: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    results = Results()
    try:
        _refuse_outputs(parsed)
        settings = _settings(parsed)
        code = _check(parsed, settings, results)
    except CommandFailed as error:
        print(f"gateway gpu-check: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("gateway gpu-check: interrupted", file=sys.stderr)
        code = INTERRUPTED
    _write(parsed, results)
    return code


def _refuse_outputs(parsed: argparse.Namespace) -> None:
    """Tell now what would be in the way of the results after minutes of work."""
    if parsed.picture is not None and (missing := extras.missing("bench")) is not None:
        raise CommandFailed(f"--picture: {missing}")
    for path in (parsed.json, parsed.picture):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise CommandFailed(f"{path}: is a folder, or in a folder that isn't there")


def _settings(parsed: argparse.Namespace) -> Settings:
    if parsed.triton_url is not None:
        return Settings(engine="triton", triton_url=parsed.triton_url)
    if (missing := extras.missing("embedded")) is not None:
        raise CommandFailed(f"{missing}; --triton-url measures a Triton instead")
    settings = Settings(engine="embedded")
    return settings.model_copy(update={"repository": find(parsed.repository, settings)})


def _check(parsed: argparse.Namespace, settings: Settings, results: Results) -> int:
    """Fill the results, and print each as soon as it is known."""
    repository = settings.repository or Path("triton/models")
    catalogue = load_catalogue(settings)
    branches = by_priority(wanted(catalogue, repository, settings, parsed.branches))
    _look(parsed, settings, results)
    _print(report.devices(results))
    device: Device = "cuda" if _on_gpu(results) else "cpu"
    known = estimates(branches, repository)
    names = [branch.name for branch in branches]
    if settings.engine == "embedded":
        _print(["", "each branch alone", report.ALONE_HEAD])
        for branch in branches:
            row = _alone(parsed, settings, branch, _estimate(branch, known, device, results.reserve))
            results.alone.append(row)
            _print([report.alone_line(row)])
    _print(["", "all branches together, in the order of the plan"])
    for sent in together(settings, names, parsed.timeout):
        if isinstance(sent, Run):
            results.together.append(sent)
            _print([report.together_line(sent, results.before)])
        else:
            results.before = sent
    _compare(parsed, settings, branches, results)
    return 0 if results.good else FAILED


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)


def _look(parsed: argparse.Namespace, settings: Settings, results: Results) -> None:
    """Find the devices, and say line by line what is missing."""
    results.gpus = gpus.found()
    embedded = settings.engine == "embedded"
    results.engine = "ONNX Runtime in this process" if embedded else f"Triton at {settings.triton.grpc}"
    results.providers = embedded_providers() if embedded else []
    if not results.gpus:
        results.missing.append(
            "a GPU: nvidia-smi isn't there or reports none; memory is that of this process"
        )
    if embedded and _CUDA not in results.providers:
        results.missing.append(f"ONNX Runtime for GPUs ({package('gpu')}): models run on the processor")
    if embedded and _TENSORRT not in results.providers:
        results.missing.append(
            "TensorRT in ONNX Runtime: branches with the accelerator tensorrt run without it"
        )
    if not embedded:
        results.missing.append("each branch alone: a Triton has its models loaded already")
    device: Device = "cuda" if _on_gpu(results) else "cpu"
    results.memory = parsed.memory or total_memory(device)
    results.reserve = parse_size(RESERVE[device]) if device == "cuda" else 0


def _on_gpu(results: Results) -> bool:
    return bool(results.gpus) and (not results.providers or _CUDA in results.providers)


def _estimate(branch: Branch, known: dict[str, ModelMemory], device: Device, reserve: int) -> int | None:
    """The plan's estimate of a branch alone, with the reserve for CUDA."""
    needed = need(branch.models, known, device)
    return None if needed.unknown else needed.total + reserve


def _alone(parsed: argparse.Namespace, settings: Settings, branch: Branch, estimate: int | None) -> Alone:
    found, taken = alone(settings, branch.name, parsed.repeats, parsed.timeout)
    return Alone(found, taken, estimate)


def _compare(
    parsed: argparse.Namespace, settings: Settings, branches: Sequence[Branch], results: Results
) -> None:
    """Compare the precisions of the branches that are built in both."""
    pairs = [both for branch in branches if (both := _in_both(branch, settings)) is not None]
    if not pairs or settings.engine != "embedded":
        results.missing.append(
            "half beside single precision: no branch is built in both (make models PRECISION=fp16)"
        )
        _print(["", f"missing: {results.missing[-1]}"])
        return
    _print(["", "single and half precision"])
    for one, half in pairs:
        pair = _pair(parsed, settings, one, half)
        if pair is not None:
            results.precisions.append(pair)
            _print([report.precision_line(pair)])


def _in_both(branch: Branch, settings: Settings) -> tuple[Branch, Branch] | None:
    """The branch in single and in half precision, if both are built."""
    other = branch.alternate
    if other is None or settings.repository is None:
        return None
    if any(readiness(settings.repository, one) is not Readiness.READY for one in (branch, other)):
        return None
    return (branch, other) if other.precision == "fp16" else (other, branch)


def _pair(parsed: argparse.Namespace, settings: Settings, one: Branch, half: Branch) -> Precisions | None:
    first, second = (
        alone(settings, branch.name, parsed.repeats, parsed.timeout, answers=True)[0]
        for branch in (one, half)
    )
    if first.answer is None or second.answer is None or first.p50_ms is None or second.p50_ms is None:
        return None
    a, b = (np.asarray(run.answer, np.float64).ravel() for run in (first, second))
    span = float(np.ptp(a)) or 1.0
    cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) or 1.0))
    return Precisions(
        one.name, half.name, first.p50_ms, second.p50_ms, float(np.abs(a - b).max()) / span, cosine
    )


def _write(parsed: argparse.Namespace, results: Results) -> None:
    if results.alone or results.together:
        print(f"\nmemory: {format_size(results.memory)} planned for; times beside: {WHERE}")
    if parsed.json is not None:
        parsed.json.write_text(json.dumps(report.document(results), indent=1) + "\n", encoding="utf-8")
    if parsed.picture is not None and (results.alone or results.together):
        from app.commands.gpu_check.picture import draw  # noqa: PLC0415  # an extra: bench

        draw(report.document(results), parsed.picture)
