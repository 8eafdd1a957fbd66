"""What every test run shares: hypothesis profiles, one thread per worker, seeded initial weights.

POLYATTN_HYPOTHESIS_PROFILE chooses the profile: "ci" (the default) draws the same examples on every run and leaves out
the tests marked `nightly`; "nightly" draws new examples, "thorough" many new ones.
"""

import gc
import inspect
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # Read once, when torch is first imported, which no plugin has done yet.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import torch  # after the number of threads is set

from tests.drawing import PROFILE

if not torch.cuda.is_available():
    # Kernels are then checked in Triton's interpreter, which has to be chosen before anything imports Triton.
    os.environ.setdefault("TRITON_INTERPRET", "1")

SLOW = Path(__file__).with_name("slow.txt")
"""Files of more than five seconds of processor time, the longest first."""

# A worker that shares its core with another one is slow now and then, which says nothing about the strategy.
_shared = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, max_examples=20, **_shared)
settings.register_profile("nightly", max_examples=200, print_blob=True, **_shared)
settings.register_profile("thorough", max_examples=2000, **_shared)
settings.load_profile(PROFILE)


@cache
def _interpreter_s_fault() -> str:
    """Why Triton's interpreter cannot run kernels here: "" where it can, or where a GPU runs them."""
    if torch.cuda.is_available() or np.lib.NumpyVersion(np.__version__) < "2.4.0":
        return ""
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    if "int(self.handle.data)" not in inspect.getsource(interpreter):
        return ""
    return "the interpreter of this Triton (torch 2.6 has it) makes numbers of arrays, which NumPy 2.4 refuses"


def pytest_collection_finish(session: pytest.Session) -> None:
    # The modules of torch and sympy are millions of objects that stay. To search them for garbage again and again takes
    # a sixth of the processor time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def pytest_unconfigure() -> None:
    gc.unfreeze()  # what is frozen at the end counts as leaked, which Triton's bindings report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Whole files go to processes, in this order: were a long one the last, the other processes would wait for it.
    slow = {config.rootpath / line: place for place, line in enumerate(SLOW.read_text().split())}
    items.sort(key=lambda item: slow.get(item.path, len(slow)))
    for item in items:
        if item.path in slow:
            item.add_marker(pytest.mark.slow)
    if PROFILE == "ci":
        left_out = [item for item in items if item.get_closest_marker("nightly")]
        items[:] = [item for item in items if not item.get_closest_marker("nightly")]
        config.hook.pytest_deselected(items=left_out)


def pytest_runtest_setup(item: pytest.Item) -> None:
    torch.manual_seed(0)  # modules draw their initial weights from the global generator
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if item.get_closest_marker("interpreted") and _interpreter_s_fault():
        pytest.skip(_interpreter_s_fault())
