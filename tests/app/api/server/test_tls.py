"""TLS in front of the gateway and between it and Triton, with certificates made here; real handshakes only."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from support.models.repository import CATALOGUE
from support.paths import ROOT
from support.servers.authority import Authority
from support.servers.gateway import client, png, scene
from support.servers.listening import gateway as running
from support.waiting import PATIENCE_S, eventually

from app.api.server import uvicorn_options
from app.engine.triton.client import Tls
from app.engine.triton.engine import TritonEngine, TritonOptions
from app.engine.weights import WeightsBook
from app.settings import Settings
from deploy.local.triton_server import TritonServer, free_ports

BODY = png(scene(320, 320, (1, 64, 96, 32)))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The one that is trusted."""
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("tls") / "theirs")


def _context(authority: Authority, own: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.ca)
    if own is not None:
        context.load_cert_chain(*own)
    return context


def _live(http: httpx2.Client) -> bool:
    return http.get("/readyz").status_code == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_the_service_speaks_https(
    repository: Path, tmp_path: Path, authority: Authority, stranger: Authority, workers: int
) -> None:
    """A frame goes over TLS 1.2 or newer; who trusts another authority sees that, and plain HTTP is no way in."""
    port, (cert, key) = free_ports(1)[0], authority.signed(f"server{workers}")
    base = f"https://localhost:{port}"
    with (
        httpx2.Client(base_url=base, verify=_context(authority), timeout=PATIENCE_S) as http,
        running(
            repository, tmp_path / "log", lambda: _live(http),
            port=port, tls_cert=cert, tls_key=key, workers=workers,
        ),
    ):  # fmt: skip
        assert http.post("/v1/detect", content=BODY).status_code == 200
        with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx2.get(f"{base}/livez", verify=_context(stranger))
        with pytest.raises(httpx2.TransportError):
            httpx2.get(f"http://localhost:{port}/livez")
        old = _context(authority)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{base}/livez", verify=old)
        http.close()  # a stop waits for the peer of a TLS connection, whose client here reads nothing more


def test_callers_may_have_to_show_a_certificate(
    repository: Path, tmp_path: Path, authority: Authority, stranger: Authority
) -> None:
    """With a client authority named, one of its certificates is needed before any HTTP; the port for operation, which
    probes without a certificate must reach, is plain.
    """
    ports, (cert, key) = free_ports(2), authority.signed("server")
    base = f"https://localhost:{ports[0]}"
    mine = _context(authority, authority.signed("caller"))
    with (
        httpx2.Client(base_url=base, verify=mine, timeout=PATIENCE_S) as http,
        running(
            repository, tmp_path / "log",
            lambda: httpx2.get(f"http://localhost:{ports[1]}/readyz").status_code == 200,
            port=ports[0], operate_port=ports[1], tls_cert=cert, tls_key=key, tls_client_ca=authority.ca,
        ),
    ):  # fmt: skip
        assert http.post("/v1/detect", content=BODY).status_code == 200
        for own in (None, stranger.signed("other")):
            with pytest.raises(httpx2.TransportError):
                httpx2.get(f"{base}/v1/branches", verify=_context(authority, own))
        http.close()


@pytest.mark.parametrize("names", [("tls_cert", "tls_key"), ("triton_tls_cert", "triton_tls_key")])
def test_files_that_are_no_certificates_are_refused_at_the_start(
    tmp_path: Path, authority: Authority, names: tuple[str, str]
) -> None:
    """A missing file, text, and a key of another certificate each are a sentence with the variable's name."""
    cert, key = authority.signed("one")
    _, other = authority.signed("another")
    text = tmp_path / "text"
    text.write_text("no certificate")
    common = {"triton_url": "grpcs://gpu7"}
    for pair in ((tmp_path / "none", key), (text, key), (cert, text), (cert, other)):
        (fault,) = uvicorn_options.faults(Settings(**common, **dict(zip(names, pair, strict=True))))
        assert fault.startswith(f"GATEWAY_{names[0].upper()}: ")
    assert uvicorn_options.faults(Settings(**common, **dict(zip(names, (cert, key), strict=True)))) == []
    authorities = {"triton_tls_ca": text, "tls_client_ca": text, "tls_cert": cert, "tls_key": key}
    assert len(uvicorn_options.faults(Settings(**common, **authorities))) == 2


def test_tls_settings_that_do_nothing_are_refused() -> None:
    """A certificate for Triton without grpcs:// would look like TLS and be none."""
    for given in ({"triton_tls_ca": "/ca"}, {"triton_tls_cert": "/c", "triton_tls_key": "/k"}):
        with pytest.raises(ValueError, match="begins with grpcs://"):
            Settings(**given)


def _triton(repository: Path, folder: Path, authority: Authority, *more: str) -> TritonServer:
    cert, key = authority.signed("triton")
    extra = ["--grpc-use-ssl", "1", "--grpc-server-cert", str(cert), "--grpc-server-key", str(key), *more]
    return TritonServer(repository, folder / "triton.log", load=["yolo11n_320"], extra=extra)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, None),
        ({"host": "127.0.0.2"}, None),
        ({"host": "0.0.0.0"}, "whoever reaches it may use it"),  # noqa: S104  # the case in question
        ({"host": "gateway.example", "api_keys_file": "/keys"}, "travel unencrypted"),
        ({"host": "::", "api_keys_file": "/keys", "trusted_proxies": "10.0.0.0/8"}, None),
        ({"host": "::", "api_keys_file": "/keys", "tls_cert": "/c", "tls_key": "/k"}, None),
    ],
)
def test_an_open_door_is_a_warning(given: dict[str, str], said: str | None) -> None:
    """Beyond this host, no keys and unencrypted keys are each said at the start; neither is refused."""
    warnings = uvicorn_options.warnings(Settings(**given))  # type: ignore[arg-type]  # pydantic makes paths of them
    assert len(warnings) == (said is not None)
    assert all(said in warning for warning in warnings if said)


@pytest.fixture(scope="module")
def encrypted(
    repository: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The gRPC address of a real Triton that speaks TLS."""
    with _triton(repository, tmp_path_factory.mktemp("triton"), authority) as server:
        yield f"localhost:{server.grpc_url.rpartition(':')[2]}"


@pytest.mark.triton
@pytest.mark.parametrize("transport", ["shared_memory", "bytes"])
def test_a_real_triton_is_reached_over_tls(
    repository: Path, encrypted: str, authority: Authority, transport: str
) -> None:
    """grpcs:// with Triton's authority serves, however tensors travel."""
    common = {"engine": "triton", "triton_transport": transport}
    with client(
        repository, **common, triton_url=f"grpcs://{encrypted}", triton_tls_ca=authority.ca
    ) as served:
        answer = served.post("/v1/detect", content=BODY)
        assert (answer.status_code, answer.json()["models_used"][0]["runtime"]) == (200, "triton")


@pytest.mark.triton
def test_smoke_reaches_a_triton_over_tls(encrypted: str, authority: Authority) -> None:
    """The same settings serve `gateway smoke`."""
    done = _smoke(f"grpcs://{encrypted}", GATEWAY_TRITON_TLS_CA=str(authority.ca))
    assert done.returncode == 0, done.stderr  # what /readyz waits for is there
    assert "yolo11n_320" in done.stdout


@pytest.mark.triton
@pytest.mark.parametrize("known", [True, False], ids=["another authority", "no TLS"])
def test_nothing_falls_back_to_plain_text(encrypted: str, stranger: Authority, known: bool) -> None:
    """With another authority, or without TLS, Triton is unreachable, and the state gives the reason."""
    tls, said = (Tls(ca=stranger.ca), r"(?i)certificate|handshake|ssl") if known else (None, ".")
    engine = TritonEngine(CATALOGUE, encrypted, WeightsBook(None, None), TritonOptions(tls=tls))
    try:
        state = engine.ready()["yolo11n_320"]
        assert not state.ready
        assert re.search(said, state.reason or "")
    finally:
        engine.close()


@pytest.mark.triton
@pytest.mark.parametrize(("name", "served"), [("localhost", True), ("gpus.example", False)])
def test_a_name_s_address_shows_the_name_s_certificate(
    encrypted: str, authority: Authority, name: str, served: bool
) -> None:
    """One of several addresses of a name is trusted only with a certificate of that name."""
    address = f"127.0.0.1:{encrypted.rpartition(':')[2]}"
    options = TritonOptions(tls=Tls(ca=authority.ca), endpoint=address, authority=name)
    engine = TritonEngine(CATALOGUE, address, WeightsBook(None, None), options)
    try:
        if served:
            eventually(lambda: engine.ready()["yolo11n_320"].ready)
        else:
            assert not engine.ready()["yolo11n_320"].ready
            assert re.search(
                r"Hostname Verification Check failed", engine.ready()["yolo11n_320"].reason or ""
            )
    finally:
        engine.close()


def _smoke(url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "smoke", "--triton-url", url, "--variant", "n", "--branches", "yolo11n_320"],
        cwd=ROOT, env=kept | variables, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.triton
def test_a_real_triton_may_ask_for_the_gateway_s_certificate(
    repository: Path, tmp_path: Path, authority: Authority, stranger: Authority
) -> None:
    """Mutual TLS: ours from the right authority is let in; none, or another's, isn't."""
    mutual = ("--grpc-use-ssl-mutual", "1", "--grpc-root-cert", str(authority.ca))
    with _triton(repository, tmp_path, authority, *mutual) as server:
        url = f"localhost:{server.grpc_url.rpartition(':')[2]}"
        for own, welcome in (
            (authority.signed("gateway"), True),
            (stranger.signed("gateway"), False),
            ((None, None), False),
        ):
            tls = Tls(authority.ca, *own)
            engine = TritonEngine(CATALOGUE, url, WeightsBook(None, None), TritonOptions(tls=tls))
            try:
                limit = time.monotonic() + PATIENCE_S
                while not (settled := _settled(engine, welcome)) and time.monotonic() < limit:
                    time.sleep(0.05)
                assert settled, engine.ready()["yolo11n_320"]
            finally:
                engine.close()


def _settled(engine: TritonEngine, welcome: bool) -> bool:
    """Let in: ready. Sent away: not ready since Triton ended the handshake, and not since nothing was tried yet."""
    state = engine.ready()["yolo11n_320"]
    sent_away = re.search(r"(?i)socket closed|certificate|handshake|ssl|reset", state.reason or "")
    return state.ready if welcome else not state.ready and sent_away is not None
