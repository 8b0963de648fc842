"""Golden vectors of tracking: the published algorithm, one track at a time, with 8x8 matrices.

    cd tests/helpers && ../../.venv/bin/python -m golden.make_bytetrack

`Reference` follows the paper (Zhang et al., ECCV 2022, algorithm 1) and its reference implementation's thresholds step
by step, with the Kalman filter of its equations: state (cx, cy, a, h and their velocities), F, H, Q and R as matrices.
It knows frames, no seconds, and shares no code with the gateway. The videos are made up: objects that move evenly and
jerk, cross and hide each other, seen by a detector that misses some, sees some twice and makes up others. Rows stand in
descending order of score, and no two scores are equal. It writes `bytetrack.npz` beside itself.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]  # scipy publishes no types

HERE = Path(__file__).resolve().parent
log = logging.getLogger("make_bytetrack")
Array = NDArray[np.float64]

F = np.eye(8) + np.eye(8, k=4)
H = np.eye(4, 8)


def deviations(
    height: float, position: float, velocity: float, aspect: float, aspect_velocity: float
) -> Array:
    p, v = position * height, velocity * height
    return np.array([p, p, aspect, p, v, v, aspect_velocity, v])


class Track:
    """One object: its filter, and what became of it."""

    def __init__(self, box: Array, number: int, frame: int) -> None:
        self.mean = np.concatenate((xyah(box), np.zeros(4)))
        self.covariance = np.diag(deviations(self.mean[3], 2 / 20, 10 / 160, 1e-2, 1e-5) ** 2)
        self.number, self.born, self.seen = number, frame, frame
        self.confirmed, self.lost = frame == 1, False
        self.row = -1

    def predict(self) -> None:
        if self.lost:
            self.mean[7] = 0
        noise = np.diag(deviations(self.mean[3], 1 / 20, 1 / 160, 1e-2, 1e-5) ** 2)
        self.mean = F @ self.mean
        self.covariance = F @ self.covariance @ F.T + noise

    def update(self, box: Array, row: int, frame: int) -> None:
        noise = np.diag(deviations(self.mean[3], 1 / 20, 0, 1e-1, 0)[:4] ** 2)
        projected = H @ self.covariance @ H.T + noise
        gain = self.covariance @ H.T @ np.linalg.inv(projected)
        self.mean = self.mean + gain @ (xyah(box) - H @ self.mean)
        self.covariance = self.covariance - gain @ projected @ gain.T
        self.row, self.seen, self.confirmed, self.lost = row, frame, True, False

    @property
    def box(self) -> Array:
        x, y, a, h = self.mean[:4]
        return np.array([x - a * h / 2, y - h / 2, x + a * h / 2, y + h / 2])


def xyah(box: Array) -> Array:
    x1, y1, x2, y2 = box
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / (y2 - y1), y2 - y1])


def overlap(a: Array, b: Array) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


class Reference:
    """The published tracker; `update` returns one id per row, 0 for none."""

    def __init__(self, high: float, low: float, new: float, match: float, buffer: int) -> None:
        self.high, self.low, self.new, self.match, self.buffer = high, low, new, match, buffer
        self.tracks: list[Track] = []
        self.frame, self.numbers = 0, 0
        self.events: Counter[str] = Counter()  # says that the videos show what there is to test

    def update(self, boxes: Array, scores: Array) -> NDArray[np.int32]:
        self.frame += 1
        confirmed = [t for t in self.tracks if t.confirmed and not t.lost] + [
            t for t in self.tracks if t.lost
        ]
        for track in confirmed:
            track.predict()
        strong = [i for i in range(len(scores)) if scores[i] > self.high]
        weak = [i for i in range(len(scores)) if self.low < scores[i] <= self.high]
        were_lost = {t for t in confirmed if t.lost}
        unmatched, strong = self.associate(confirmed, strong, boxes, scores, self.match)
        self.events["found again"] += len(were_lost - set(unmatched))
        kept_alive = [t for t in unmatched if not t.lost]
        missed, _ = self.associate(kept_alive, weak, boxes, np.ones(len(scores)), 0.5)
        self.events["kept alive by a low score"] += len(kept_alive) - len(missed)
        unconfirmed = [t for t in self.tracks if not t.confirmed]
        gone, strong = self.associate(unconfirmed, strong, boxes, scores, 0.7)
        self.events["confirmed"] += len(unconfirmed) - len(gone)
        self.events["not confirmed"] += len(gone)
        for track in missed:
            track.lost = True
        kept = [t for t in self.tracks if t not in gone]
        kept += [self.begin(boxes[row], row) for row in strong if scores[row] >= self.new]
        self.tracks = self.without_duplicates(self.without_stale(kept))
        ids = np.zeros(len(scores), dtype=np.int32)
        for track in self.tracks:
            if track.confirmed and track.seen == self.frame:
                ids[track.row] = track.number
        return ids

    def without_stale(self, tracks: list[Track]) -> list[Track]:
        """In the reference a track whose time has run out is marked, and gone after one frame more."""
        kept = [t for t in tracks if not t.lost or self.frame - t.seen <= self.buffer + 1]
        self.events["lost for good"] += len(tracks) - len(kept)
        return kept

    def without_duplicates(self, tracks: list[Track]) -> list[Track]:
        """Return, of a seen and a lost track on one object, the one that was seen for longer."""
        drop: set[Track] = set()
        for seen in (t for t in tracks if not t.lost):
            for lost in (t for t in tracks if t.lost):
                if 1 - overlap(seen.box, lost.box) < 0.15:
                    longer = seen.seen - seen.born > lost.seen - lost.born
                    self.events[
                        "duplicate, lost one dropped" if longer else "duplicate, seen one dropped"
                    ] += 1
                    drop.add(lost if longer else seen)
        return [t for t in tracks if t not in drop]

    def begin(self, box: Array, row: int) -> Track:
        self.numbers += 1
        track = Track(box, self.numbers, self.frame)
        track.row = row
        return track

    def associate(
        self, tracks: list[Track], rows: list[int], boxes: Array, scores: Array, limit: float
    ) -> tuple[list[Track], list[int]]:
        """Update the tracks that find a row; the tracks and rows that find none."""
        cost = np.array([[1 - overlap(t.box, boxes[row]) * scores[row] for row in rows] for t in tracks])
        if not cost.size:
            return tracks, rows
        pairs = zip(*linear_sum_assignment(np.minimum(cost, limit)), strict=True)
        found = {(int(i), int(j)) for i, j in pairs if cost[i, j] < limit}
        for i, j in found:
            tracks[i].update(boxes[rows[j]], rows[j], self.frame)
        left = [t for i, t in enumerate(tracks) if i not in {i for i, _ in found}]
        return left, [row for j, row in enumerate(rows) if j not in {j for _, j in found}]


@dataclass(frozen=True)
class Settings:
    high: float = 0.5
    low: float = 0.1
    new: float = 0.6
    match: float = 0.8
    buffer: int = 30  # frames


@dataclass(frozen=True)
class Scene:
    """A made-up video of `frames` frames and its detector."""

    seed: int
    frames: int
    objects: int
    sees: float  # how likely it sees an object that nothing hides
    twice: float  # how likely it sees it twice
    invents: float  # boxes that are nothing, a frame
    speed: float  # px a frame, as a standard deviation
    settings: Settings = Settings()

    def detections(self) -> list[tuple[Array, Array]]:
        """Boxes `(n, 4)` xyxy and scores `(n,)` a frame."""
        rng = np.random.default_rng(self.seed)
        centre = rng.uniform((100, 100), (1180, 620), (self.objects, 2))
        velocity = rng.normal(0, self.speed, (self.objects, 2))
        height = rng.uniform(60, 200, self.objects)
        size = np.stack((height * rng.uniform(0.35, 0.6, self.objects), height), axis=1)
        frames = []
        for _ in range(self.frames):
            velocity += rng.normal(0, self.speed / 10, velocity.shape)
            leaves = (centre < 50) & (velocity < 0) | (centre > (1230, 670)) & (velocity > 0)
            velocity = np.where(leaves, -velocity, velocity)
            centre = centre + velocity
            frames.append(self.detect(rng, np.concatenate((centre - size / 2, centre + size / 2), axis=1)))
        return frames

    def detect(self, rng: np.random.Generator, truth: Array) -> tuple[Array, Array]:
        """Simulate the detector: objects hidden by others that stand lower in the picture score low."""
        boxes, scores = [], []
        for box in truth:
            hidden = max((overlap(box, other) for other in truth if other[3] > box[3]), default=0.0)
            for _ in range(1 + (rng.random() < self.twice)):
                if rng.random() < self.sees - hidden / 2:
                    sides = np.tile(box[2:] - box[:2], 2)
                    boxes.append(box + rng.normal(0, 0.02, 4) * sides)
                    scores.append(1 / (1 + np.exp(6 * hidden - 2.5 - rng.normal(0, 0.7))))
        for _ in range(rng.poisson(self.invents)):
            corner = rng.uniform((0, 0), (1200, 650))
            boxes.append(np.concatenate((corner, corner + rng.uniform(20, 150, 2))))
            scores.append(rng.uniform(0.02, 0.8))
        order = np.argsort(-np.array(scores, dtype=np.float32))
        as_float32 = (
            np.array(boxes, dtype=np.float32).reshape(-1, 4)[order],
            np.array(scores, dtype=np.float32)[order],
        )
        assert np.unique(as_float32[1]).size == order.size, "equal scores: take another seed"
        return as_float32[0].astype(np.float64), as_float32[1].astype(np.float64)


SCENES = {
    "street": Scene(1, 150, 8, sees=0.92, twice=0.05, invents=0.5, speed=3),
    "crowd": Scene(2, 120, 24, sees=0.85, twice=0.1, invents=1.0, speed=4),
    "sparse": Scene(3, 200, 2, sees=0.5, twice=0.0, invents=0.3, speed=2, settings=Settings(buffer=5)),
    "strict": Scene(
        4, 120, 12, sees=0.85, twice=0.25, invents=1.0, speed=2, settings=Settings(0.6, 0.2, 0.75, 0.6, 10)
    ),
    "loose": Scene(
        11, 100, 16, sees=0.9, twice=0.25, invents=1.0, speed=5, settings=Settings(0.4, 0.1, 0.6, 0.9, 6)
    ),
}


def tracked(scene: Scene) -> tuple[dict[str, NDArray[np.generic]], Counter[str]]:
    """A scene's detections of all frames, where each frame's begin, and the reference's id of each."""
    settings, frames = scene.settings, scene.detections()
    tracker = Reference(settings.high, settings.low, settings.new, settings.match, settings.buffer)
    ids = [tracker.update(boxes, scores) for boxes, scores in frames]
    arrays: dict[str, NDArray[np.generic]] = {
        "boxes": np.concatenate([boxes for boxes, _ in frames]).astype(np.float32),
        "scores": np.concatenate([scores for _, scores in frames]).astype(np.float32),
        "starts": np.cumsum([0] + [len(scores) for _, scores in frames]).astype(np.int32),
        "ids": np.concatenate(ids),
        "settings": np.array(astuple(settings)),
    }
    return arrays, tracker.events


def filtered() -> dict[str, NDArray[np.generic]]:
    """One box through the filter: measured, and after each step its mean and its covariance of 8x8."""
    rng = np.random.default_rng(5)
    box = np.array([100.0, 50.0, 150.0, 190.0])
    track = Track(box, 1, 1)
    boxes, means, covariances = [box], [track.mean], [track.covariance]
    for frame in range(2, 30):
        track.lost = False
        track.predict()
        box = box + rng.normal(3, 2, 4)
        if frame % 5:
            track.update(box, 0, frame)
        boxes.append(box if frame % 5 else np.full(4, np.nan))
        means.append(track.mean)
        covariances.append(track.covariance)
    return {"boxes": np.array(boxes), "means": np.array(means), "covariances": np.array(covariances)}


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arrays = {f"filter_{name}": array for name, array in filtered().items()}
    shown: Counter[str] = Counter()
    for name, scene in SCENES.items():
        made, events = tracked(scene)
        arrays |= {f"{name}_{key}": array for key, array in made.items()}
        log.info("%s: %d rows, %d tracks, %s", name, len(made["ids"]), made["ids"].max(), dict(events))
        shown += events
    arrays |= {"event_names": np.array(list(shown)), "event_counts": np.array(list(shown.values()))}
    np.savez_compressed(HERE / "bytetrack.npz", **arrays)  # type: ignore[arg-type]  # none is called allow_pickle


if __name__ == "__main__":
    main()
