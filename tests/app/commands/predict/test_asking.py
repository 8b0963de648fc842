"""Gateways that are busy, away, behind TLS or keys, or no gateways at all, under the commands that answer files."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import pty
import socket
import ssl
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT
from support.servers.authority import Authority
from support.servers.gateway import png, scene

from app import cli
from app.commands.predict import asking
from app.settings import unknown_variables
from deploy.local.triton_server import free_ports

ANSWER: dict[str, Any] = {
    "places": [{"category_id": 1, "category": "bar", "probability": 0.5}],
    "image": {"width": 64, "height": 64},
    "branch": {"name": "places365_resnet50_224"},
    "warnings": [],
}
BUSY = {"code": "overloaded", "detail": "the queue is full", "what_to_do": "Send it again."}
# Status, headers and body of an answer.
Reply = tuple[int, dict[str, str], bytes]
Run = Callable[..., tuple[int, str, str]]


def said(document: object, status: int = 200, **headers: str) -> Reply:
    """An answer in JSON."""
    return status, headers, json.dumps(document).encode()


class Stub:
    """A server that gives its replies one after another, the last one for ever; `keys` are what came with each."""

    def __init__(self, *replies: Reply, tls: tuple[Path, Path] | None = None, port: int = 0) -> None:
        stub, self.keys = self, []
        self._replies = list(replies)

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                stub.keys.append(self.headers.get("x-api-key"))
                status, headers, body = stub._replies.pop(0) if len(stub._replies) > 1 else stub._replies[0]
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A caller that has left is nobody's failure."""

        self._server = Server(("127.0.0.1", port), Handler)
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Stub:
        threading.Thread(target=self._server.serve_forever, args=(0.01,)).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`gateway places a.png b.png` with further options, in a folder of its own: code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Path(name).write_bytes(png(scene(64, 64)))

    def command(*options: str) -> tuple[int, str, str]:
        code = cli.main(["places", "a.png", "b.png", "--jobs", "1", *options])
        output = capsys.readouterr()
        return code, output.out, output.err

    return command


def test_retry_after_is_waited_for(run: Run) -> None:
    """429 and 503 that say when to come again are asked again then; the rows are as if nothing had been."""
    with Stub(
        said(BUSY, 429, Retry_After="1"), said(BUSY, 503, Retry_After="0"), said(ANSWER), said(ANSWER)
    ) as stub:
        code, out, err = run("--url", stub.url)
    assert code == 0
    assert out.count("bar 0.50") == 2
    assert "the gateway is busy and asks to wait 1 s" in err
    assert len(stub.keys) == 4


def test_waiting_has_an_end(run: Run) -> None:
    """A gateway that asks for more than --wait allows is a failed row, and so is one that doesn't say when."""
    with Stub(said(BUSY, 429, Retry_After="3600"), said(BUSY, 503), said(ANSWER)) as stub:
        code, out, _ = run("--url", stub.url, "--wait", "5")
    assert code == 1
    first, second = out.splitlines()[1:]
    assert "failed: the queue is full (--wait allows more than 5 s.)" in first
    assert "failed: the queue is full (Send it again.)" in second


@contextlib.contextmanager
def leaving() -> Iterator[tuple[str, int]]:
    """A gateway that answers once and then takes no connection any more: its address and its port."""
    with Stub(said(ANSWER), port=free_ports(1)[0]) as stub:
        handler = stub._server.RequestHandlerClass
        answered = handler.do_POST

        def once(self: Any) -> None:
            stub._server.socket.shutdown(
                socket.SHUT_RDWR
            )  # closed alone, it may listen until its thread looks
            stub._server.socket.close()
            answered(self)
            self.close_connection = True

        handler.do_POST = once
        yield stub.url, stub._server.server_port


def test_a_gateway_that_comes_back_is_found_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has answered, a gateway that is away is asked again for as long as --wait allows."""
    with leaving() as (url, port), contextlib.ExitStack() as later, monkeypatch.context() as patched:
        # It comes back in the first pause.
        come_back = functools.cache(lambda: later.enter_context(Stub(said(ANSWER), port=port)))
        patched.setattr(asking.time, "sleep", lambda _: come_back())
        code, out, err = run("--url", url)
    assert code == 0
    assert out.count("bar 0.50") == 2
    assert "the gateway is away; trying again" in err


def test_a_gateway_that_goes_away_leaves_the_rest_untried(run: Run) -> None:
    """Answered rows stay, the exit code is 1, and inputs that were not tried are counted."""
    with leaving() as (url, _):
        code, out, err = run("--url", url, "--wait", "0")
    assert code == 1
    assert out.count("bar 0.50") == 1
    assert "nobody answers there" in err
    assert "1 of 2 answered" in err
    assert "1 not tried" in err


def test_a_key_is_sent_and_never_shown(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From the environment, a file or the command line; a wrong one ends the run with a hint that doesn't repeat it."""
    (tmp_path / "key").write_text("gw_file\n")
    refused = {"code": "unauthorized", "detail": "no key matches", "what_to_do": "Send one."}
    with Stub(said(ANSWER)) as stub:
        monkeypatch.setenv("GATEWAY_KEY", "gw_environment")
        assert run("--url", stub.url)[0] == 0
        assert run("--url", stub.url, "--api-key-file", "key")[0] == 0
        assert run("--url", stub.url, "--key", "gw_line")[0] == 0
    assert stub.keys == ["gw_environment"] * 2 + ["gw_file"] * 2 + ["gw_line"] * 2
    assert unknown_variables(["GATEWAY_KEY"]) == []
    with Stub(said(refused, 401)) as stub:
        code, out, err = run("--url", stub.url, "--key", "gw_secret")
    assert len(stub.keys) == 1
    assert code == 2
    assert "no key matches; GATEWAY_KEY holds the key" in err
    assert "gw_" not in out + err
    code, _, err = run("--url", "http://me:gw_secret@127.0.0.1:1")
    assert (code, "gw_secret" in err) == (2, False)


def test_https_with_an_authority_of_ones_own(run: Run, tmp_path: Path) -> None:
    """--cacert says who signed; without it nobody is believed, and the line says what to do."""
    authority = Authority(tmp_path / "authority")
    with Stub(said(ANSWER), tls=authority.signed("server")) as stub:
        assert run("--url", stub.url, "--cacert", str(authority.ca))[0] == 0
        code, _, err = run("--url", stub.url)
    assert code == 2
    assert "--cacert names who signed" in err
    code, _, err = run("--url", "https://127.0.0.1:1", "--cacert", "nope.pem")
    assert (code, "--cacert: nope.pem" in err) == (2, True)


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        ((404, {}, b"<html>not here</html>"), 2, "doesn't answer like a gateway: HTTP 404"),
        ((301, {"Location": "https://there.example/"}, b""), 2, "301, see https://there.example/"),
        ((200, {}, b"<html>hello</html>"), 2, "the answer is no JSON object"),
        ((502, {}, b"<html>bad gateway</html>"), 1, "failed: HTTP 502"),
        ((413, {}, b"too large"), 1, "failed: HTTP 413"),
        (said({"code": "validation_failed", "detail": "query.k: no"}, 422), 2, "query.k: no; `gateway branches`"),
        (said({"code": "invalid_image", "detail": "\x1b[31mred"}, 400), 1, "failed: \\x1b[31mred"),
    ],
)  # fmt: skip
def test_refusals_are_lines(run: Run, reply: Reply, code: int, words: str) -> None:
    """Refusals by a proxy, by something else, of the command line or of one input are one line each, safe to print."""
    with Stub(reply) as stub:
        found, out, err = run("--url", stub.url)
    assert found == code
    assert words in out + err
    assert "\x1b" not in out + err
    assert "Traceback" not in err


def test_a_bar_is_drawn_on_a_terminal_alone(run: Run, tmp_path: Path) -> None:
    """On a terminal there is one beside the rows; in a pipe there is none, and stdout has nothing but rows."""
    with Stub(said(ANSWER)) as stub:
        assert "input/s" not in "".join(run("--url", stub.url)[1:])
        mine, its = pty.openpty()
        termios.tcsetwinsize(its, (24, 80))
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", "places", "a.png", "b.png", "--url", stub.url],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=its, stdout=subprocess.PIPE,
            check=True, text=True,
        )  # fmt: skip
        os.close(its)
        with open(mine, "rb", closefd=True) as terminal:  # noqa: PTH123  # a descriptor
            drawn = terminal.read1(1 << 16)
    assert b"/2 [" in drawn
    assert done.stdout.count("bar 0.50") == 2
    assert "\r" not in done.stdout
