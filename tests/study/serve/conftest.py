"""One server for all tests of a module."""

import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from polyattn.study.serve.limits import Limits
from polyattn.study.serve.server import made

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))  # the tests send what the benchmark sends


def serving(limits):
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    number = listening.getsockname()[1]
    server = made(number, limits)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    while thread.is_alive() and not server.started:
        time.sleep(0.05)
    assert server.started
    yield number
    server.should_exit = True
    thread.join(30)
    listening.close()
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def port():
    yield from serving(Limits(seconds=20.0, patience=1.0))


@pytest.fixture(scope="module")
def hasty_port():
    """A server whose computations are ended after a second."""
    yield from serving(Limits(seconds=1.0, patience=1.0))


@pytest.fixture(scope="module")
def patient_port():
    """A server that lets a computation take longer than any test waits."""
    yield from serving(Limits(seconds=600.0, patience=1.0, text=60_000))
