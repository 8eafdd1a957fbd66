"""serve: the report's page, live, for one person at this machine.

Input: requests from a browser over the loopback address. Output: a page, and JSON. Guarantees: texts are specifications
and never code; each is computed in a process of its own, killed when its time or its memory is exhausted, so input
cannot stop the server; only pages of this server are answered; every text in an answer is escaped. Needs the extra
`serve`.
"""

from collections.abc import Callable

from polyattn.optional import need
from polyattn.study.serve.limits import Limits

__all__ = ["Limits", "serve"]


def serve(port: int = 8642, limits: Limits | None = None, started: Callable[[str], object] | None = None) -> None:
    """Serve the live page on this machine, until interrupted.

    Args:
        port: port of the loopback address; 0 for any free one.
        limits: limits of each request.
        started: called with the page's address before the first request is answered.

    Raises:
        MissingPackageError: the extra `serve` is not installed.
        PolyattnError: the port is taken.
    """
    for module in ("jinja2", "starlette", "uvicorn"):
        need(module, "serve")
    from polyattn.study.serve.server import run

    run(port, limits or Limits(), started)
