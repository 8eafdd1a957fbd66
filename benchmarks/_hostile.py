"""Random and hostile requests to `polyattn serve`, each kind a function of a generator and the server's address."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from polyattn import catalog

MARK = "<script>alert('hostile')</script>"
MARKUP = (
    MARK,
    '"><img src=x onerror=alert(1)>',
    "';alert(1)//",
    "</script><svg onload=alert(1)>",
    "{{7*7}}",
    "javascript:a",
)
JOBS = ("check", "layer", "proof")

BODIES = (
    b"", b"{", b"nul", b"NaN", b"[]", b"3", b'"x"', b"{}", b"\xff\xfe\x00", b"1" * 6000, MARK.encode(),
    b'{"text": 3}', b'{"text": NaN}', b'{"text": "\\ud800"}', b'{"text": "x", "text": []}',
    b'{"text": "x[N]; y[a]=x[a]", "sizes": []}', b'{"sizes": 1e999, "text": "x[N]; y[a]=x[a]"}',
    b'{"text": "\\ud83d x[N]", "job": "layer"}', b"[" * 60_000, b'{"a":' * 10_000,
)  # fmt: skip
"""No requests of the page."""
NO_HTTP = (
    b"", b"\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nHost", b"\x16\x03\x01\x02\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"A" * 100_000,
)  # fmt: skip


@dataclass(frozen=True)
class Hostile:
    """A request as raw bytes, of some kind."""

    kind: str
    data: bytes


def post(job: str, body: bytes, host: str, *headers: str, kind: str = "application/json") -> bytes:
    lines = [
        f"POST /{job} HTTP/1.1",
        f"Host: {host}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("utf-8", "surrogatepass") + body


def asked(job: str, host: str, text: object, **more: object) -> bytes:
    return post(job, json.dumps({"text": text, "sizes": {}, "against": "nl", **more}).encode(), host)


def damaged(r: random.Random, host: str) -> bytes:
    text = str(catalog.get(r.choice(catalog.names("third_order"))))
    for _ in range(r.randint(0, 3)):
        a, b = sorted(r.randrange(len(text) + 1) for _ in range(2))
        text = (
            text[:a]
            + r.choice(["", text[a : a + 9], "(", "]", "softmax[e](", "1/0", "é", "\x00", MARK])
            + text[b if r.random() < 0.2 else a :]
        )
    return asked(r.choice(JOBS), host, text, against=r.choice(catalog.names("third_order")))


def valid(r: random.Random, host: str) -> bytes:
    sizes = {n: str(r.choice([1, 7, 28, 784, 10**6])) for n in r.sample("BNCHW", 2)}
    return asked(
        r.choice(JOBS),
        host,
        str(catalog.get(r.choice(catalog.names("third_order")))),
        sizes=sizes,
        against=r.choice(catalog.names("third_order")),
    )


def long(r: random.Random, host: str) -> bytes:
    n = r.choice([300, 2000, 7000, 30_000])
    kinds: list[Callable[[], str]] = [
        lambda: "x[N];y[a]=" + "+".join(["x[a]"] * (n // 5)),
        lambda: "x[N];y[a]=" + "*".join(["x[a]"] * (n // 5)),
        lambda: "x[N];y[a]=x[a]*" + "*".join(f"x[i{k}]" for k in range(n // 8)),
        lambda: (
            "x[N];t0[a]=x[a];"
            + ";".join(f"t{k + 1}[a]=t{k}[a]*t{k}[a]" for k in range(min(n // 20, 60)))
            + f";y[a]=t{min(n // 20, 60)}[a]"
        ),
        lambda: "x[N];y[a]=" + "*".join(["(x[a]+w[a]+v[a])"] * (n // 20)),
        lambda: "x[N];y[a]=x[a]*" + "w" * n,
        lambda: "x[N];y[a]=x[a]*" + "9" * n,
        lambda: "#" * n,
        lambda: ";".join(f"x{k}[N{k}]" for k in range(n // 9)) + ";y[a]=x0[a]",
        lambda: "x[N,C];y[a,b]=" + "*".join(f"x[a,i{k}]*w{k}[i{k},i{k + 1}]" for k in range(n // 22)) + "*x[a,b]",
        lambda: "x[N,C];y[a,b]=" + "+".join(f"x[a,d]*w{k}[d,b]*x[e,f]*v{k}[f,d]" for k in range(n // 35)),
    ]
    return asked(r.choice(JOBS), host, r.choice(kinds)())


def nested(r: random.Random, host: str) -> bytes:
    depth = r.choice([10, 39, 41, 1000, 20_000])
    if r.random() < 0.5:
        return asked(r.choice(JOBS), host, "x[N];y[a]=" + "(" * depth + "x[a]" + ")" * depth)
    inner = r.choice(["[", '{"a":']) * depth
    return post(r.choice(JOBS), (inner + "1").encode(), host)


def huge_sizes(r: random.Random, host: str) -> bytes:
    number = r.choice(
        ["9" * 15, "9" * 16, "9" * 5000, "0", "-1", "1e9", "", "٣", MARK, 10**9, 1.5, None, [1], {"a": 1}, True]
    )
    name = r.choice([*"BNCHWGKR", "Q", MARK, "__class__", ""])
    text = str(catalog.get(r.choice(["nl", "poly_nl", "ba_transform", "tesa"])))
    return asked("layer", host, text, sizes={name: number, r.choice("BNC"): r.choice(["1", "9" * 15])})


def markup(r: random.Random, host: str) -> bytes:
    evil = r.choice(MARKUP)
    text = r.choice(
        [
            evil,
            f"x[N,C]; y[a,b] = x[a,b]*{evil}",
            f"x[{evil},C]; y[a,b] = x[a,b]",
            f"# {evil}\nx[N,C]; y[a,b] = x[a,d]*w[d,b]",
            f"x[N,C]; y[a,b] = {evil}(x[a,b])",
        ]
    )
    return asked(
        r.choice(JOBS), host, text, against=r.choice(["nl", evil]), sizes={evil: "3"} if r.random() < 0.3 else {}
    )


def bad_json(r: random.Random, host: str) -> bytes:
    return post(r.choice(JOBS), known_or_noise(r, BODIES, 40), host)


def wrong_method(r: random.Random, host: str) -> bytes:
    method = r.choice(["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "PATCH", "BREW", "CONNECT", "get"])
    path = r.choice(
        [
            "/",
            "/check",
            "/layer",
            "/static/page.css",
            "/static/../app.py",
            "/static/%2e%2e/app.py",
            "/..%2f..%2fetc/passwd",
            f"/{'a' * 3000}",
            "/%00",
            "/static/",
            "//e.org/",
            "*",
            "/?<script>alert(1)</script>",
            "/%3Cscript%3Ealert(1)",
            "http://e.org/",
            "/docs",
        ]
    )
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


def headers(r: random.Random, host: str) -> bytes:
    good = json.dumps({"text": "x[N]; y[a]=x[a]"}).encode()
    port = host.rpartition(":")[2]
    start = f"POST /check HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    kinds: list[Callable[[], bytes]] = [
        lambda: post("check", good, host, "X-Long: " + "a" * r.choice([100, 10_000, 60_000])),
        lambda: post("check", good, host, *[f"X-{k}: {MARK}" for k in range(r.choice([10, 500, 3000]))]),
        lambda: post(
            "check",
            good,
            r.choice(
                ["e.org", f"e.org:{port}", MARK, "", f"127.0.0.1:{port}@e.org", "localhost", f"127.0.0.1.e.org:{port}"]
            ),
        ),
        lambda: post("check", good, host, f"Host: e.org:{port}"),
        lambda: post("check", good, host, f"Origin: {r.choice(['http://e.org', 'null', MARK, f'https://{host}'])}"),
        lambda: post("check", good, host, kind=r.choice(["text/plain", "", "application/x-www-form-urlencoded", MARK])),
        lambda: post("check", good, host, "Transfer-Encoding: chunked"),
        lambda: post("check", good, host, "Content-Length: 3"),
        lambda: f"{start}Content-Length: {r.choice(['-1', '99999999999', 'x', '50'])}\r\n\r\n{{".encode(),
        lambda: (
            f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Key: a\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        ),
        lambda: f"{start}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nffffffff\r\n{{}}".encode(),
    ]
    return r.choice(kinds)()


def no_http(r: random.Random, host: str) -> bytes:
    return known_or_noise(r, NO_HTTP, 200)


def known_or_noise(r: random.Random, known: Sequence[bytes], noise: int) -> bytes:
    """One of what is known to be wrong, or so many random bytes."""
    return r.choice([*known, r.randbytes(noise)])


KINDS: dict[str, Callable[[random.Random, str], bytes]] = {
    f.__name__.replace("_", " "): f
    for f in (valid, damaged, long, nested, huge_sizes, markup, bad_json, wrong_method, headers, no_http)
}


def generated(count: int, seed: int, host: str) -> list[Hostile]:
    """So many requests, each kind in its turn."""
    r = random.Random(seed)
    names = list(KINDS)
    return [Hostile(name, KINDS[name](r, host)) for name in (names[k % len(names)] for k in range(count))]
