"""A run of `gateway bulk` for Prometheus to watch: many links to one video, and a file that is none."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from benchmarks import ROOT
from deploy.local.triton_server import free_ports

PROFILE = "components: {core_object_detections: {}}\n"
LINKS = 20_000  # more than are analysed while anybody watches
SETTINGS = {
    "GATEWAY_HOST": "127.0.0.1", "GATEWAY_EMBEDDED_THREADS": "1", "GATEWAY_VARIANT": "n", "GATEWAY_MANIFEST": "",
}  # fmt: skip


@contextlib.contextmanager
def bulk_run(folder: Path, video: Path, repository: Path, prometheus: Path) -> Iterator[None]:
    """A run that has begun, on one worker with the embedded engine; it is stopped at the end.

    Args:
        folder: for all that the run reads and writes.
        video: every name of the corpus leads to it.
        repository: the models.
        prometheus: the folder of Prometheus's configuration, which reads the address from `bulk/`.

    Raises:
        RuntimeError: no video was done.
    """
    (port,) = free_ports(1)
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    (corpus / "0.mp4").write_bytes(b"no video")
    for number in range(LINKS):
        (corpus / f"{number:05d}.mp4").symlink_to(video.resolve())
    (folder / "profile.yaml").write_text(PROFILE)
    command = [
        sys.executable, "-m", "app.cli", "bulk", str(corpus), "--profile", str(folder / "profile.yaml"),
        "--output", str(folder / "out"), "--repository", str(repository), "--engine", "embedded", "--workers", "1",
        "--metrics-port", str(port), "--no-tables",
    ]  # fmt: skip
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **SETTINGS}, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            if not any(" done " in line for line in process.stdout):
                raise RuntimeError("gateway bulk ended before a video was done")
            threading.Thread(target=deque, args=(process.stdout, 0), daemon=True).start()
            _announce(prometheus / "bulk" / "run.yml", port)
            yield
        finally:
            process.terminate()
            process.wait()


def _announce(path: Path, port: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[{{targets: ['127.0.0.1:{port}']}}]\n")
