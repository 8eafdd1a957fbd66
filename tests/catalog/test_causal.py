"""Causal entries step by step: their loops, and no more state or products per token than their papers' recurrences.

The bounds are counted by hand from the recurrences; no paper's table is copied.
"""

import numpy as np
import pytest
import torch

import polyattn as pa
from polyattn import catalog
from tests.catalog import facts

D, C, H = 16, 8, 2
SIZES = {"D": D, "C": C, "H": H, "P": C, "R": D, "W": 5, "M": 4}
PUBLISHED = {
    # Numbers of the state, and multiply-accumulates a token with one for each decay of a number.
    "causal_linear": (D * C, 2 * D * C),
    "based": ((1 + D + D * D) * (C + 1), 2 * (1 + D + D * D) * (C + 1) + 2 * (D + D * D) + C + 1),
    "hla": (2 * D * D + D * C, 3 * D * D + 4 * D * C),
    "ahla": (2 * D * C + D, 4 * D * C + 2 * D),
    "causal_poly_nl": (C + 1, 4 * C * C),
    "causal_two_simplicial": (2 * D * C, 4 * D * C + D * C),
    "sliding_window": (5 * (D + C), 5 * (D + C + 2)),
    "block_causal": (D * C, 2 * 4 * D * C),
    "retnet": (H * D * C, 3 * H * D * C),
    "gla": (D * C, 3 * D * C),
    "mamba2": (H * D * C, 3 * H * D * C + H * C + H),
    "causal_tesa": (D * C, 3 * D * C + D * C),
}


def test_every_causal_entry_is_held_against_its_paper():
    assert set(catalog.names("causal")) == {*PUBLISHED, "causal_softmax"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_causal_entry_takes_no_more_than_its_paper(name):
    spec = catalog.get(name)
    plan = pa.plan(spec, {n: v for n, v in SIZES.items() if n in spec.sizes.names}, "decoding")
    numbers, macs = PUBLISHED[name]
    assert plan.state_numbers <= numbers
    assert plan.macs <= macs


@pytest.mark.parametrize("name", catalog.names("causal"))
def test_steps_of_a_causal_entry_are_its_loops(name):
    entry, given = catalog.entry(name), facts.tensors(name)
    state = "cache" if name == "causal_softmax" else "auto"
    sizes = {n: v for n, v in entry.facts.sizes.items() if n != "N"}
    layer = pa.nn.Layer(entry.spec, sizes, state=state, dtype=torch.float64)
    block = sizes.get("M", 1)
    with torch.no_grad():
        for parameter, tensor in layer.spec_parameters().items():
            tensor.copy_(torch.from_numpy(given[parameter]))
        inputs = [torch.from_numpy(given[n])[None] for n in entry.spec.inputs]
        current, rows = layer.initial_state(1), []
        for start in range(0, inputs[0].shape[1], block):
            here = [x[:, start : start + block] for x in inputs]
            y, current = layer.step(*(here if block > 1 else [x[:, 0] for x in here]), current)
            rows.append(y if block > 1 else y[:, None])
    np.testing.assert_allclose(torch.cat(rows, 1)[0], entry.reference(given), rtol=1e-10, atol=1e-12)
