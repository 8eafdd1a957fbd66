"""`torch.compile(model, backend="polyattn")`: regions on plans, the rest by another backend; symbolic lengths."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch

import polyattn as pa
from polyattn.optimising import backend
from tests.optimising.models import Chain, Plain


class Inner:
    """A backend that notes the graphs it is given and runs them as they are."""

    def __init__(self) -> None:
        self.graphs: list[list[str]] = []

    def __call__(self, graph, inputs):
        self.graphs.append([str(getattr(n.target, "__name__", n.target)) for n in graph.graph.nodes])
        return graph.forward


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_a_region_of_a_compiled_model_is_planned_with_its_gradients():
    torch.manual_seed(0)
    model, x, inner = Chain(), torch.randn(2, 64, 96), Inner()
    compiled = torch.compile(model, backend="polyattn", options={"inner": inner})
    wanted = model(x)
    wanted.square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    y = compiled(x)
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-3)
    y.square().sum().backward()
    for p, g in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-3, atol=1e-3 * float(g.abs().max()))
    assert len(inner.graphs) == 1
    assert "polyattn_region" in inner.graphs[0]
    assert "matmul" not in inner.graphs[0]


def test_a_graph_with_nothing_to_win_is_handed_on_as_it_is():
    model, x, inner = Plain().eval(), torch.randn(2, 8, 16), Inner()
    compiled = torch.compile(model, backend="polyattn", options={"inner": inner})
    torch.testing.assert_close(compiled(x), model(x))
    assert "polyattn_region" not in inner.graphs[0]


def test_a_crossover_is_one_guard_and_lengths_on_its_side_are_none():
    def quadratic(q, k, v):
        return (q @ k.mT) @ v

    inner = Inner()
    compiled = torch.compile(quadratic, backend="polyattn", options={"inner": inner}, dynamic=True)
    with torch.no_grad():
        for n in (400, 500, 301, 650):
            q, k, v = (torch.randn(2, n, 16) for _ in range(3))
            torch.testing.assert_close(compiled(q, k, v), quadratic(q, k, v), rtol=1e-3, atol=1e-2)
        assert len(inner.graphs) == 1
        assert "polyattn_region" in inner.graphs[0]
        q, k, v = (torch.randn(2, 3, 16) for _ in range(3))
        torch.testing.assert_close(compiled(q, k, v), quadratic(q, k, v), rtol=1e-3, atol=1e-3)
    assert len(inner.graphs) == 2
    assert "polyattn_region" not in inner.graphs[1]


@pytest.mark.parametrize(("end", "limit", "found"), [(100, 640, 99), (1000, 640, 640)])
def test_the_end_of_an_advantage_is_found_exactly(end, limit, found):
    assert backend.end_of(lambda n: n < end, 10, limit) == found
    assert backend.end_of(lambda n: n > 7, 10, 2) == 8


def test_an_unknown_option_is_named():
    with pytest.raises(pa.OptimisingError, match="`options` has 'fast'"):
        backend.polyattn(torch.fx.GraphModule({}, torch.fx.Graph()), [], options={"fast": True})


def test_the_entry_point_of_the_package_is_the_backend():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    points = tomllib.loads(text)["project"]["entry-points"]["torch_dynamo_backends"]
    assert points == {"polyattn": f"{backend.polyattn.__module__}:{backend.polyattn.__name__}"}
