"""Each entry against a numpy computation written from its paper, with matrices per head, group, row or column."""

import numpy as np
import pytest

from polyattn import catalog

SIZES = {"N": 5, "H": 4, "W": 6, "C": 6, "R": 3, "V": 2, "K": 3, "G": 3, "M": 2, "S": 2}
SIZES |= {"U": SIZES["H"] // SIZES["S"], "D": SIZES["G"] * SIZES["M"]}
RENAMED = {"ba_transform_block": {"V": SIZES["W"] // SIZES["S"]}}


def softmax(a, axis):
    powers = np.exp(a)
    return powers / powers.sum(axis=axis, keepdims=True)


def nl(x, wf, wg):
    return (x @ wf @ x.T) @ (x @ wg)


def nl_softmax(x, wf, wg):
    return softmax(x @ wf @ x.T, 1) @ (x @ wg)


def poly_nl(x, w1, w2, w3):
    return (np.mean((x @ w1) * (x @ w2), axis=0) * x) @ w3


def e_nl(x, wq, wk, wv, wo):
    context = (x @ wk).T @ (x @ wv) / len(x)
    return x @ wq @ context @ wo


def e_nl_softmax(x, wq, wk, wv, wo):
    context = softmax(x @ wk, 0).T @ (x @ wv)
    return softmax(x @ wq, 1) @ context @ wo


def a2_net(x, wphi, wtheta, wrho, wo):
    a, b, v = (x @ wphi).T, (x @ wtheta).T, (x @ wrho).T
    return ((a @ b.T / len(x)) @ v).T @ wo


def a2_net_softmax(x, wphi, wtheta, wrho, wo):
    a, b, v = (x @ wphi).T, softmax((x @ wtheta).T, 1), softmax((x @ wrho).T, 0)
    return ((a @ b.T) @ v).T @ wo


def latent_gnn(x, wpsi, wphi, wg, adj):
    return (x @ wpsi) @ adj @ (x @ wphi).T @ (x @ wg) / len(x)


def glore(x, wtheta, wphi, adj, wg, wo):
    projection = (x @ wtheta).T
    nodes = projection @ (x @ wphi)
    return projection.T @ ((np.eye(len(adj)) - adj) @ nodes @ wg) @ wo


def cgnl(x, wt, wp, wg, wz):
    theta, phi, value = x @ wt, x @ wp, x @ wg
    inner = np.empty_like(theta)
    for start in range(0, SIZES["D"], SIZES["M"]):
        group = slice(start, start + SIZES["M"])
        attention = np.outer(theta[:, group].ravel(), phi[:, group].ravel())
        inner[:, group] = (attention @ value[:, group].ravel()).reshape(len(x), -1)
    return inner @ wz


def cp_nl(x, wq, wk, wv, wo):
    """Rank by rank: a sum over r of outer products."""
    y = np.zeros_like(x)
    for r in range(SIZES["R"]):
        y += np.outer(x @ wq[:, r], wo[r]) * np.dot(x @ wk[:, r], x @ wv[:, r]) / len(x)
    return y


def at_nl_positions(x, core):
    """`y[a,b] = 1/N Σ x[a,d] x[e,f] x[e,h] core[d,f,h,b]`, by loops over positions."""
    y = np.zeros_like(x)
    for a in range(len(x)):
        for e in range(len(x)):
            y[a] += np.tensordot(np.tensordot(np.outer(x[a], x[e])[..., None] * x[e], core, 3), np.eye(len(y[a])), 1)
    return y / len(x)


def tucker_nl(x, wq, wk, wv, core, wo):
    for w in (wq.T, wk.T, wv.T, wo):  # each product takes the first mode and puts the new one last
        core = np.tensordot(core, w, (0, 0))
    return at_nl_positions(x, core)


def tt_nl(x, wq, wk, wv, wo):
    return at_nl_positions(x, np.tensordot(np.tensordot(np.tensordot(wq, wk, 1), wv, 1), wo, 1))


def block_term_nl(x, wq, wk, wv, wo):
    """One non-local block for each term, with a similarity and a value of low rank."""
    return sum((x @ q @ k.T @ x.T) @ (x @ v @ o) for q, k, v, o in zip(wq, wk, wv, wo, strict=True)) / len(x)


def pi_net_ccp(x, u1, u2, u3, wo):
    """Each output as the paper's recursion, position by position."""
    y = []
    for z in x:
        h = u1.T @ z
        for u in (u2, u3):
            h = (u.T @ z) * h + h
        y.append(wo.T @ h)
    return np.array(y)


def pi_net_ncp(x, wo, **w):
    y = []
    for z in x:
        h = (w["u1"].T @ z) * (w["wb1"].T @ w["b1"])
        for n in "23":
            h = (w[f"u{n}"].T @ z) * (w[f"ws{n}"].T @ h + w[f"wb{n}"].T @ w[f"b{n}"])
        y.append(wo.T @ h)
    return np.array(y)


def attend(query, keys, values, normalise=lambda a: a):
    return normalise(np.array([query @ key for key in keys])) @ values


def criss_cross(x, wq, wk, wv):
    query, key, value = x @ wq, x @ wk, x @ wv
    y = np.zeros_like(x)
    for i, j in np.ndindex(x.shape[:2]):
        column = attend(query[i, j], key[:, j], value[:, j])
        row = attend(query[i, j], key[i], value[i])
        y[i, j] = column + row
    return y


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


def ba_transform(x, wf, wp, wq):
    features = x @ wf
    row, col = features.mean(1), features.mean(0)
    y = np.empty_like(x)
    for c in range(x.shape[2]):
        g = c // SIZES["M"]
        p = np.array([[np.sum(kernel * row) for kernel in line] for line in wp[g]])
        q = np.array([[np.sum(kernel * col) for kernel in line] for line in wq[g]])
        y[:, :, c] = p @ x[:, :, c] @ q
    return y


def ba_transform_block(x, wf, wp, wq):
    features, blocks = x @ wf, wp.shape[1]
    row = np.array([part.mean((0, 1)) for part in np.split(features, blocks, 0)])
    col = np.array([part.mean((0, 1)) for part in np.split(features, blocks, 1)])
    y = np.empty_like(x)
    for c in range(x.shape[2]):
        g = c // SIZES["M"]
        p = np.array([[np.sum(kernel * row) for kernel in line] for line in wp[g]])
        q = np.array([[np.sum(kernel * col) for kernel in line] for line in wq[g]])
        p, q = np.kron(p, np.eye(len(x) // blocks)), np.kron(q, np.eye(x.shape[1] // blocks))
        y[:, :, c] = p @ x[:, :, c] @ q
    return y


def tesa(x, **w):
    def attention(number, rows):
        def unfolded(weight):
            return np.moveaxis(x @ weight, rows, range(len(rows))).reshape(count, -1)

        count = np.prod([x.shape[r] for r in rows])
        query, key, value = (unfolded(w[f"{name}{number}"]) for name in ("wq", "wk", "wv"))
        y = (query @ key.T @ value).reshape(np.moveaxis(x, rows, range(len(rows))).shape)
        return w[f"alpha{number}"] * np.moveaxis(y, range(len(rows)), rows)

    return attention(1, (0, 1)) + attention(2, (0,)) + attention(3, (1,))


CASES = {
    **{(name, ()): globals().get(name) for name in catalog.names()},
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
    sizes = SIZES | RENAMED.get(entry, {})
    generator = np.random.default_rng(7)

    def draw(names):
        return generator.normal(size=[sizes[name] for name in names])

    (x,) = map(draw, spec.inputs.values())
    parameters = {name: draw(shape) for name, shape in spec.parameters.items()}
    known = {name: sizes[name] for name in spec.sizes.names}
    y = spec.evaluate({"x": x, **parameters}, known)
    np.testing.assert_allclose(y, by_hand(x, **parameters), rtol=1e-10, atol=1e-10)
