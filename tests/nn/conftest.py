"""What tests of several files ask for."""

import pytest
import torch

from polyattn.lowering import training
from polyattn.runtime import plan_cache


@pytest.fixture
def planned_backward(monkeypatch):
    """Layers run their planned backward pass, however small they are."""
    plan_cache.forget()
    monkeypatch.setattr(training, "backward_pays", lambda plan, device: plan.backward is not None)
    yield
    plan_cache.forget()


@pytest.fixture
def _nothing_compiled_before():
    """Compilers forget what they have seen: too many modules of one class and they compile no more."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
