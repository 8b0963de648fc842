"""A real S3 server for tests (moto), in a process of its own on a free port; it never outlives the test process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import pytest

from app.videos.stores import remote
from support.waiting import PATIENCE_S

KEY, SECRET = (
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
)  # the ones of Amazon's own examples
# It ends when its input ends: with stop(), and with a test process that is killed.
_PROGRAM = """
import logging, sys
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address=sys.argv[1], port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class S3Server:
    """Start with `with S3Server() as server:`; it holds no bucket then, and keeps everything in memory.

    `address`: of this machine.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self._address = address
        self.url = ""
        self._process: subprocess.Popen[str] | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables with which a client finds it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": self._address,
        }

    def client(self) -> Any:
        """A client that shares nothing with the code under test."""
        import boto3  # noqa: PLC0415  # takes a second to import

        return boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id=KEY, aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )  # fmt: skip

    def bucket(self, name: str) -> str:
        """Make a bucket and return its URL."""
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"

    def __enter__(self) -> S3Server:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, self._address],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        )  # fmt: skip
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            self._process.communicate()
            raise RuntimeError("the S3 server did not start")
        self.url = f"http://{self._address}:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()  # it keeps nothing
        self._process.communicate(timeout=PATIENCE_S)


@contextlib.contextmanager
def reachable(server: S3Server, **variables: str) -> Iterator[S3Server]:
    """Let this process find the server by the usual variables, and others that are given."""
    remote.file_system.cache_clear()
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {**server.environment, **variables}.items():
            patched.setenv(name, value)
        yield server
    remote.file_system.cache_clear()
