"""The limits of a request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of the server.

    Attributes:
        text: characters of a specification.
        body: bytes of a request's body.
        seconds: wall-clock time of one computation, after which its process is killed.
        memory: bytes that a worker may allocate beyond its initial size (on systems that report it: Linux).
        workers: computations at a time.
        waiting: waiting requests; further ones are refused.
        patience: seconds for a request's headers, and again for its body, to arrive.
        jobs: computations after which a worker is replaced, since caches grow.
    """

    text: int = 8_000
    body: int = 64_000
    seconds: float = 10.0
    memory: int = 2 << 30
    workers: int = 2
    waiting: int = 32
    patience: float = 10.0
    jobs: int = 300
