"""Settings for each of several Tritons alone, so that each is checked by itself."""

from __future__ import annotations

import contextlib

from app.addresses import host_and_port
from app.engine.endpoints.names import Listed, addresses_of, places
from app.settings import Settings


def each(settings: Settings) -> list[Settings]:
    """Return the settings with one Triton of the list each; names are resolved, but not with TLS or over HTTP.

    Certificates are made for names, so with TLS a name is one server: whichever answers.
    """
    found = []
    texts = [part.strip() for part in settings.triton_url.split(",")]
    for entry, (text, address, repository) in enumerate(
        zip(texts, settings.tritons, settings.repositories, strict=True)
    ):
        targets = [text]
        listed = Listed(*host_and_port(address.grpc))
        if listed.named and not address.tls and not text.startswith("http"):
            with contextlib.suppress(OSError):  # whoever connects says that it doesn't resolve
                targets = [place.target for place in places(entry, listed, addresses_of)]
        one = {"repository": repository, "triton_repositories": ""}
        found += [settings.model_copy(update={**one, "triton_url": target}) for target in targets]
    return found
