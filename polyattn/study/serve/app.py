"""The application: one page, its style and script, and its three kinds of request."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from polyattn import catalog
from polyattn.study.report.page import asset
from polyattn.study.serve.guard import App, Guard
from polyattn.study.serve.jobs import JOBS, answer, templates
from polyattn.study.serve.limits import Limits
from polyattn.study.serve.workers import BusyError, StoppedError, Workers

KINDS = {"css": "text/css", "js": "text/javascript"}
WATCHED = 0.1
"""Seconds between two checks of whether the browser still waits."""


def application(hosts: Collection[str], limits: Limits) -> App:
    """Return the ASGI application.

    Args:
        hosts: its own Host headers, with the port.
        limits: limits of each request.
    """
    workers = Workers(limits, answer)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            await workers.start()
            yield
        # Also after a failed start, so that no worker outlives the server.
        finally:
            workers.stop()

    async def asked(request: Request) -> Response:
        return await _answered(request, workers, limits)

    # Read once: a request cannot name a path in the file system.
    statics = {name: _asset(name) for name in ("page.css", "theme.js", "page.js", "live.css", "live.js")}

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in statics:
            return PlainTextResponse("There is no such file.", 404)
        return Response(statics[name], media_type=KINDS[name.rpartition(".")[2]])

    index = _index(limits)

    async def page(_: Request) -> Response:
        return HTMLResponse(index)

    routes = [Route("/", page), Route("/static/{name}", static), Route("/{job}", asked, methods=["POST"])]
    return Guard(Starlette(routes=routes, lifespan=lifespan), hosts)


async def _answered(request: Request, workers: Workers, limits: Limits) -> Response:
    job = request.path_params["job"]
    if job not in JOBS:
        return PlainTextResponse("There is no such page.", 404)
    # Forms of foreign pages cannot send this type without a preflight request.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return _bad("a request is application/json", 415)
    body = b""
    try:
        # A sender of one byte a minute would hold the connection forever.
        with anyio.fail_after(limits.patience):
            async for part in request.stream():
                body += part
                # Checked for each part: the body is never held in memory beyond the limit.
                if len(body) > limits.body:
                    return _bad(f"a request has at most {limits.body} bytes", 413)
        data = json.loads(body)
    except TimeoutError:
        return _bad("the request did not come", 408)
    except ClientDisconnect:
        return _bad("the request was not finished", 400)
    except (ValueError, RecursionError):
        return _bad("this is no JSON", 400)
    if not isinstance(data, dict):
        return _bad("a request is a JSON object", 400)
    text = data.get("text")
    if isinstance(text, str) and len(text) > limits.text:
        reason = f"a specification has at most {limits.text:,} characters here, this one {len(text):,}"
        return _json({"error": {"reason": reason, "line": 0, "column": 0}})
    return await _computed(request, workers, {**data, "job": job})


async def _computed(request: Request, workers: Workers, data: dict[str, Any]) -> Response:
    """Return the workers' answer; the computation ends when the browser disconnects."""
    found: list[Response] = []

    async def compute() -> None:
        try:
            answered = await workers.run(data)
        except BusyError:
            found.append(_bad("the server is busy", 503))
        except StoppedError as error:
            found.append(_json({"error": {"reason": str(error), "line": 0, "column": 0}}))
        else:
            bad = answered.get("bad") or ("this failed" if "failed" in answered else "")
            found.append(_bad(bad, 500 if "failed" in answered else 400) if bad else _json(answered))
        # Ends the loop that watches the connection.
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(compute)
        while not await request.is_disconnected():
            await anyio.sleep(WATCHED)
        # The browser is gone: cancelling kills the worker's process.
        group.cancel_scope.cancel()
    return found[0] if found else _bad("nobody waits", 400)


def _bad(reason: str, status: int) -> Response:
    return _json({"bad": reason}, status)


def _json(data: dict[str, Any], status: int = 200) -> Response:
    """Return JSON in ASCII: a text may hold halves of surrogate pairs, which UTF-8 cannot encode."""
    return Response(json.dumps(data), status, media_type="application/json")


def _asset(name: str) -> str:
    if name.startswith("live"):
        return files("polyattn.study.serve").joinpath("static", name).read_text(encoding="utf-8")
    return asset(name)


def _index(limits: Limits) -> str:
    examples = {name: str(catalog.get(name)) for name in catalog.names()}
    return templates().get_template("live.html").render(examples=examples, limits=limits, version=version("polyattn"))
