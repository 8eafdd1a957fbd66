"""The symbols of a symbolic interaction tensor: one for each entry of each parameter."""

from polyattn.algebra import Spec


def test_entries_of_different_parameters_never_share_a_symbol():
    spec = Spec("x[N]; where b : 1; y[a] = x[a]*w[a,b]*w_1[b]")
    entries = spec.interaction_tensor({"N": 2})
    assert [str(v) for v in entries.values()] == ["w[0,0]*w_1[0]", "w[1,0]*w_1[0]"]


def test_symbols_are_plain_names_where_they_can_be():
    entries = Spec("x[N]; y[a] = x[b]*w[a,b]").interaction_tensor({"N": 2})
    assert [str(v) for v in entries.values()] == ["w_0_0", "w_0_1", "w_1_0", "w_1_1"]
