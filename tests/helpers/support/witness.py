"""A caller who asks for boxes all the time, and judges every answer: its boxes, its provenance, its status."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from starlette.testclient import TestClient

from support.servers.gateway import png, scene
from support.waiting import eventually

STEADY = "yolo11n_320"
_BODY = png(scene(320, 320, (1, 64, 96, 32)))


def shifted(models: Path, shift: int) -> bytes:
    """The detector's graph, which calls every colour by a class `shift` higher."""
    plain = models.parent / "plain.onnx"
    if not plain.exists():
        plain.write_bytes((models / STEADY / "1" / "model.onnx").read_bytes())
    model = onnx.load(plain)
    for constant in model.graph.initializer:
        if constant.name.startswith("excess"):
            rolled = np.roll(numpy_helper.to_array(constant), shift, axis=0)
            constant.CopyFrom(numpy_helper.from_array(rolled, constant.name))
    content: bytes = model.SerializeToString()
    return content


def digest_of(models: Path, shift: int) -> str:
    """The digest of that graph."""
    return f"sha256:{hashlib.sha256(shifted(models, shift)).hexdigest()}"


def put_graph(models: Path, shift: int, version: str = "1") -> None:
    """Serve that graph, by one rename; weights.json stays as it is."""
    folder = models / STEADY / version
    content = shifted(models, shift)
    folder.mkdir(exist_ok=True)
    (folder / ".new").write_bytes(content)
    (folder / ".new").rename(folder / "model.onnx")


def put_note(models: Path, shift: int, version: str = "1") -> None:
    """Write weights.json of that graph."""
    folder = models / STEADY / version
    (folder / ".note").write_text(json.dumps({"digest": digest_of(models, shift), "weights": "random"}))
    (folder / ".note").rename(folder / "weights.json")


@dataclass
class Witness:
    """Use it with `with`. `truth`: the digest of the weights that give a class, by class."""

    gateway: TestClient
    truth: Mapping[int, str]
    answers: int = 0
    wrong: list[str] = field(default_factory=list)
    false: list[str] = field(default_factory=list)
    red: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    seen: Counter[tuple[int, str, str]] = field(default_factory=Counter)
    signatures: dict[str, set[str]] = field(default_factory=dict)
    last: int = -1  # the class of the last answer
    known: bool = False  # if it named a digest

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_on)

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def more(self, count: int = 20) -> None:
        """Return once so many more requests have been made."""
        wanted = self._asked() + count
        eventually(lambda: self._asked() >= wanted)

    def _asked(self) -> int:
        return self.answers + self.refused.total()

    def ask(self) -> None:
        """Make one request."""
        answer = self.gateway.post(f"/v1/detect?branch={STEADY}", content=_BODY)
        if answer.status_code == 200:
            self._check_answer(answer.json())
            self.red += self.gateway.get("/readyz").status_code != 200
            self.answers += 1
        else:
            self.refused[f"{answer.status_code} {answer.json()['code']}"] += 1

    def _ask_on(self) -> None:
        while not self._stop.is_set():
            self.ask()

    def _check_answer(self, answer: dict[str, object]) -> None:
        found = [box["class_id"] for box in answer["detections"]]  # type: ignore[attr-defined]  # JSON
        used = answer["models_used"][0]  # type: ignore[index]  # JSON
        if len(found) != 1 or found[0] not in self.truth:
            self.wrong.append(str(found))
            return
        digest = used["weights_digest"]
        self.last, self.known = found[0], digest != "unknown"
        self.seen[found[0], used["model_version"], digest] += 1
        if digest != "unknown":
            self.signatures.setdefault(digest, set()).add(str(answer["model_signature"]))
            if digest != self.truth[found[0]]:
                self.false.append(f"class {found[0]} by {digest}")
