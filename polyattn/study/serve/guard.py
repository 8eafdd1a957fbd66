"""The guard of every request: the server answers only pages of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """Refuses other hosts' names, which a page elsewhere could point here (DNS rebinding), and other origins; adds the
    security headers to every answer.

    Args:
        app: the application behind it.
        hosts: the Host headers of this server, with the port.
    """

    def __init__(self, app: App, hosts: Collection[str]):
        self.app = app
        self.hosts = {host.encode() for host in hosts}
        self.origins = {b"http://" + host for host in self.hosts}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        # WebSockets ignore the same-origin policy, and the page uses none.
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        reason = self._reason(scope["headers"])
        if reason is None:
            await self.app(scope, receive, guarded)
            return
        kind = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await guarded({"type": "http.response.start", "status": 403, "headers": kind})
        await guarded({"type": "http.response.body", "body": reason})

    def _reason(self, headers: list[tuple[bytes, bytes]]) -> bytes | None:
        hosts = [value.lower() for name, value in headers if name == b"host"]
        origins = [value.lower() for name, value in headers if name == b"origin"]
        # Two Host headers could be read differently by different layers.
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            # Browsers omit Origin in plain navigation, so only a foreign one is refused.
            return b"This server answers to its own address only."
        if any(origin not in self.origins for origin in origins):
            return b"This server answers its own pages only."
        return None
