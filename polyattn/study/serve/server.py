"""The server: uvicorn on the loopback address, with limited patience for slow requests."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from polyattn.errors import PolyattnError
from polyattn.study.serve.app import application
from polyattn.study.serve.limits import Limits

LOOPBACK = "127.0.0.1"
CONNECTIONS = 64
HEADER_BYTES = 16_384


def run(port: int, limits: Limits, started: Callable[[str], object] | None) -> None:
    """Serve until interrupted; see `polyattn.study.serve.serve`."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
        listening.listen(CONNECTIONS)  # who comes while the workers start waits
    except (OSError, OverflowError) as error:
        raise PolyattnError(f"port {port} cannot be had ({error}): choose another one, or 0 for any") from None
    with listening:
        # Port 0 became a real one, which the Host headers contain.
        port = listening.getsockname()[1]
        if started is not None:
            started(f"http://{LOOPBACK}:{port}/")
        made(port, limits).run([listening])


def made(port: int, limits: Limits) -> uvicorn.Server:
    """Build the server for a port."""
    hosts = [f"{name}:{port}" for name in (LOOPBACK, "localhost")]

    # uvicorn takes a class, so the limit has to be a class attribute.
    class Patient(Protocol):
        patience = limits.patience

    config = uvicorn.Config(
        application(hosts, limits),
        http=Patient,
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="error",
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
        server_header=False,
    )
    return uvicorn.Server(config)


class Protocol(H11Protocol):
    """HTTP/1.1 with a time limit of `patience` seconds for the headers of a request."""

    patience = 10.0
    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        # uvicorn's keep-alive timer starts after the first request only.
        self.timer = self.loop.call_later(self.patience, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        waits = self.conn.their_state is h11.IDLE
        if not waits and self.timer is not None:
            self.timer.cancel()
            self.timer = None
        # Between requests of one connection the clock starts again.
        elif waits and self.timer is None:
            self.timer = self.loop.call_later(self.patience, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
        super().connection_lost(exc)
