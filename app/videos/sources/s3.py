"""Signed URLs of objects in buckets, with the credentials, region and endpoint of AWS's usual variables and files."""

from __future__ import annotations

import threading
from typing import Any

import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from app.errors import SourceUnreachable

_VALID_S = 900


class SignedUrls:
    """Call it for a URL. Without credentials the URLs aren't signed, which is enough for public buckets."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session: Any = None
        self._clients: dict[str | None, Any] = {}

    def __call__(self, bucket: str, key: str, region: str | None) -> str:
        """Return a URL of an object.

        Raises:
            SourceUnreachable: AWS's settings can't be used.
        """
        try:
            url: str = self._client(region).generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=_VALID_S
            )
        except (BotoCoreError, ValueError) as error:
            words = f"the service's settings of S3 can't be used ({type(error).__name__})"
            raise SourceUnreachable(words) from error
        return url

    def _client(self, region: str | None) -> Any:
        """Return the client of a region; clients share the session, which renews credentials."""
        with self._lock:
            if self._session is None:
                self._session = botocore.session.get_session()
            if region not in self._clients:
                self._clients[region] = self._new_client(region)
            return self._clients[region]

    def _new_client(self, region: str | None) -> Any:
        version = "s3v4" if self._session.get_credentials() is not None else UNSIGNED
        client = self._session.create_client("s3", region, config=Config(signature_version=version))
        if ".amazonaws." not in client.meta.endpoint_url:  # a server of the operator's own
            return client
        # By default, botocore signs for the global host, which redirects for new buckets of other regions.
        config = Config(signature_version=version, s3={"addressing_style": "virtual"})
        return self._session.create_client("s3", region, config=config)
