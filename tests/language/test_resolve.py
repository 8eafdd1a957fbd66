"""The size of every index and slot, and the order-free way to find them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyattn.language import Specification
from polyattn.testing import renamed, specification_texts


def parameters(text: str) -> dict[str, tuple[str, ...]]:
    return Specification(text).parameters


def test_the_input_fixes_the_sizes_of_its_indices():
    assert parameters("x[N,C]; y[a] = x[a,d]*w[d,a]") == {"w": ("C", "N")}


def test_a_where_fixes_the_size_of_an_index_in_every_definition():
    text = "x[N,C]; where r : R; t[a,r] = x[a,d]*w[d,r]; y[a,b] = t[a,r]*v[r,b]"
    assert parameters(text) == {"w": ("C", "R"), "v": ("R", "C")}


def test_a_size_may_be_a_number():
    text = "x[2,C]; where r : 3; y[a,b] = x[a,d]*w[r,a]*v[r,d,b]"
    assert parameters(text) == {"w": ("3", "2"), "v": ("3", "C", "C")}


def test_an_intermediate_carries_sizes_forwards_and_backwards():
    assert parameters("x[N,C]; t[d] = x[a,d]; y[b] = t[b]*w[b]") == {"w": ("C",)}
    backwards = "x[N,C]; where q : Q; t[r] = w[r]; y[a] = x[a,d]*t[q]*v[q,d]"
    assert parameters(backwards) == {"w": ("Q",), "v": ("Q", "C")}


def test_a_parameter_carries_sizes_from_one_use_to_the_next():
    assert parameters("x[N,C]; y[a] = w[r]*v[r]*x[a,d]*w[d]") == {"w": ("C",), "v": ("C",)}


def test_the_identity_carries_the_size_of_one_slot_to_the_other():
    assert parameters("x[N,C]; y[a] = x[a,d]*I[d,e]*w[e]*I[a,c]*v[c]") == {"w": ("C",), "v": ("N",)}


def test_each_use_of_the_identity_has_a_size_of_its_own():
    assert Specification("x[N,C]; y[a,b] = x[d,e]*I[a,d]*I[b,e]").output_shape == ("N", "C")


def test_an_index_has_a_size_of_its_own_in_every_definition():
    spec = Specification("x[N,C]; t[a] = x[d,a]; y[a] = x[a,d]*t[d]")
    assert [dict(sizes) for sizes in spec.resolved.index_sizes] == [
        {"a": ("C",), "d": ("N",)},
        {"a": ("N",), "d": ("C",)},
    ]


def test_the_output_is_like_the_input_of_its_rank_where_nothing_else_fixes_it():
    assert parameters("x[N,C]; y[a,b] = x[a,d]*w[d,b]") == {"w": ("C", "C")}
    assert parameters("x[N,C]; z[H,W]; y[a,b] = x[a,d]*w[d,b]*z[e,f]")["w"] == ("C", "C")
    assert parameters("x[N,C]; z[K]; y[b] = x[a,d]*w[a,d,b]") == {"w": ("N", "C", "K")}


def test_a_where_overrules_the_size_that_the_output_would_have():
    assert parameters("x[N,C]; where b : D; y[a,b] = x[a,d]*w[d,b]") == {"w": ("C", "D")}


def test_an_output_of_another_rank_needs_its_sizes():
    with pytest.raises(ValueError, match="size of index 'b' is not known"):
        Specification("x[N,C]; y[b] = x[a,d]*w[d,b]")


class TestSplits:
    COMPOSITE = "x[N,C]; where C = G*M; y[n,(g m)] = x[n,(g m)]*w[g]"
    PLAIN = "x[N,C]; where C = G*M; y[n,c] = x[n,c]*v[c]"

    def test_the_parts_of_a_composite_slot_are_the_declared_parts_of_its_size(self):
        spec = Specification(self.COMPOSITE)
        assert dict(spec.resolved.index_sizes[0]) == {"n": ("N",), "g": ("G",), "m": ("M",)}
        assert spec.parameters == {"w": ("G",)}

    def test_a_plain_index_over_a_split_size_is_the_pair_of_its_parts(self):
        spec = Specification(self.PLAIN)
        assert spec.resolved.index_sizes[0]["c"] == ("G", "M")
        assert spec.shape("v") == (("G", "M"),)

    def test_composite_and_plain_slots_give_the_same_shapes(self):
        composite, plain = Specification(self.COMPOSITE), Specification(self.PLAIN)
        assert composite.output_shape == plain.output_shape == ("N", "C")
        assert composite.shape("y") == plain.shape("y") == (("N",), ("G", "M"))

    def test_one_tensor_may_be_used_in_both_ways(self):
        text = "x[N,C]; where C = G*M; y[a,c] = x[a,(g m)]*w[(g m),c]*x[b,d]*w[d,c]"
        assert parameters(text) == {"w": ("C", "C")}

    def test_a_split_may_be_split_again(self):
        base = "x[C]; where C = G*M; where M = S*T; "
        for slot, sizes in {
            "(g m)": {"g": ("G",), "m": ("S", "T")},
            "(g s t)": {"g": ("G",), "s": ("S",), "t": ("T",)},
            "c": {"c": ("G", "S", "T")},
        }.items():
            spec = Specification(f"{base}y = x[{slot}]")
            assert dict(spec.resolved.index_sizes[0]) == sizes

    def test_a_part_may_be_a_number_and_may_occur_twice(self):
        assert parameters("x[C]; where C = 2*M; y = x[(i m)]*w[i]") == {"w": ("2",)}
        assert parameters("x[C]; where C = G*G; y = x[(i j)]*x[(j i)]*w[i]*v[j]") == {"w": ("G",), "v": ("G",)}
        assert parameters("x[C]; where C = G*G; y = x[(i i)]*w[i]") == {"w": ("G",)}

    def test_one_unknown_part_is_what_the_others_leave(self):
        text = "x[C]; where C = A*B*D; where k : K; where K = B*D; y = x[(a k)]*w[a]"
        assert parameters(text) == {"w": ("A",)}

    @pytest.mark.parametrize("body", ["x[n,(k t)]*z[k]", "z[k]*x[n,(k t)]"], ids=["the slot first", "the part first"])
    def test_what_other_slots_say_comes_before_the_declared_parts(self, body):
        splits = "where C = G*M; where M = S*T; where K = G*S"  # so C is G*(S*T), and K*T as well
        assert Specification(f"x[N,C]; z[K]; {splits}; y[n,t] = {body}").output_shape == ("N", "T")

    @pytest.mark.parametrize("body", ["x[n,(g k)]*z[k]", "z[k]*x[n,(g k)]"], ids=["the slot first", "the part first"])
    def test_a_slot_waits_for_other_slots_to_say_how_it_is_split(self, body):
        spec = Specification(f"x[N,C]; z[K]; where C = A*B*D; where K = B*D; y[n,g] = {body}")
        assert spec.output_shape == ("N", "A")

    def test_a_parameter_may_have_a_slot_of_several_indices(self):
        spec = Specification("x[N,C]; y[a,b] = x[a,d]*w[(a d),b]*w[e,b]*v[e]*w[(p q),b]")
        assert spec.shape("w") == (("N", "C"), ("C",))
        assert spec.parameters == {"w": ("N*C", "C"), "v": ("N*C",)}

    def test_a_product_of_parts_that_has_a_name_is_called_by_it(self):
        assert parameters("x[N,C]; where C = G*M; y[n] = x[n,(g m)]*w[(g m)]") == {"w": ("C",)}


@given(st.data())
def test_names_and_order_do_not_change_a_shape(data):
    text = data.draw(specification_texts())
    spec, other = Specification(text), Specification(data.draw(renamed(text)))
    assert dict(spec.resolved.shapes) == dict(other.resolved.shapes)
    assert spec.output_shape == other.output_shape


@given(specification_texts(output_like_input=True))
def test_every_slot_has_the_size_of_its_indices(text):
    spec = Specification(text)
    for sizes, definition in zip(spec.resolved.index_sizes, spec.statements.definitions, strict=True):
        target = definition.target
        for slot, size in zip(target.slots, spec.shape(target.tensor), strict=True):
            assert tuple(atom for index in slot.indices for atom in sizes[index]) == size
    assert spec.output_shape == next(iter(spec.inputs.values()))
