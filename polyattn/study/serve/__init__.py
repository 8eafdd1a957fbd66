"""serve: the report's page, live, for one person at this machine.

Input: requests from a browser over the loopback address. Output: a page, and JSON. What holds afterwards: texts are
specifications and never code; each is computed in a process of its own that is killed when its time or its memory is
up, so that no input stops the server; only pages of this server are answered; every text in an answer is escaped.
Needs the extra `serve`.
"""

from polyattn.optional import need
from polyattn.study.serve.limits import Limits

__all__ = ["Limits", "serve"]


def serve(*arguments: object, **options: object) -> None:
    """Serve the live page; the arguments are those of `polyattn.study.serve.server.serve`.

    Raises:
        MissingPackageError: the extra `serve` is not installed.
    """
    for module in ("jinja2", "starlette", "uvicorn"):
        need(module, "serve")
    from polyattn.study.serve.server import serve as run

    run(*arguments, **options)  # type: ignore[arg-type]
