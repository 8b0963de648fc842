"""The command: every input by both versions, a row each, and a summary with both signatures."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.commands.compare.asking import KINDS, Kind, Said
from app.commands.compare.differences import Difference
from app.commands.predict import inputs
from app.commands.predict.asking import Asking
from app.commands.predict.command import by_url
from app.commands.predict.errors import CommandFailed, InputFailed, NoInput, RunFailed
from app.commands.predict.gateway import Gateway, branches_of
from app.commands.predict.inputs import Input
from app.commands.predict.printing import plain

OK, APART, USAGE, INTERRUPTED = 0, 1, 2, 130
_WAIT_S = 60.0  # for a gateway that is busy
_OF_MODEL = ("model_name", "model_version", "weights_digest")


@dataclass
class Compared:
    """The differences of all inputs, and what answered them."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    signatures: dict[str, str] = field(default_factory=dict)
    models: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def note(self, version: str, said: Said) -> None:
        """Remember what a version's answers say of their making."""
        self.signatures[version] = str(said.provenance.get("model_signature"))
        used = said.provenance.get("models_used", [])
        self.models[version] = [{key: one.get(key) for key in _OF_MODEL} for one in used]

    @property
    def differences(self) -> list[float]:
        return [row["difference"] for row in self.rows if "difference" in row]


def compare(parsed: argparse.Namespace) -> int:
    """Run the command; answers the exit code."""
    try:
        if parsed.versions[0] == parsed.versions[1]:
            raise RunFailed("--versions: name two versions")
        with contextlib.closing(_gateway(parsed)) as gateway:
            kind = _kind(parsed, gateway)
            items = _items(parsed, kind)
            return _report(parsed, _compared(parsed, gateway, kind, items))
    except (CommandFailed, RuntimeError) as error:
        print(f"gateway compare: {plain(str(error))}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("gateway compare: interrupted", file=sys.stderr)
        return INTERRUPTED


def _gateway(parsed: argparse.Namespace) -> Gateway:
    if parsed.url is not None:
        return by_url(parsed)
    from app.commands.predict.here import at_hand, started  # noqa: PLC0415  # the service, which --url doesn't need

    settings, folder, catalogue = at_hand(parsed)
    branch = catalogue.branches.get(parsed.branch)
    if branch is None:
        raise RunFailed(f"no branch is called {parsed.branch[:100]}; `gateway branches --all` lists them")
    names = [branch.name, *(one.name for one in branch.versions if one.version in parsed.versions)]
    update = {"repository": folder, "variant": branch.variant or settings.variant}
    return started(parsed, settings.model_copy(update=update), names, _note)


def _note(text: str) -> None:
    print(f"gateway: {plain(text)}", file=sys.stderr)


def _kind(parsed: argparse.Namespace, gateway: Gateway) -> tuple[Kind, dict[str, str]]:
    """Return the measure of the branch's family, and the parameter that names the branch.

    Raises:
        RunFailed: there is no such branch or version, or nothing to compare its answers by.
    """
    said = branches_of(gateway)
    rows = {row["name"]: (family["name"], row) for family in said["families"] for row in family["branches"]}
    if parsed.branch not in rows:
        raise RunFailed(f"no branch is called {parsed.branch[:100]}; `gateway branches` lists them")
    family, row = rows[parsed.branch]
    there = [one["version"] for one in row.get("versions", ())]
    if missing := [version for version in parsed.versions if version not in there]:
        raise RunFailed(f"{parsed.branch} has no version {missing[0][:20]}; it has {', '.join(there)}")
    if family not in KINDS:
        raise RunFailed(f"answers of {family} can't be compared; {', '.join(KINDS)} can")
    kind = KINDS[family]
    value = parsed.branch if kind.named == "branch" else row["variant"] or "standard"
    return kind, {kind.named: value}


def _items(parsed: argparse.Namespace, kind: tuple[Kind, dict[str, str]]) -> Sequence[tuple[Input, ...]]:
    pictures = kind[0].pictures
    if not pictures:
        if parsed.files or not parsed.text:
            raise NoInput("a text branch takes texts: --text 'a photo of a cat'")
        return [(entry,) for entry in inputs.texts(parsed.text)]
    if parsed.text:
        raise NoInput("--text is for text branches; this one takes pictures")
    found = inputs.found(parsed.files, videos=False)
    return inputs.pairs(found, consecutive=False) if pictures == 2 else [(entry,) for entry in found]


def _compared(
    parsed: argparse.Namespace,
    gateway: Gateway,
    kind: tuple[Kind, dict[str, str]],
    items: Sequence[tuple[Input, ...]],
) -> Compared:
    how, query = kind
    asking = Asking(gateway, parsed.timeout, _WAIT_S, overridden=True, told=_note)
    compared = Compared()
    for item in items:
        name = " ".join(entry.name for entry in item)
        try:
            data = [_content(entry) for entry in item]
            said = [how.ask(asking, {**query, "version": one}, data) for one in parsed.versions]
        except InputFailed as error:
            compared.rows.append({"input": name, "error": error.document()})
            _row(parsed, name, error.line())
            continue
        for version, one in zip(parsed.versions, said, strict=True):
            compared.note(version, one)
        difference = how.compare(said[0].content, said[1].content)
        compared.rows.append({"input": name, **difference})
        _row(parsed, name, _words(difference))
    return compared


def _content(entry: Input) -> bytes:
    if entry.text is not None:
        return entry.text.encode()
    if entry.fault is not None:
        raise InputFailed("unreadable", entry.fault)
    try:
        content = inputs.read(entry)
    except OSError as error:
        raise InputFailed("unreadable", error.strerror or str(error)) from error
    if content.video is not None:
        content.video.close()
        raise InputFailed("unsupported_media_type", "it is a video, and pictures are compared")
    return content.data


def _words(difference: Difference) -> str:
    details = ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}" for name, value in difference.items() if name != "difference"
    )
    return f"{difference['difference']:.6f}  ({details})"


def _row(parsed: argparse.Namespace, name: str, words: str) -> None:
    if not parsed.json:
        print(f"{plain(name)}  {words}", flush=True)


def _report(parsed: argparse.Namespace, compared: Compared) -> int:
    found = compared.differences
    failed = len(compared.rows) - len(found)
    greatest = max(found, default=0.0)
    over = parsed.most is not None and greatest > parsed.most
    document = {
        "branch": parsed.branch,
        "versions": [
            {
                "version": version,
                "model_signature": compared.signatures.get(version),
                "models_used": compared.models.get(version, []),
            }
            for version in parsed.versions
        ],
        "inputs": compared.rows,
        "mean_difference": float(np.mean(found)) if found else None,
        "greatest_difference": greatest if found else None,
        "most": parsed.most,
        "failed": failed,
    }
    if parsed.json:
        print(json.dumps(document, ensure_ascii=False))
    else:
        _summary(document)
    return APART if failed or over else OK


def _summary(document: dict[str, Any]) -> None:
    for row in document["versions"]:
        models = ", ".join(f"{one['model_name']} {one['weights_digest'][:19]}…" for one in row["models_used"])
        print(
            f"version {row['version']}: {models or 'no answer'}, signature {str(row['model_signature'])[:12]}…"
        )
    if document["mean_difference"] is not None:
        mean, greatest = document["mean_difference"], document["greatest_difference"]
        words = f"{len(document['inputs'])} inputs: difference {mean:.6f} on average, {greatest:.6f} at most"
        limit = document["most"]
        print(words if limit is None else f"{words}; {'above' if greatest > limit else 'within'} {limit:g}")
    if document["failed"]:
        print(f"{document['failed']} inputs have no answer", file=sys.stderr)
