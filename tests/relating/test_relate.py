"""What `relate` finds is what the texts say: both sides evaluated in numpy with its equations put in by hand."""

import re

import numpy as np
import pytest

import polyattn as pa

MULTI = """x[N,C]; where h : H; where d : D; where e : E
    p[h,a,b] = softmax[b](x[a,c]*wq[c,h,d]*x[b,k]*wk[k,h,d]); y[a,f] = p[h,a,b]*x[b,g]*wv[g,h,e]*wo[h,e,f]"""
GROUPED = """x[N,C]; where g : G; where m : M; where d : D; where e : E
    p[g,m,a,b] = softmax[b](x[a,c]*uq[c,g,m,d]*x[b,k]*uk[k,g,d]); y[a,f] = p[g,m,a,b]*x[b,i]*uv[i,g,e]*uo[g,m,e,f]"""
ONE = """x[N,C]; where m : M; where d : D; where e : E
    p[m,a,b] = softmax[b](x[a,c]*vq[c,m,d]*x[b,k]*vk[k,d]); y[a,f] = p[m,a,b]*x[b,i]*vv[i,e]*vo[m,e,f]"""
CROSS = "x[N,C]; z[M,C]; p[a,e] = softmax[e](x[a,c]*w[c,d]*z[e,d]); y[a,b] = p[a,e]*z[e,c]*v[c,b]"
SELF = "x[N,C]; p[a,e] = softmax[e](x[a,c]*w[c,d]*x[e,d]); y[a,b] = p[a,e]*x[e,c]*v[c,b]"

# Written down before the search was run: what is a special case of what.
KNOWN = {
    ("nl", "e_nl"), ("e_nl", "nl"), ("cp_nl", "poly_nl"), ("cp_nl", "nl"), ("cp_nl", "e_nl"), ("tucker_nl", "cp_nl"),
    ("tucker_nl", "e_nl"), ("block_term_nl", "e_nl"), ("block_term_nl", "cp_nl"), ("tt_nl", "cp_nl"), ("cgnl", "cp_nl"),
    ("nl", "latent_gnn"), ("latent_gnn", "nl"), ("a2_net", "e_nl"), ("ba_transform", "ba_transform_block"),
}  # fmt: skip
NOT = [("nl", "poly_nl"), ("poly_nl", "nl"), ("e_nl", "cp_nl"), ("poly_nl", "e_nl"), ("axial", "criss_cross")]


def arrays(spec, sizes, seed=0):
    draw = np.random.default_rng(seed)
    names = {**spec.inputs, **spec.parameters}
    return {n: draw.integers(-2, 3, [whole(spec, s, sizes) for s in shape]).astype(float) for n, shape in names.items()}


def whole(spec, size, sizes):
    return int(np.prod([int(a) if a.isdigit() else sizes[a] for a in spec.sizes.atoms(size)]))


def tensor_of(equation, tensors, sizes, shape):
    """Return the array of a definition by einsum, in the shape of its parameter: a list of axes for each slot."""
    target, body = equation.split(" = ", 1)
    number, operands = -1.0 if body.startswith("-") else 1.0, []
    flat = re.findall(r"\w+", target.partition("[")[2])
    letters = dict(zip(flat, [n for slot in shape for n in slot], strict=True))
    for sign, factor in re.findall(r"(^|[*/])([^*/\[]+(?:\[[^\]]*\])?)", body.lstrip("-")):
        name, _, slots = factor.partition("[")
        indices = re.findall(r"\w+", slots)
        if not slots and (name[0].isdigit() or name[0].isupper()):
            value = float(name) if name[0].isdigit() else sizes[name]
            number = number / value if sign == "/" else number * value
        elif name == "I":
            operands.append((np.eye(letters[indices[0]]), indices))
        else:
            # A tensor with split slots has an axis for each letter; an index of its own has what is left.
            shape_ = [letters.get(i, -1) for i in indices]
            made = tensors[name].reshape(shape_ if shape_.count(-1) < 2 else tensors[name].shape)
            operands.append((made, indices))
            letters |= dict(zip(indices, made.shape, strict=True))
    alphabet = {letter: chr(97 + k) for k, letter in enumerate(letters)}
    parts = ["".join(alphabet[i] for i in flat), *("".join(alphabet[i] for i in s) for _, s in operands)]
    ones = np.ones([letters[i] for i in flat])
    made = np.einsum(f"{','.join(parts)}->{parts[0]}", ones, *(array for array, _ in operands))
    return number * made.reshape([int(np.prod(slot)) for slot in shape])


def agree(relation):
    """Return whether both sides have one value where the left's parameters are what the relation says."""
    right, left = relation.right, relation.left
    sizes = {s: 2 + k % 2 for k, s in enumerate(right.sizes.atomic)}
    images = dict(e.split(" = ") for e in relation.sizes)
    tensors = arrays(right, sizes)
    sizes |= {s: whole(right, s, sizes) for s in right.sizes.names}

    def axes(slot):
        parts = [q for a in slot for p in images.get(a, a).split("*") for q in (right.sizes.parts(p) or (p,))]
        return [int(p) if p.isdigit() else sizes[p] for p in parts]

    mine = dict(tensors)
    for equation in relation.given:
        name = equation.partition("[")[0].split(" = ")[0]
        mine[name] = tensor_of(equation, tensors, sizes, [axes(slot) for slot in left.shape(name)])
    sizes |= {s: int(np.prod(axes([s]))) for s in images}
    needed = {**left.inputs, **left.parameters}
    first = left.evaluate({n: mine[n] for n in needed}, {s: sizes[s] for s in left.sizes.atomic})
    second = right.evaluate(tensors, {s: sizes[s] for s in right.sizes.atomic})
    return np.allclose(first, second, rtol=1e-9) and np.abs(second).max() > 0


@pytest.mark.parametrize(("a", "b"), sorted(KNOWN))
def test_known_relations_of_the_catalogue_are_found_and_hold_in_numbers(a, b):
    relation = pa.relate(a, b)
    assert relation, (a, b)
    assert agree(relation), relation
    assert pa.prove(relation.left, relation.right, given=[*relation.given, *relation.sizes])


@pytest.mark.parametrize(("a", "b"), NOT)
def test_what_is_no_special_case_is_not_found(a, b):
    relation = pa.relate(a, b)
    assert not relation
    assert relation.complete
    assert str(relation).startswith("none within this search")


@pytest.mark.parametrize(
    ("a", "b"), [(MULTI, GROUPED), (GROUPED, ONE), (MULTI, ONE), (GROUPED, MULTI)], ids=["mg", "go", "mo", "gm"]
)
def test_heads_that_share_keys_are_heads_with_repeated_ones(a, b):
    relation = pa.relate(a, b)
    assert relation
    assert agree(relation)


def test_grouped_queries_are_multi_query_with_one_group_and_multi_head_with_groups_of_one():
    assert "G = 1" in pa.relate(GROUPED, ONE).sizes
    assert "M = 1" in pa.relate(GROUPED, MULTI).sizes
    # Heads as wide as the input hold any query-key product: one key for all is then no restriction.
    assert "D_a = C" in pa.relate(ONE, GROUPED).sizes


def test_sizes_change_as_little_as_they_have_to():
    assert pa.relate("block_term_nl", "e_nl").sizes == ("G = 1",)
    assert pa.relate("tucker_nl", "cp_nl").sizes == ("K = R", "S = R", "V = R")
    assert "R_a = R*V" in pa.relate("cp_nl", "e_nl").sizes


def test_an_input_is_set_to_another():
    relation = pa.relate(CROSS, SELF)
    assert relation
    assert relation.inputs == {"z": "x"}
    assert not pa.relate(SELF, CROSS)


def test_a_layer_over_a_map_becomes_one_over_positions():
    relation = pa.relate("tesa", "nl")
    assert {"alpha1 = 1", "alpha2 = 0", "alpha3 = 0", "wv1[c,c1] = wg[c,c1]"} <= set(relation.given)
    assert relation.left.inputs == relation.right.inputs
    right = arrays(relation.right, {"N": 6, "C": 2})
    left = arrays(relation.left, {"H": 2, "W": 3, "C": 2, "R": 2}) | {"x": right["x"]}
    left |= {"wq1": np.eye(2), "wk1": right["wf"].T, "wv1": right["wg"]}
    left |= {f"alpha{k}": np.array(float(k == 1)) for k in (1, 2, 3)}
    y = relation.left.evaluate(left, {"H": 2, "W": 3})
    assert np.allclose(y, relation.right.evaluate(right))
    assert not pa.relate("nl", "tesa")


def test_the_same_up_to_names_needs_names_only():
    relation = pa.relate("x[N,C]; y[a,b] = x[a,c]*u[c,b]", "x[N,C]; y[a,b] = x[a,c]*w[c,b]")
    assert relation.given == ("u[i1,i2] = w[i1,i2]",)
    assert relation.sizes == ()
    assert pa.relate("nl", pa.catalog.nl()).is_equality


def test_zeros_transposed_and_repeated_parameters():
    bias = "x[N,C]; y[a,b] = x[a,c]*w[c,b] + v[b]"
    assert "v[c] = 0" in pa.relate(bias, "x[N,C]; y[a,b] = x[a,c]*u[b,c]").given
    tied = pa.relate("nl", "x[N,C]; y[a,b] = 2*x[a,d]*w[d,f]*x[e,f]*x[e,h]*w[b,h]")
    assert tied
    assert set(tied.given) == {"wf[c,c1] = w[c,c1]", "wg[c,c1] = 2*w[c1,c]"}


def test_attention_with_zero_scores_is_the_mean_over_positions():
    relation = pa.relate("x[N,C]; p[a,e] = softmax[e](x[a,c]*w[c,d]*x[e,d]); y[a,b] = p[a,e]*x[e,b]",
                         "x[N,C]; y[a,b] = 1/N*x[e,b]*I[a,a]")  # fmt: skip
    assert relation
    assert relation.given == ("w[c,c1] = 0",)


def test_a_search_is_bounded_by_its_effort():
    relation = pa.relate("tucker_nl", "nl", effort=20)
    assert not relation
    assert not relation.complete
    assert "effort was spent" in str(relation)
    with pytest.raises(pa.ProofError, match="`effort` must be a positive"):
        pa.relate("nl", "nl", effort=0)


def test_code_is_read_first():
    import torch

    relation = pa.relate(lambda x: (x @ x.mT) @ x, lambda x: x @ (x.mT @ x), args=(torch.randn(2, 5, 3),))
    assert relation.is_equality
