"""What the search takes for a match is one: each is proved from its texts, not only the first."""

from itertools import islice

import pytest

import polyattn as pa
from polyattn.relating.matching import Matcher
from polyattn.relating.network import network
from polyattn.relating.sides import renamed, sides
from polyattn.relating.texts import condition

PAIRS = [
    ("cp_nl", "poly_nl"),
    ("nl", "e_nl"),
    ("x[N,C]; y[a,b] = 3*x[a,d]*w[d,f]*x[e,f]*x[e,h]*w[h,b]", "x[N,C]; y[a,b] = x[a,d]*u[d,f]*x[e,f]*x[e,h]*u[h,b]"),
    ("x[N,C]; y[a,b] = x[a,d]*w[d,f]*x[e,f]*x[e,h]*w[h,b]", "x[N,C]; y[a,b] = x[a,d]*u[d,f]*x[e,f]*x[e,h]*v[h,b]"),
    ("x[N,C]; where r, s : R; y[a,b] = x[a,d]*u[d,r]*v[s,b]", "x[N,C]; where r : R; y[a,b] = x[a,d]*p[d,r]*q[r,b]"),
]


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_every_match_of_the_search_is_proved(a, b):
    first, second = (pa.Spec(t) if "[" in t else pa.catalog.get(t) for t in (a, b))
    for found in sides(first, second):
        mine, theirs = found.parameters
        names = {new: old for old, new in found.names.sizes.items()}
        matcher = Matcher(network(found.a, mine), network(found.b, theirs), found.shared, names, 20_000)
        for match in islice(matcher.run(), 12):
            texts = condition(found, match)
            given = [*texts.given, *texts.sizes]
            assert pa.prove(renamed(first, texts.names), second, given=given), given


def test_split_slots_of_one_name_are_not_the_same():
    split = "x[N,C]; where D = H*E; y[a,b] = x[a,c]*w[c,(h e)]*v[(h e),b]; where h : H; where e : E"
    relation = pa.relate(split, "x[N,C]; where h : H; where e : E; y[a,b] = x[a,c]*w[c,h,e]*u[h,e,b]")
    assert relation
    assert relation.renamed["w"] == "w_a"
