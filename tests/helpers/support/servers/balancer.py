"""A balancer of gRPC calls, as an L7 proxy in front of several Tritons is one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import grpc

_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


class Balancer(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Listens at `url` and hands each call to one of the servers, in turn unless `choose` says which (by number)."""

    def __init__(self, targets: Sequence[str]) -> None:
        self._channels = [grpc.insecure_channel(target, options=_OPTIONS) for target in targets]
        turn = itertools.cycle(range(len(targets)))
        self.choose: Callable[[str], int] = lambda _: next(turn)
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=[self], options=_OPTIONS)
        self.url = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def __enter__(self) -> Balancer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(0).wait()
        for channel in self._channels:
            channel.close()

    def service(self, call: Any) -> Any:
        """Answer one call; `call.method` is its path."""
        return grpc.unary_unary_rpc_method_handler(
            lambda body, context: self._pass_on(call.method, body, context)
        )

    def _pass_on(self, method: str, body: bytes, context: Any) -> bytes:
        try:
            answer: bytes = self._channels[self.choose(method)].unary_unary(method)(body, timeout=30)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
        return answer
