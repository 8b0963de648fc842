"""A little of everything that callers send: every route, streams, jobs, sessions, and mistakes of several kinds."""

from __future__ import annotations

import io
import itertools
import time
from typing import Any

from PIL import Image


def _picture(width: int, height: int, *patches: tuple[str, tuple[int, int, int, int]]) -> bytes:
    """A grey PNG with patches of one colour each, `(left, top, right, bottom)` in pixels."""
    image = Image.new("RGB", (width, height), (114, 114, 114))
    for colour, box in patches:
        image.paste(colour, box)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


SMALL = _picture(320, 240, ("red", (64, 64, 128, 128)))
LARGE = _picture(640, 480, ("red", (64, 64, 128, 128)), ("blue", (320, 128, 416, 224)))
PROFILE = "name: some\ncomponents: {core_clip: {}, places365: {k: 1}, core_object_detections: {track: {}}}\n"
VIDEO = {"content-type": "video/mp4"}
# What each mistake is answered with: (path, body, headers) -> status.
MISTAKES: dict[str, tuple[str, bytes, dict[str, str], int]] = {
    "unsupported_media_type": ("/v1/detect", b"no picture at all", {}, 415),
    "invalid_image": ("/v1/detect", SMALL[:200], {}, 400),
    "invalid_parameter": ("/v1/detect?conf=7", SMALL, {}, 422),
    "model_not_found": ("/v1/depth?branch=nope", SMALL, {}, 404),
    "weights_missing": ("/v1/depth?branch=midas_512", SMALL, {}, 503),
    "deadline_exceeded": ("/v1/detect", LARGE, {"x-request-timeout": "0.0001"}, 504),
    "no route": ("/v1/nothing", b"", {}, 404),
}


class Traffic:
    """Sends rounds over one client; `failed` names what wasn't answered as it should have been.

    With `callback_url`, it hears of the end of each job.
    """

    def __init__(self, http: Any, video: bytes, name: str = "camera", callback_url: str = "") -> None:
        self._http = http
        self._video = video
        self._name = name
        self._told = {"callback_url": callback_url} if callback_url else {}
        self._jobs: list[str] = []
        self._steps = itertools.count()
        self.failed: list[str] = []

    def run(self, seconds: float, pause: float = 0.0, at_least: int = 1) -> int:
        """Rounds one after another for so long, and so many; how many it were."""
        limit = time.monotonic() + seconds
        rounds = 0
        while rounds < at_least or time.monotonic() < limit:
            self.round()
            rounds += 1
            time.sleep(pause)
        return rounds

    def round(self) -> None:
        """Everything once."""
        step = next(self._steps)
        self._frames(step)
        self._session(step)
        self._videos(step)
        self._mistakes()
        for path in ("/livez", "/readyz", "/v1/branches", "/v1/repository"):
            self._expect(200, self._http.get(path), path)

    def _frames(self, step: int) -> None:
        pair = {"frame0": ("0", SMALL), "frame1": ("1", SMALL)}
        batch = [("file", ("a.png", SMALL)), ("file", ("b.png", LARGE))]
        prompts = {"prompts": ["a cat", "a dog", f"number {step}"]}
        self._post("/v1/detect", LARGE)
        self._post("/v1/detect?branch=yolo11n_320", LARGE)
        self._post("/v1/depth?branch=midas_256", SMALL)
        self._post("/v1/depth?fallback=true", LARGE)
        self._post("/v1/clip/image", SMALL)
        self._post("/v1/places?k=3", SMALL)
        self._expect(200, self._http.post("/v1/detect", files=batch), "a batch")
        self._expect(200, self._http.post("/v1/flow?branch=raft_256", files=pair), "/v1/flow")
        self._expect(200, self._http.post("/v1/clip/text", json=prompts), "/v1/clip/text")
        similar = self._http.post("/v1/clip/similarity", files=batch[:1], data={"prompt": ["a cat", "a dog"]})
        self._expect(200, similar, "/v1/clip/similarity")

    def _session(self, step: int) -> None:
        session = f"{self._name}-{step // 8}"
        at = f"/v1/detect?session={session}&timestamp="
        self._post(f"{at}{step + 1}", SMALL)
        self._expect(409, self._http.post(f"{at}{step}.5", content=SMALL), "a frame that comes late")
        self._expect(200, self._http.get(f"/v1/sessions/{session}"), "/v1/sessions/{id}")
        if step % 8 == 7:
            self._expect(204, self._http.delete(f"/v1/sessions/{session}"), "DELETE /v1/sessions/{id}")

    def _videos(self, step: int) -> None:
        streamed = self._http.post("/v1/detect?every=2", content=self._video, headers=VIDEO)
        self._expect(200, streamed, "a stream")
        if step % 4 == 0:
            files, data = {"file": ("v.mp4", self._video)}, {"profile": PROFILE, **self._told}
            taken = self._http.post("/v1/videos", files=files, data=data)
            if self._expect(202, taken, "/v1/videos"):
                job = taken.json()["id"]
                self._jobs.append(job)
                self._expect(200, self._http.get(f"/v1/videos/{job}/events"), "events")
        if len(self._jobs) > 3:
            self._expect(204, self._http.delete(f"/v1/videos/{self._jobs.pop(0)}"), "DELETE /v1/videos/{id}")
        self._expect(200, self._http.get("/v1/videos"), "GET /v1/videos")

    def _mistakes(self) -> None:
        for name, (path, body, headers, status) in MISTAKES.items():
            self._expect(status, self._http.post(path, content=body, headers=headers), name)

    def _post(self, path: str, body: bytes) -> None:
        self._expect(200, self._http.post(path, content=body), path)

    def _expect(self, status: int, answer: Any, what: str) -> bool:
        if answer.status_code != status:
            self.failed.append(f"{what}: {answer.status_code} {answer.text[:300]}")
        return bool(answer.status_code == status)
