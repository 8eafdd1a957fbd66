"""Facts of names: what the tensors of a specification are called changes nothing, and no name becomes code."""

import copy
import keyword
import pickle
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import fx

from polyattn import SizeError, Spec, SpecError, lower, plan, verify
from polyattn.language import value_of
from polyattn.language.functions import RESERVED
from polyattn.language.syntax import Access, Input
from polyattn.lowering import argument_names, training_function
from polyattn.lowering.graphs import placeholder
from polyattn.testing import size_assignments, specification_texts

WORDS = (
    *("dy", "dy_", "dx", "x", "y", "w", "t1", "t2", "t_1", "t1_", "g1", "g2", "self", "self_", "exchange", "output"),
    *("forward", "torch", "torch_", "device", "print", "inf", "nan", "pytree", "fx_pytree", "NoneType", "polyattn"),
    *("matmul", "mul", "permute", "expect_shape", "expect_shape_1", "unsqueeze", "sum", "sum_1", "eye", "softmax_1"),
    *("polyattn_lowering_shapes_expect_shape", "args", "kwargs", "given", "named", "module", "tensor", "W1", "w1"),
    *(word.lower() for word in keyword.kwlist),
)
NOT_NAMES = ("where", "I", *RESERVED)
NAMES = (st.sampled_from(WORDS) | st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,3}", fullmatch=True)).filter(
    lambda name: name not in NOT_NAMES
)
OBJECTIVES = ("forward", "as_written", "training")


def with_tensors_called(tree: Any, names: dict[str, str]) -> Any:
    """A syntax tree with other names of tensors."""
    if isinstance(tree, tuple):
        return tuple(with_tensors_called(part, names) for part in tree)
    if not is_dataclass(tree):
        return tree
    tree = replace(tree, **{f.name: with_tensors_called(getattr(tree, f.name), names) for f in fields(tree)})
    if isinstance(tree, Access):
        return replace(tree, tensor=names.get(tree.tensor, tree.tensor))
    return replace(tree, name=names[tree.name]) if isinstance(tree, Input) else tree


@st.composite
def renamings(draw: st.DrawFn, spec: Spec) -> dict[str, str]:
    """Other names for all tensors: a scalar is called neither like a size nor like an index."""
    indices = {index for sizes in spec.resolved.index_sizes for index in sizes}
    names: dict[str, str] = {}
    for tensor, shape in spec.resolved.shapes.items():
        fits = NAMES if shape else NAMES.filter(lambda n: n[0].islower() and n not in indices)
        names[tensor] = draw(fits.filter(lambda n: n not in names.values()))
    return names


def arrays_of(spec: Spec, sizes: dict[str, int], batch: int = 2) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = {t: tuple(value_of(a, sizes) for a in spec.shape(t)) for t in (*spec.inputs, *spec.parameters)}
    return {t: generator.normal(size=((batch,) if t in spec.inputs else ()) + s) for t, s in shapes.items()}


def expected(spec: Spec, sizes: dict[str, int], arrays: dict[str, np.ndarray]) -> np.ndarray:
    samples = [{t: a[k] if t in spec.inputs else a for t, a in arrays.items()} for k in range(2)]
    return np.stack([spec.evaluate(sample, sizes) for sample in samples])


def check(spec: Spec, names: dict[str, str], sizes: dict[str, int]) -> None:
    other = Spec(with_tensors_called(spec.statements, names))
    assert Spec(str(other)) == other
    arrays = arrays_of(spec, sizes)
    want = expected(spec, sizes, arrays)
    gradients = {}
    for objective in OBJECTIVES:
        made = plan(other, sizes, objective, batch=2)
        tensors = {names[t]: torch.tensor(a, requires_grad=True) for t, a in arrays.items()}
        graph = lower(made)
        found = graph(**tensors)
        assert tuple(found.shape) == want.shape
        np.testing.assert_allclose(found.detach().numpy(), want, rtol=1e-9, atol=1e-9 * max(1.0, np.abs(want).max()))
        assert torch.equal(found, graph(*tensors.values()))
        trained = training_function(made) if objective == "training" else graph
        value = trained(*tensors.values())
        if value.requires_grad:
            options = {"allow_unused": True, "materialize_grads": True}
            gradients[objective] = torch.autograd.grad(
                (value * value.detach()).sum(), list(tensors.values()), **options
            )
    for ours, theirs in zip(gradients.get("training", ()), gradients.get("as_written", ()), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)


@given(st.data())
def test_renaming_all_tensors_changes_neither_results_nor_shapes(data: st.DataObject):
    spec = Spec(data.draw(specification_texts(functions=False)))
    names = data.draw(renamings(spec))
    check(spec, names, plan(spec, data.draw(size_assignments(spec))).sizes)


@pytest.mark.parametrize("names", [("dy", "x"), ("x", "dy"), ("dy", "dy_"), ("t1", "g1"), ("lambda", "lambda_")])
@pytest.mark.parametrize(
    "text",
    [
        "x[N,C]; z[N,C]; y = z[a,b]*x[a,f]*x[i,f]*x[e,b]",
        "z[N,C]; x[N,C]; y = z[i,b]*x[i,d]",
        "x[N,C]; y[a] = x[a,b]*z[b]*x[e,f]*z[f]",
        "x[N,C]; z[N,C]; y[b] = z[a,b]*x[a,f]*x[e,f]*x[e,b]",
    ],
)
def test_tensors_may_be_called_like_the_gradient_of_the_output_and_like_steps(text: str, names: tuple[str, str]):
    spec = Spec(text)
    check(spec, {"x": names[0], "z": names[1], "y": "y"}, {"N": 4, "C": 4})


@pytest.mark.parametrize("name", ["dy", "dx", "dw", "t1", "g1", "lambda", "self", "x"])
def test_graphs_of_any_output_s_name_are_verified_with_their_gradients(name: str):
    inputs = "z" if name == "x" else "x"
    text = f"{inputs}[N,C]; {name}[a,b] = {inputs}[a,d]*w[d,f]*{inputs}[e,f]*{inputs}[e,b]"
    for level in ("symbolic", "modular", "numeric"):
        found = verify(text, {"N": 2, "C": 2}, level, derivative=True, seed=0)
        assert found
        assert len({check.tensor for check in found.checks}) == 3


RESERVED = Spec("x[N,C]; y[a,c] = lambda*x[a,d]*device[d,c]*print + lambda_*x[a,d]*torch[d,c]*class")


def reserved() -> tuple[fx.GraphModule, dict[str, torch.Tensor], torch.Tensor]:
    """A graph of tensors with names that Python reserves, tensors for it by name, and what it should give."""
    tensors = {t: torch.randn((3,) * len(s)) for t, s in RESERVED.parameters.items()} | {"x": torch.randn(2, 4, 3)}
    x, device, other = tensors["x"], tensors["device"], tensors["torch"]
    want = tensors["lambda"] * tensors["print"] * x @ device + tensors["lambda_"] * tensors["class"] * x @ other
    return lower(plan(RESERVED, {"N": 4, "C": 3})), tensors, want


@pytest.mark.parametrize("again", [lambda g: g, copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))])
def test_a_graph_takes_tensors_by_the_specification_s_own_names(again):
    graph, tensors, want = reserved()
    graph = again(graph)
    torch.testing.assert_close(graph(**tensors), want)
    x = tensors.pop("x")
    torch.testing.assert_close(graph(x, **tensors), want)
    torch.testing.assert_close(torch.compile(graph, backend="eager", fullgraph=True)(x, **tensors), want)


def test_a_tensor_may_be_called_self():
    graph = lower(plan("x[N,C]; y[a,b] = self*x[a,b]", {"N": 2, "C": 3}))
    x = torch.randn(2, 2, 3)
    assert torch.equal(graph(x, self=torch.tensor(2.0)), 2 * x)
    assert torch.equal(graph(x, self_=torch.tensor(2.0)), 2 * x)


def test_a_graph_with_reserved_names_is_compiled_and_exported():
    graph, tensors, want = reserved()
    x, *rest = (tensors[t] for t in (*RESERVED.inputs, *RESERVED.parameters))
    torch.testing.assert_close(torch.compile(graph, backend="eager", fullgraph=True)(x, *rest), want)
    torch.testing.assert_close(torch.export.export(graph, (x, *rest)).module()(x, *rest), want)


@pytest.mark.parametrize(
    ("given", "named", "message"),
    [
        (("x",), (), "missing: lambda, w"),
        ((), ("w",), "missing: x, lambda"),
        (("x",), ("w", "v"), "there is no tensor 'v'"),
        (("x",), ("x", "lambda", "w"), "tensor 'x' is given twice"),
        (("x",), ("lambda_", "lambda", "w"), "tensor 'lambda' is given twice"),
        (("x", "lambda", "w", "w"), (), "4 tensors are given"),
    ],
)
def test_missing_and_unknown_tensors_are_named(given: tuple[str, ...], named: tuple[str, ...], message: str):
    graph = lower(plan("x[N,C]; y[a,b] = lambda*x[a,d]*w[d,b]", {"N": 2, "C": 2}))
    x = torch.ones(1, 2, 2)
    with pytest.raises(SizeError) as caught:
        graph(*(x for _ in given), **dict.fromkeys(named, x))
    assert str(caught.value) == f"{message}; this graph takes x, lambda, w, by position or by name"


@given(st.text(max_size=8) | st.sampled_from(["x, q=print()", "x: 1", "x=1", "*x", "_x", "x\n", "é", "a b"]))
def test_lowering_writes_no_argument_that_is_not_a_name(name: str):
    graph = fx.Graph()
    if name.isascii() and name.isidentifier() and not name.startswith("_"):
        placeholder(graph, name)
        assert f"def forward(self, {name})" in graph.python_code("self").src
    else:
        with pytest.raises(SpecError, match="is no name of a tensor"):
            placeholder(graph, name)


@pytest.mark.parametrize("name", ["x, q=print()", "_x", "x y"])
def test_a_plan_of_names_that_the_language_refuses_is_not_lowered(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("polyattn.language.checks._Checker.check_spelling", lambda self: None)
    spec = Spec("z[N,C]; y[a,b] = z[a,b]")
    hostile = plan(Spec(with_tensors_called(spec.statements, {"z": name})), {"N": 2, "C": 2})
    for make in (lower, argument_names):
        with pytest.raises(SpecError, match="is no name of a tensor"):
            make(hostile)
