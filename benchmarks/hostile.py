"""Random and hostile requests to `polyattn serve` over loopback: none hangs, none crashes, nothing comes back raw.

    polyattn bench hostile --requests 2000 --seed 0

starts the server as the command line does, sends raw bytes from several connections at once, and writes
results/hostile.json: how many requests of each kind, what statuses came back, the longest wait, every failure, and
whatever the server wrote. Exit status 1 if there is a failure, or a word of the server's.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _common import machine
from _hostile import Hostile, asked, generated

from polyattn import catalog

CONNECTIONS = 16
"""At once: requests that never end are waited for while others are computed."""
STOPPED = "this takes more than"
RAW = ("<script>alert", "<img src=x", "<svg onload")
"""What must not be in an answer that a browser could take for HTML."""


def exchange(port: int, data: bytes, within: float) -> bytes | None:
    """What comes back until the server closes; None where it does not within so many seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=within) as connection:
        found, end = b"", time.monotonic() + within
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR) if not data else None
            while part := connection.recv(1 << 16):
                found += part
                connection.settimeout(max(0.01, end - time.monotonic()))
        except TimeoutError:
            return None
        except OSError:
            pass  # refused while it was still being sent
        return found


def fault(answer: bytes | None) -> str:
    """What is wrong with an answer; "" if nothing is."""
    if answer is None:
        return "hangs"
    if not answer:
        return ""  # closed without a word: what came was no HTTP
    head, _, body = answer.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.1 (\d{3})", head)
    if status is None:
        return "no HTTP"
    if status[1].startswith(b"5") and status[1] != b"503":
        return f"status {status[1].decode()}"
    text = body.decode("utf-8", "replace")
    if b"application/json" in head.lower():
        try:
            text = str(json.loads(body).get("html", ""))
        except ValueError:
            return "no JSON"
    if any(raw in text or raw.encode() in head for raw in RAW):
        return "reflects markup"
    return ""


def outcome(answer: bytes | None) -> str:
    """The status; of an answered computation also whether it was stopped, or answered with what is wrong."""
    if not answer or fault(answer):
        return fault(answer) or "closed"
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head[9:12].decode()
    if status != "200" or b"application/json" not in head.lower() or not (error := json.loads(body).get("error")):
        return status
    return f"{status}, {'stopped' if error['reason'].startswith(STOPPED) else 'an error'}"


def run(port: int, requests: list[Hostile], within: float) -> dict[str, object]:
    """Send all of them, and say what came back."""

    def one(request: Hostile) -> tuple[bytes | None, float]:
        start = time.perf_counter()
        return exchange(port, request.data, within), time.perf_counter() - start

    started = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        answers = list(pool.map(one, requests))
    faults = [
        {
            "kind": r.kind,
            "fault": fault(a),
            "request": r.data[:300].decode("latin-1"),
            "answer": (a or b"")[:300].decode("latin-1"),
        }
        for r, (a, _) in zip(requests, answers, strict=True)
        if fault(a)
    ]
    statuses: dict[str, Counter[str]] = {}
    for request, (answer, _) in zip(requests, answers, strict=True):
        statuses.setdefault(request.kind, Counter())[outcome(answer)] += 1
    return {
        "requests": len(requests),
        "kinds": {kind: dict(sorted(found.items())) for kind, found in statuses.items()},
        "seconds": round(time.perf_counter() - started),
        "connections": CONNECTIONS,
        "longest wait in seconds": round(max(t for _, t in answers), 2),
        "faults": faults,
    }


def alive(port: int) -> bool:
    """Whether the server still computes."""
    answer = exchange(port, asked("check", f"127.0.0.1:{port}", str(catalog.nl())), 120)
    return answer is not None and b" 200 " in answer[:20] and answer.endswith(b'{"good": true}')


def main() -> int:
    parser = argparse.ArgumentParser(prog="polyattn bench hostile")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=2.0, help="the server's limit of one computation")
    parser.add_argument("--within", type=float, default=60.0, help="seconds after which a request counts as hanging")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "hostile.json")
    options = parser.parse_args()
    command = [sys.executable, "-m", "polyattn", "serve", "--port", "0", "--seconds", str(options.seconds)]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            address = server.stdout.readline()
            port = int(re.findall(r":(\d+)/", address)[0])
            started = alive(port)
            found = run(port, generated(options.requests, options.seed, f"127.0.0.1:{port}"), options.within)
            found |= {"alive afterwards": started and alive(port)}
        finally:
            server.terminate()
            server.wait()
        log.seek(0)
        found |= {"written by the server": sorted({line.strip() for line in log} - {""})}
    limits = {"seed": options.seed, "limit in seconds": options.seconds}
    found = {"benchmark": "hostile", "machine": machine(), **limits, **found}
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    return 0 if found["alive afterwards"] and not found["faults"] and not found["written by the server"] else 1


if __name__ == "__main__":
    sys.exit(main())
