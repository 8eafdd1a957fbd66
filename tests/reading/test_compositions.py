"""Generated compositions: the equation has the module's values, or the reading names its cuts."""

import torch
from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from polyattn.reading.check import evaluate
from tests.drawing import share
from tests.reading.compositions import CHANNELS, Composition
from tests.reading.oracle import draw, value_of


def disagreement(seed: int, steps: int | None = None) -> float:
    """Return how far a composition's reading is from it at another size; 0 where it has cuts, and names them."""
    module = Composition(seed, steps).double().eval()
    reading = pa.read(module, (draw(2, 5, CHANNELS),))
    if not reading.is_complete:
        assert all(c.operation and c.place for c in reading.cuts), reading.cuts
        return 0.0
    # torch.export may take the number of positions for fixed, which the reading then says.
    x = draw(3, 5 if "N" in reading.fixed else 7, CHANNELS, seed=seed)
    with torch.no_grad():
        wanted = module(x)
    found = value_of(reading, module, x).reshape(wanted.shape)
    return float(((found - wanted).abs() / wanted.abs().clamp_min(1)).max())


@given(st.integers(0, 10**6))
@share(0.15)
def test_a_composition_reads_as_its_equation_or_names_its_cuts(seed):
    assert disagreement(seed, 2) < 1e-10


def test_compositions_cut_only_what_has_no_meaning():
    module = Composition(0)
    module.steps = [("cut", -1, 1), ("numbers", -1, 1)]
    reading = pa.read(module.double().eval(), (draw(2, 5, CHANNELS),))
    assert [c.operation for c in reading.cuts] == ["cumsum"]
    assert reading.cuts[0].place.startswith("compositions.py:")
    x = draw(2, 5, CHANNELS)
    tensors = {"x": x, reading.cuts[0].name: torch.cumsum(x, 1)}
    found = evaluate(reading.spec, reading.sizes, tensors, set(tensors))
    torch.testing.assert_close(found, module(x), rtol=1e-12, atol=1e-12)
