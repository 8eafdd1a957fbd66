"""Options of entries against a numpy computation written from the papers; `test_entries.py` has the plain forms."""

import numpy as np
import pytest

from polyattn import catalog

SIZES = {"N": 5, "H": 4, "W": 6, "C": 6, "R": 3, "V": 2}


def softmax(a, axis):
    powers = np.exp(a)
    return powers / powers.sum(axis=axis, keepdims=True)


def nl_softmax(x, wf, wg):
    return softmax(x @ wf @ x.T, 1) @ (x @ wg)


def e_nl_softmax(x, wq, wk, wv, wo):
    context = softmax(x @ wk, 0).T @ (x @ wv)
    return softmax(x @ wq, 1) @ context @ wo


def a2_net_softmax(x, wphi, wtheta, wrho, wo):
    a, b, v = (x @ wphi).T, softmax((x @ wtheta).T, 1), softmax((x @ wrho).T, 0)
    return ((a @ b.T) @ v).T @ wo


def attend(query, keys, values, normalise=lambda a: a):
    return normalise(np.array([query @ key for key in keys])) @ values


def axial(x, wq, wk, wv, normalise=lambda a: a):
    query, key, value = x @ wq, x @ wk, x @ wv
    y = np.zeros_like(x)
    for i, j in np.ndindex(x.shape[:2]):
        y[i, j] = attend(query[i, j], key[:, j], value[:, j], normalise)
    return y


def axial_softmax(x, wq, wk, wv):
    return axial(x, wq, wk, wv, lambda a: softmax(a, 0))


def axial_width(x, wq, wk, wv):
    return axial(x.swapaxes(0, 1), wq, wk, wv).swapaxes(0, 1)


def axial_width_softmax(x, wq, wk, wv):
    return axial_softmax(x.swapaxes(0, 1), wq, wk, wv).swapaxes(0, 1)


CASES = {
    ("nl", (("softmax", True),)): nl_softmax,
    ("e_nl", (("softmax", True),)): e_nl_softmax,
    ("a2_net", (("softmax", True),)): a2_net_softmax,
    ("axial", (("softmax", True),)): axial_softmax,
    ("axial", (("axis", "width"),)): axial_width,
    ("axial", (("axis", "width"), ("softmax", True))): axial_width_softmax,
}


@pytest.mark.parametrize(("entry", "options"), CASES, ids=str)
def test_the_equation_computes_what_the_paper_does(entry, options):
    spec, by_hand = catalog.get(entry, **dict(options)), CASES[entry, options]
    generator = np.random.default_rng(7)

    def draw(names):
        return generator.normal(size=[SIZES[name] for name in names])

    (x,) = map(draw, spec.inputs.values())
    parameters = {name: draw(shape) for name, shape in spec.parameters.items()}
    known = {name: SIZES[name] for name in spec.sizes.names}
    y = spec.evaluate({"x": x, **parameters}, known)
    np.testing.assert_allclose(y, by_hand(x, **parameters), rtol=1e-10, atol=1e-10)
