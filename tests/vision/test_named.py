"""Facts of the names of blocks."""

from functools import partial

import pytest
from torch import nn

import polyattn as pa
from polyattn.vision.named import attention_value


def test_equation_texts_and_catalogue_names_are_specifications():
    text = "x[N,C]; y[a,b] = x[a,d]*w[d,b]"
    assert attention_value(text) == pa.Spec(text)
    assert attention_value("ba_transform") == pa.catalog.ba_transform()


def test_a_name_that_nothing_has_is_refused_with_the_nearest_one():
    with pytest.raises(pa.InsertError, match="did you mean 'poly_nl'"):
        attention_value("polynl")


def test_options_that_a_block_does_not_have_are_refused_with_those_that_it_has():
    with pytest.raises(pa.InsertError, match=r"Dropout has no option 'q'; its options are: inplace"):
        attention_value(nn.Dropout, q=1)


@pytest.mark.parametrize("value", [pa.catalog.nl(), nn.ReLU()])
def test_what_takes_no_options_gets_none(value):
    with pytest.raises(pa.InsertError, match="takes no options, but got: groups"):
        attention_value(value, groups=4)


def test_a_callable_gets_the_options_and_the_number_of_axes_where_it_has_a_word_for_it():
    def block(channels: int, dim: int = 2, size: int = 1) -> nn.Module:
        return nn.Identity()

    made = attention_value(block, 3, size=5)
    assert isinstance(made, partial)
    assert made.keywords == {"dim": 3, "size": 5}
    assert attention_value(nn.BatchNorm2d, 3) is nn.BatchNorm2d


def test_a_dim_that_is_given_is_kept():
    made = attention_value(partial(pa.nn.Attention, pa.catalog.nl()), 3)
    assert isinstance(made, partial)
    assert "dim" not in made.keywords
