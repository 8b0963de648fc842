"""A bucket of an S3 server as a store, and the only module that imports fsspec.

Credentials, region and server are those of the AWS tools: `AWS_ACCESS_KEY_ID`, `AWS_PROFILE`, `AWS_ENDPOINT_URL` and
the files below `~/.aws`.
"""

from __future__ import annotations

import errno
import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.asyn import sync

from app.videos.stores.base import Stored, checked_name, is_listed

_BLOCK_BYTES = 4 << 20  # of an object, which a read fetches at least
_PART_BYTES = 50 << 20  # of a large upload
_PAGE_NAMES = 1000  # of a list
_ATTEMPTS = 5
_CONNECT_S, _READ_S = 5, 60
_WORDS = (
    (FileNotFoundError, errno.ENOENT, "there is no such bucket or object"),
    (PermissionError, errno.EACCES, "access denied: check the credentials and the rules of the bucket"),
    (TimeoutError, errno.ETIMEDOUT, "the server does not answer: check AWS_ENDPOINT_URL and the network"),
)
# Of botocore's errors, which are no OSError: their class names say what failed, their texts are not for people.
_NO_CREDENTIALS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "CredentialRetrievalError",
)
_AWAY = (
    "EndpointConnectionError", "ConnectionClosedError", "ConnectTimeoutError", "ReadTimeoutError", "SSLError",
    "ProxyConnectionError", "HTTPClientError",
)  # fmt: skip
_EXISTS = ("PreconditionFailed", "ConditionalRequestConflict")


@lru_cache(maxsize=1)
def file_system() -> Any:
    """Return the connection of this process to the server, which all its stores share."""
    return fsspec.filesystem(
        "s3",
        skip_instance_cache=True,
        use_listings_cache=False,  # others write, too
        config_kwargs={"connect_timeout": _CONNECT_S, "read_timeout": _READ_S},
    )


class _Unsupported(OSError):
    """The server does not know what it was asked for."""


class BucketStore:
    """See `ArtifactStore`. Objects appear at once when they are complete: S3 has no half-written ones."""

    def __init__(self, files: Any, bucket: str, prefix: str) -> None:
        self._files = files
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        key = self._key(name)
        with tempfile.NamedTemporaryFile(prefix="gateway-") as file:
            yield cast(BinaryIO, file)
            file.flush()
            with _plainly(name):
                self._files.put_file(file.name, f"{self._bucket}/{key}", chunksize=_PART_BYTES)

    def put(self, name: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        condition = {"IfNoneMatch": "*"} if only_if_absent else {}
        for _ in range(_ATTEMPTS):
            if only_if_absent and self.size(name) is not None:
                return False
            try:
                self._call("put_object", name, Body=data, **condition)
            except FileExistsError:  # or another put is under way, which may fail
                continue
            except _Unsupported:  # a server without conditional writes: not in one step
                condition = {}
                continue
            return True
        raise OSError(errno.EAGAIN, "the object is being written by others", name)

    def open(self, name: str) -> BinaryIO:
        head = self._call("head_object", name)
        fetch = partial(self._fetch, name, head["ETag"])
        return cast(BinaryIO, io.BufferedReader(_Object(int(head["ContentLength"]), fetch), _BLOCK_BYTES))

    def tag(self, name: str) -> str:
        """Return the tag of an object (ETag), which changes with its content.

        Raises:
            FileNotFoundError: there is none of this name.
        """
        return str(self._call("head_object", name)["ETag"])

    def size(self, name: str) -> int | None:
        try:
            return int(self._call("head_object", name)["ContentLength"])
        except FileNotFoundError:
            return None

    def list(self, prefix: str = "") -> Iterator[Stored]:
        start = prefix.rstrip("/")
        below = self._prefix + (f"{checked_name(start)}/" if start else "")
        more: dict[str, str] | None = {}
        while more is not None:
            with _plainly(start):
                page = self._files.call_s3(
                    "list_objects_v2", Bucket=self._bucket, Prefix=below, MaxKeys=_PAGE_NAMES, **more
                )
            for row in page.get("Contents", ()):
                name = row["Key"].removeprefix(self._prefix)
                if not name.endswith("/") and is_listed(name):
                    yield Stored(name, int(row["Size"]))
            token = page.get("NextContinuationToken")
            more = {"ContinuationToken": token} if token else None

    def delete(self, name: str) -> None:
        self._call("delete_object", name)

    def within(self, prefix: str) -> BucketStore:
        below = checked_name(prefix.rstrip("/"))
        return BucketStore(self._files, self._bucket, self._prefix + below)

    def _call(self, method: str, name: str, **arguments: Any) -> Any:
        key = self._key(name)
        with _plainly(name):
            return self._files.call_s3(method, Bucket=self._bucket, Key=key, **arguments)

    def _fetch(self, name: str, etag: str, start: int, end: int) -> bytes:
        """Return a part of an object, if it is still the one that was opened."""
        key = self._key(name)

        async def part() -> bytes:
            wanted = {
                "Bucket": self._bucket,
                "Key": key,
                "Range": f"bytes={start}-{end - 1}",
                "IfMatch": etag,
            }
            answer = await self._files._call_s3("get_object", **wanted)  # noqa: SLF001  # its only way to ask for a tag
            async with answer["Body"] as body:
                return cast(bytes, await body.read())

        try:
            with _plainly(name):
                return cast(bytes, sync(self._files.loop, part))
        except FileExistsError:
            raise OSError(errno.ESTALE, "the object was replaced while it was read", name) from None

    def _key(self, name: str) -> str:
        try:
            checked_name(name).encode()
        except UnicodeEncodeError:
            raise OSError(errno.EILSEQ, "a name in a bucket is UTF-8 text", name) from None
        return self._prefix + name


class _Object(io.RawIOBase):
    """An object that is read in parts: `fetch` returns the bytes from a position to another."""

    def __init__(self, nbytes: int, fetch: Callable[[int, int], bytes]) -> None:
        self._nbytes = nbytes
        self._fetch = fetch
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._nbytes}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "a position before the beginning")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._part(self._position + len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._part(self._nbytes)

    def _part(self, end: int) -> bytes:
        """Return the bytes from here to `end`, or to the end of the object."""
        end = min(self._nbytes, end)
        data = self._fetch(self._position, end) if end > self._position else b""
        self._position += len(data)
        return data


@contextmanager
def _plainly(name: str) -> Iterator[None]:
    """Tell every error of the library as an OSError in plain words, without its text.

    Raises:
        FileExistsError: a conditional write found the object.
        _Unsupported: the server does not know the request, such as a conditional write.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001  # whatever the libraries raise is told as one kind
        code = _code(error)
        if code in _EXISTS or isinstance(error, FileExistsError):
            raise FileExistsError(errno.EEXIST, "the object exists", name) from None
        if code == "NotImplemented":
            raise _Unsupported(errno.ENOSYS, "the server does not support this request", name) from None
        for kind, number, words in _WORDS:
            if isinstance(error, kind):
                raise kind(number, words, name) from None
        raise OSError(errno.EIO, _words(error, code), name) from None


def _code(error: BaseException) -> str:
    """Return the code of the server's answer; empty where there was none."""
    cause: Any = error if hasattr(error, "response") else error.__cause__
    response = getattr(cause, "response", None)
    return (
        str(response["Error"].get("Code", "")) if isinstance(response, dict) and "Error" in response else ""
    )


def _words(error: BaseException, code: str) -> str:
    kind = type(error).__name__
    if kind in _NO_CREDENTIALS:
        return "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if kind in _AWAY:
        return "the server can't be reached: check AWS_ENDPOINT_URL and the network"
    return f"the server refused or broke off ({code or kind})"
