"""Channel cores: pattern and core give back the explicit interaction tensor, as a function of the x's."""

import numpy as np
import pytest

from polyattn import Spec, catalog, symmetrise
from polyattn.errors import NotPolynomialError, SizeError

SIZES = {"N": 3, "H": 2, "W": 3, "C": 2, "R": 3, "V": 2, "K": 2, "S": 2, "G": 1, "M": 2}
WITHOUT_POSITIONS = [n for n in catalog.names("third_order") if n not in ("ba_transform", "ba_transform_block", "cgnl")]


def drawn(spec, seed=0):
    generator = np.random.default_rng(seed)
    known = spec.sizes.solve({s: SIZES[s] for s in spec.sizes.atomic}, spec.sizes.names)
    return known, {
        n: generator.normal(size=[int(s) if s.isdigit() else known[s] for s in shape])
        for n, shape in spec.parameters.items()
    }


@pytest.mark.parametrize("name", WITHOUT_POSITIONS)
def test_the_cores_at_their_patterns_add_up_to_the_interaction_tensor(name):
    spec = catalog.get(name)
    sizes, parameters = drawn(spec)
    axes = len(spec.inputs["x"])
    lengths = [sizes[s] for s in spec.inputs["x"][:-1]]
    cores = spec.channel_cores(sizes["C"], parameters)
    for degree in spec.polynomial().degrees:
        own = [c for c in cores if c.degree == degree]
        scales = [np.prod([float(sizes[s]) ** e for s, e in c.powers]) for c in own]
        total = sum(c.tensor(lengths, scale) for c, scale in zip(own, scales, strict=True))
        known = {s: sizes[s] for s in spec.sizes.atomic}
        explicit = spec.interaction_tensor(known, parameters, degree=degree)
        np.testing.assert_allclose(symmetrise(total, axes), symmetrise(explicit, axes), atol=1e-12)


def test_the_core_of_nl_is_wf_times_wg_at_its_two_deltas():
    _, p = drawn(catalog.nl())
    core = catalog.nl().channel_core(2, p)
    assert core.pattern == ((0, 0, 1, 1),)
    assert core.powers == ()
    np.testing.assert_allclose(core.core, np.einsum("df,hb->bdfh", p["wf"], p["wg"]))


def test_a_mean_is_kept_beside_the_core_so_that_it_holds_at_every_size():
    _, p = drawn(catalog.poly_nl())
    core = catalog.poly_nl().channel_core(2, p)
    assert core.powers == (("N", -1),)
    np.testing.assert_allclose(
        core.symmetrised(), (t := np.einsum("fd,hd,db->bdfh", p["w2"], p["w1"], p["w3"])) / 2 + t.swapaxes(2, 3) / 2
    )


@pytest.mark.parametrize("name", ["criss_cross", "tesa"])
def test_criss_cross_has_two_patterns_and_so_has_tesa_whose_rows_and_columns_share_one(name):
    """TESA's third term is its second with the first and the last x exchanged, so they are one pattern."""
    spec = catalog.get(name)
    assert len(spec.channel_cores(2, drawn(spec)[1])) == 2
    with pytest.raises(NotPolynomialError, match="2 position patterns"):
        spec.channel_core(2, drawn(spec)[1])


def test_weights_over_positions_are_named():
    spec = catalog.ba_transform()
    parameters = {"wf": np.ones((2, 2)), "wp": np.ones((1, 2, 2, 2, 2)), "wq": np.ones((1, 3, 3, 3, 2))}
    with pytest.raises(NotPolynomialError, match=r"'wp' has slots over positions \(H, H, H\)"):
        spec.channel_core(2, parameters)


def test_functions_and_wrong_shapes_are_refused():
    with pytest.raises(NotPolynomialError):
        catalog.nl(softmax=True).channel_core(2, {"wf": np.eye(2), "wg": np.eye(2)})
    with pytest.raises(SizeError, match="wg"):
        catalog.nl().channel_core(2, {"wf": np.eye(2)})
    with pytest.raises(SizeError, match="C is 2"):
        catalog.nl().channel_core(2, {"wf": np.eye(3), "wg": np.eye(3)})


def test_an_identity_between_positions_is_a_delta():
    spec = Spec("x[N,C]; where e : N; y[a,b] = I[a,e]*x[e,d]*w[d,b]")
    core = spec.channel_core(2, {"w": np.eye(2)})
    assert core.pattern == ((0, 0),)


def test_sizes_that_are_not_positions_are_numbers_in_the_core():
    """C and R are known from the parameters' shapes; N stays beside the core."""
    spec = Spec("x[N,C]; where r : R; y[a,b] = 1/N/R*x[a,d]*u[d,r]*v[r,b]*C*C*x[e,e1]*z[e1]")
    generator = np.random.default_rng(0)
    u, v, z = (generator.normal(size=shape) for shape in ((2, 3), (3, 2), (2,)))
    core = spec.channel_core(2, {"u": u, "v": v, "z": z})
    assert core.powers == (("N", -1),)
    np.testing.assert_allclose(core.core, np.einsum("dr,rb,f->bdf", u, v, z) * 2 * 2 / 3)


def test_parts_of_a_position_that_are_tied_differently_are_refused():
    spec = Spec("x[N,C]; where N = P*Q; where q : Q; y[(p q),b] = x[(p k),d]*w[d,b]")
    with pytest.raises(NotPolynomialError, match="the parts of N are tied differently from one another"):
        spec.channel_core(2, {"w": np.eye(2)})
