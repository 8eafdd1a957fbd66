"""What a request may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of the server.

    Attributes:
        text: characters of a specification.
        body: bytes of a request's body.
        seconds: wall-clock time of one computation; its process is killed then.
        memory: bytes that a worker may take beyond what it starts with (where the system can say so: Linux).
        workers: computations at a time.
        waiting: requests that may wait for one; more are refused.
        patience: seconds for a request's headers, and again for its body, to come.
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
