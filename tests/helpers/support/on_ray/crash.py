"""A bulk run over a bucket on two Ray nodes, whose worker, node and driver are killed in turn."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from app.cli import main
from benchmarks.common.services import variables
from support import videos
from support.on_ray.cluster import RayCluster
from support.paths import ROOT
from support.servers.s3 import S3Server
from support.waiting import PATIENCE_S, eventually

PROFILE = "name: crash\ncomponents: {core_object_detections: {classes: [person, bicycle, car], track: {}}}\n"
BUCKET = "crash"
FRAMES = 40
_LENGTHS = 24
Digests = dict[str, str]


@dataclass(frozen=True, slots=True)
class Driver:
    """A `gateway bulk` under way."""

    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path

    def until(self, true: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
        """Wait until it is true; the driver must still run then."""

        def met() -> bool:
            assert self.process.poll() is None, f"the driver ended early: {self.stderr.read_text()}"
            time.sleep(0.1)  # the server has other work
            return true()

        eventually(met, seconds)


@dataclass(frozen=True, slots=True)
class Crashed:
    """A run whose parts were killed: the last driver's end, all rows, and the versions of each manifest."""

    exit_code: int
    stdout: str
    stderr: str
    rows: list[dict[str, Any]]
    published: Counter[str]


@dataclass(frozen=True, slots=True)
class Run:
    """The models, the videos in the bucket, and a folder for the rest."""

    repository: Path
    folder: Path
    server: S3Server

    @property
    def profile(self) -> Path:
        return self.folder / "profile.yaml"

    def make_videos(self, number: int) -> None:
        """Put so many short videos into the bucket, in two folders with the same names; keep local copies."""
        self.profile.write_text(PROFILE)
        client = self.server.client()
        client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        for index in range(number):
            name = f"cam{index % 2}/{index // 2:04}.mp4"
            path = self.folder / "videos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            videos.count(path, FRAMES + index % _LENGTHS)
            client.upload_file(str(path), BUCKET, f"in/{name}")

    def straight(self) -> Digests:
        """Analyse the local copies one after another, undisturbed; the digests of all arrays."""
        out = self.folder / "straight"
        arguments = [
            "analyze",
            "--video-path",
            str(self.folder / "videos"),
            "--output",
            str(out),
            *self._settings(),
        ]
        assert main([*arguments, "--jobs", "1"]) == 0
        return {
            str(path.relative_to(out)): digest_of(path.read_bytes()) for path in sorted(out.rglob("*.npz"))
        }

    def _settings(self) -> list[str]:
        return ["--profile-path", str(self.profile), "--repository", str(self.repository)]

    @contextmanager
    def driver(self, name: str, *options: str) -> Iterator[Driver]:
        """Run `gateway bulk` on the cluster; what it prints goes into files."""
        command = [
            sys.executable, "-m", "app.cli", "bulk", f"s3://{BUCKET}/in/", "--output", f"s3://{BUCKET}/out",
            "--profile", str(self.profile), "--repository", str(self.repository),
            "--on", "ray", "--worker-cpus", "1", "--json", *options,
        ]  # fmt: skip
        out, err = self.folder / f"{name}.out", self.folder / f"{name}.err"
        with out.open("w") as stdout, err.open("w") as stderr:
            process = subprocess.Popen(command, cwd=ROOT, stdout=stdout, stderr=stderr)
        try:
            yield Driver(process, out, err)
        finally:
            process.kill()
            process.wait(PATIENCE_S)

    def manifests(self) -> Counter[str]:
        """Names of the manifests in the bucket, and how often each was published."""
        client = self.server.client()
        pages = client.get_paginator("list_object_versions").paginate(Bucket=BUCKET, Prefix="out/videos/")
        return Counter(
            row["Key"].removeprefix("out/videos/").removesuffix("/manifest.json")
            for page in pages
            for row in page.get("Versions", ())
            if row["Key"].endswith("/manifest.json")
        )

    def digests(self) -> Digests:
        """Digests of all arrays in the bucket."""
        return {
            key.removeprefix("out/videos/"): digest_of(content)
            for key, content in self._contents("out/videos/")
            if key.endswith(".npz")
        }

    def rows(self) -> list[dict[str, Any]]:
        """The rows of all videos, of all drivers."""
        return [
            json.loads(line)
            for _, content in self._contents("out/run/outcomes/")
            for line in content.splitlines()
        ]

    def _contents(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        client = self.server.client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
            for row in page.get("Contents", ()):
                yield row["Key"], client.get_object(Bucket=BUCKET, Key=row["Key"])["Body"].read()


def digest_of(npz: bytes) -> str:
    """SHA-256 of all arrays of a file with their names, but for `meta_json`, which names the run."""
    digest = hashlib.sha256()
    with np.load(io.BytesIO(npz), allow_pickle=False) as arrays:
        for name in sorted(set(arrays.files) - {"meta_json"}):
            array = arrays[name]
            digest.update(f"{name} {array.dtype} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def crash(run: Run, number: int) -> Crashed:
    """Kill a worker, then a node, then the driver; have another driver finish.

    The process's environment has to name the S3 server.
    """
    patience = PATIENCE_S * max(1, number // 20)
    with RayCluster(2) as cluster:
        with run.driver("first", "--address", cluster.address) as driver:
            driver.until(lambda: len(run.manifests()) >= 1)
            driver.until(lambda: _killed_one(cluster))
            driver.until(lambda: len(run.manifests()) >= number // 4, patience)
            cluster.kill_node()
            cluster.add()
            driver.until(lambda: len(run.manifests()) >= number // 2, patience)
        with variables({"RAY_ADDRESS": cluster.address}), run.driver("second") as driver:
            exit_code = driver.process.wait(10 * patience)
    return Crashed(
        exit_code, driver.stdout.read_text(), driver.stderr.read_text(), run.rows(), run.manifests()
    )


def _killed_one(cluster: RayCluster) -> bool:
    for process in cluster.workers():
        with suppress(psutil.NoSuchProcess):
            process.kill()
            return True
    return False
