"""How entries of the catalogue relate to one another."""

import numpy as np
import pytest

import polyattn as pa
from polyattn import catalog


def drawn(spec, sizes, seed=0):
    generator = np.random.default_rng(seed)
    known = spec.sizes.solve(sizes, spec.sizes.names)
    shapes = {**spec.inputs, **spec.parameters}
    return {name: generator.normal(size=[known[s] for s in shape]) for name, shape in shapes.items()}


def test_e_nl_is_nl_with_factorised_weights():
    factorised = catalog.nl().substitute(
        "wf[d,f] = wq[d,r]*wk[f,r]", "wg[h,b] = 1/N * wv[h,s]*wo[s,b]", "r : R", "s : V"
    )
    assert factorised.polynomial() == catalog.e_nl().polynomial()


@pytest.mark.parametrize("softmax", [False, True])
def test_double_attention_is_efficient_attention_with_other_names(softmax):
    renamed = catalog.a2_net(softmax=softmax).substitute(
        "wrho[d,r] = wq[d,r]", "wtheta[f,r] = wk[f,r]", "wphi[h,s] = wv[h,s]"
    )
    assert renamed.polynomial() == catalog.e_nl(softmax=softmax).polynomial()


def test_softmax_of_the_key_and_of_the_query_is_not_softmax_of_the_similarity():
    factorised = catalog.nl(softmax=True).substitute(
        "wf[d,f] = wq[d,r]*wk[f,r]", "wg[h,b] = wv[h,s]*wo[s,b]", "r : R", "s : V"
    )
    assert factorised.polynomial() != catalog.e_nl(softmax=True).polynomial()


def test_latent_gnn_is_nl_with_weights_through_the_latent_nodes():
    through = catalog.nl().substitute("wf[d,f] = 1/N * wpsi[d,k]*adj[k,l]*wphi[f,l]", "k : R", "l : R")
    assert through.polynomial() == catalog.latent_gnn().polynomial()


def test_glore_is_nl_with_one_projection_for_both_ways():
    through = catalog.nl().substitute(
        "wf[d,f] = wtheta[d,k]*(I[k,l] - adj[k,l])*wtheta[f,l]",
        "wg[h,b] = wphi[h,s]*wgraph[s,t]*wo[t,b]",
        "k, l : R",
        "s, t : V",
    )
    assert through.polynomial() == catalog.glore().substitute("wg[s,t] = wgraph[s,t]").polynomial()


def test_cgnl_of_one_inner_channel_is_nl_of_rank_one():
    spec, sizes = catalog.cgnl(), {"N": 4, "C": 3, "G": 1, "M": 1}
    tensors = drawn(spec, sizes)
    wf, wg = tensors["wt"] @ tensors["wp"].T, tensors["wg"] @ tensors["wz"]
    y = catalog.nl().evaluate({"x": tensors["x"], "wf": wf, "wg": wg})
    np.testing.assert_allclose(spec.evaluate(tensors, sizes), y)


def test_criss_cross_is_the_sum_of_both_axial_layers():
    both = catalog.axial("height").polynomial() + catalog.axial("width").polynomial()
    assert catalog.criss_cross().polynomial() == both


def test_axial_along_the_width_is_axial_along_the_height_of_the_transposed_map():
    spec = catalog.axial("width")
    tensors = drawn(spec, {"H": 3, "W": 4, "C": 2, "R": 2})
    transposed = tensors | {"x": tensors["x"].swapaxes(0, 1)}
    np.testing.assert_allclose(spec.evaluate(tensors), catalog.axial().evaluate(transposed).swapaxes(0, 1))


def test_nl_on_a_map_of_one_column_is_axial_along_the_height():
    spec = catalog.axial("height")
    tensors = drawn(spec, {"H": 4, "W": 1, "C": 3, "R": 2})
    wf = tensors["wq"] @ tensors["wk"].T
    y = catalog.nl().evaluate({"x": tensors["x"][:, 0], "wf": wf, "wg": tensors["wv"]})
    np.testing.assert_allclose(spec.evaluate(tensors)[:, 0], y)


def test_the_first_term_of_tesa_is_nl_over_all_positions():
    spec = catalog.tesa()
    tensors = drawn(spec, {"H": 2, "W": 3, "C": 3, "R": 2}) | {"alpha1": 1.0, "alpha2": 0.0, "alpha3": 0.0}
    x, wf = tensors["x"].reshape(6, 3), tensors["wq1"] @ tensors["wk1"].T
    y = catalog.nl().evaluate({"x": x, "wf": wf, "wg": tensors["wv1"]})
    np.testing.assert_allclose(spec.evaluate(tensors).reshape(6, 3), y)


def test_poly_nl_in_hadamard_form_is_poly_nl_in_gram_form():
    hadamard = pa.Spec("""
        x[N,C]
        u[e,d] = x[e,h]*w1[h,d]; v[e,d] = x[e,f]*w2[f,d]
        pooled[d] = mean[e](u[e,d]*v[e,d])
        y[a,b] = pooled[d]*x[a,d]*w3[d,b]
    """)
    gram = pa.Spec("""
        x[N,C]
        gram[f,h] = x[e,f]*x[e,h]
        s[d] = 1/N * gram[f,h]*w1[h,d]*w2[f,d]
        scaled[d,b] = s[d]*w3[d,b]
        y[a,b] = x[a,d]*scaled[d,b]
    """)
    assert hadamard.polynomial() == gram.polynomial() == catalog.poly_nl().polynomial()


def test_poly_nl_and_nl_reach_the_same_triplets_with_other_weights():
    nl, poly_nl = catalog.nl(), catalog.poly_nl()
    sizes = {"N": 3, "C": 2}

    def tensor(spec):
        parameters = {name: np.abs(w) for name, w in drawn(spec, sizes).items() if name != "x"}
        return pa.symmetrise(spec.interaction_tensor(sizes, parameters))

    np.testing.assert_array_equal(tensor(nl) != 0, tensor(poly_nl) != 0)
    assert nl.polynomial() != poly_nl.polynomial()


def test_neither_of_poly_nl_and_nl_is_a_special_case_of_the_other():
    """At a fixed channel d, Poly-NL's weights are of rank 1 in (f h) against b, for any w1, w2, w3. And the pairs
    (d, b) that have weights are, in NL, those of a row of wf and a column of wg that are not zero: no diagonal."""
    sizes, eye = {"N": 2, "C": 3}, np.eye(3)

    def weights(spec, parameters):
        return pa.symmetrise(spec.interaction_tensor(sizes, parameters))[0, :, 0, :, 1, :, 1, :]

    nl = weights(catalog.nl(), {"wf": eye, "wg": eye})
    poly_nl = weights(catalog.poly_nl(), {"w1": eye, "w2": eye, "w3": eye})
    assert [np.linalg.matrix_rank(poly_nl[:, d].reshape(3, 9)) for d in range(3)] == [1, 1, 1]
    assert [np.linalg.matrix_rank(nl[:, d].reshape(3, 9)) for d in range(3)] == [3, 3, 3]
    np.testing.assert_array_equal(poly_nl.any((2, 3)), eye)
    np.testing.assert_array_equal(nl.any((2, 3)), np.ones((3, 3)))


def test_block_based_ba_transform_is_the_full_one_with_kronecker_matrices():
    block, full = catalog.ba_transform_block(), catalog.ba_transform()
    sizes = {"S": 2, "U": 3, "V": 2, "G": 2, "M": 2, "K": 3}
    tensors = drawn(block, sizes)

    def widened(w, length):
        """P_s ⊗ I, predicted from full-resolution pooled features: each block's feature is the mean of its rows'."""
        wide = np.einsum("gabtm,uv,w->gaubvtwm", w, np.eye(length), np.ones(length) / length)
        return wide.reshape(w.shape[0], *[n * length for n in w.shape[1:4]], w.shape[4])

    wide = tensors | {"wp": widened(tensors["wp"], sizes["U"]), "wq": widened(tensors["wq"], sizes["V"])}
    np.testing.assert_allclose(block.evaluate(tensors), full.evaluate(wide, {"G": 2, "M": 2}))


def test_block_based_ba_transform_with_blocks_of_one_is_the_full_one():
    block, full = catalog.ba_transform_block(), catalog.ba_transform()
    tensors = drawn(block, {"S": 3, "U": 1, "V": 1, "G": 2, "M": 2, "K": 2})
    np.testing.assert_allclose(block.evaluate(tensors), full.evaluate(tensors))


def test_the_temporal_matrix_of_3d_bat_commutes_with_the_spatial_ones():
    statements = {
        "space": "z[t,i,j,c] = p[t,i,k]*x[t,k,l,c]*q[t,l,j]; y[t,i,j,c] = m[t,s]*z[s,i,j,c]",
        "time": "z[t,i,j,c] = m[t,s]*x[s,i,j,c]; y[t,i,j,c] = p[t,i,k]*z[t,k,l,c]*q[t,l,j]",
    }
    own = {order: pa.Spec(f"x[T,H,W,C]; {text}").polynomial() for order, text in statements.items()}
    assert own["space"] != own["time"]  # with matrices of each frame's own
    shared = {
        order: pa.Spec(f"x[T,H,W,C]; {text}".replace("p[t,i,k]", "p[i,k]").replace("q[t,l,j]", "q[l,j]")).polynomial()
        for order, text in statements.items()
    }
    assert shared["space"] == shared["time"]


ANY_ORDER = ["a2_net", "cgnl", "e_nl", "glore", "latent_gnn", "nl", "poly_nl"]


@pytest.mark.parametrize("name", ANY_ORDER)
def test_layers_over_flat_positions_commute_with_every_permutation_of_them(name):
    spec = catalog.get(name)
    sizes = {"N": 5, "C": 4, "R": 2, "V": 3, "G": 2, "M": 2}
    sizes = {s: n for s, n in sizes.items() if s in spec.sizes.names}
    tensors = drawn(spec, sizes)
    order = np.random.default_rng(1).permutation(5)
    moved = spec.evaluate(tensors | {"x": tensors["x"][order]}, sizes)
    np.testing.assert_allclose(moved, spec.evaluate(tensors, sizes)[order])


@pytest.mark.parametrize("name", ["tesa", "axial", "criss_cross", "ba_transform"])
def test_layers_over_maps_commute_with_permutations_of_rows_unless_rows_have_weights(name):
    spec = catalog.get(name)
    sizes = {"H": 3, "W": 2, "C": 4, "R": 2, "G": 2, "M": 2, "K": 2}
    tensors = drawn(spec, {s: n for s, n in sizes.items() if s in spec.sizes.names})
    order = [1, 2, 0]
    moved, y = spec.evaluate(tensors | {"x": tensors["x"][order]}), spec.evaluate(tensors)[order]
    assert np.allclose(moved, y) == (name != "ba_transform")
