"""Facts of crossovers: which plan is cheaper on either side of every point, and the complexities of the papers."""

from fractions import Fraction

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from polyattn import SizeError, Spec, catalog, plan
from polyattn.planning import question, ranked_plans
from polyattn.study import complexity, crossover, layer_crossover
from polyattn.study.crossover import Crossover, _signs
from tests.drawing import share


def symbols(names: str) -> list[sympy.Symbol]:
    return [sympy.Symbol(n, positive=True, integer=True) for n in names.split()]


def candidates(name: str, sizes: dict[str, int], objective: str = "forward"):
    return ranked_plans(question(catalog.get(name), sizes, objective), 20)


@pytest.mark.parametrize("objective", ["forward", "training"])
def test_gram_form_overtakes_hadamard_form_where_positions_outnumber_channels(objective: str):
    spec = catalog.poly_nl()
    hadamard = plan(spec, {"N": 4, "C": 64}, objective)
    gram = plan(spec, {"N": 40_000, "C": 64}, objective)
    found = crossover(hadamard, plan(spec, {"N": 40_000, "C": 64}, objective), "N")
    assert found.cheaper == (0, 1)
    (point,) = found.points
    for n in range(1, 400, 7):
        costs = [
            (p.training_complexity if objective == "training" else p.complexity).subs(
                dict(zip(symbols("B N C"), (1, n, 64), strict=True))
            )
            for p in (hadamard, gram)
        ]
        assert found.cheaper_at(n) == (None if costs[0] == costs[1] else int(int(costs[0]) > int(costs[1]))), (n, costs)
    assert 16 < point < 400


@share(0.5)
@given(st.data())
def test_the_cheaper_plan_is_the_one_with_fewer_multiply_accumulates(data: st.DataObject):
    name = data.draw(st.sampled_from(["poly_nl", "nl", "e_nl", "latent_gnn", "cgnl"]))
    sizes = {"N": 50, "C": 12, "R": 5, "V": 3, "G": 3, "M": 4}
    spec = catalog.get(name)
    plans = candidates(name, {n: sizes[n] for n in spec.sizes.names if n in sizes})
    first, second = (data.draw(st.sampled_from(plans)) for _ in range(2))
    size = data.draw(st.sampled_from([n for n in ("N", "C", "R", "B") if n == "B" or n in spec.sizes.names]))
    if any(s.size == size for s in spec.sizes.splits):
        return
    found = crossover(first, second, size)
    for n in data.draw(st.lists(st.integers(1, 5000), min_size=5, max_size=5)):
        values = {**dict(found.others), size: n}
        a, b = (p.complexity.subs({s: values[s.name] for s in p.complexity.free_symbols}) for p in (first, second))
        assert found.cheaper_at(n) == (None if a == b else int(int(b) < int(a)))


def test_formulas_say_where_in_terms_of_the_other_sizes():
    maps = plan("x[N,C]; s[a,e] = x[a,d]*x[e,d]; y[a,b] = s[a,e]*x[e,b]", {"N": 9, "C": 8}, "as_written")
    gram = plan("x[N,C]; s[d,f] = x[e,d]*x[e,f]; y[a,b] = x[a,d]*s[d,b]", {"N": 9, "C": 8}, "as_written")
    assert crossover(maps, gram, "N").formulas == tuple(symbols("C"))
    assert crossover(maps, maps, "N").cheaper == (None,)
    assert "take the same at every N" in str(crossover(maps, maps, "N"))


def test_a_formula_may_be_positive_at_some_sizes_only():
    """N²C + NCR multiply-accumulates against NC²: equal at N = C - R, where that is positive."""
    sizes = {"N": 9, "C": 8, "R": 3}
    text = "x[N,C]; where r : R; s[a,e] = x[a,d]*x[e,d]; k[a,r] = x[a,d]*u[d,r]; y[a,r] = k[a,r] + s[a,e]"
    first, second = (
        plan(text, sizes, "as_written"),
        plan("x[N,C]; y[a,b] = x[a,d]*w[d,b]", {"N": 9, "C": 8}, "as_written"),
    )
    found = crossover(first, second, "N")
    c, r = symbols("C R")
    assert (found.points, found.formulas) == ((5.0,), (c - r,))


def test_the_printed_ranges_leave_out_the_sizes_of_equal_cost():
    maps = plan("x[N,C]; s[a,e] = x[a,d]*x[e,d]; y[a,b] = s[a,e]*x[e,b]", {"N": 9, "C": 8}, "as_written")
    gram = plan("x[N,C]; s[d,f] = x[e,d]*x[e,f]; y[a,b] = x[a,d]*s[d,b]", {"N": 9, "C": 8}, "as_written")
    text = str(crossover(maps, gram, "N")).splitlines()[0]
    assert "(1) takes less for N = 1 to 7; " in text
    assert "(2) takes less for N = 9 on " in text


def test_a_size_at_which_costs_touch_is_no_point():
    """N²(N - 4)² of one plan over the other: equal at N = 4, and never dearer."""
    size = sympy.Dummy("N")
    assert _signs(sympy.Poly(size**2 * (size - 4) ** 2, size, domain="QQ")) == ((), (1,), (4,))
    assert _signs(sympy.Poly(size * (size - 4), size, domain="QQ")) == ((4,), (0, 1), ())


def test_where_costs_touch_neither_is_cheaper():
    """N² + 25 against 10 N: equal at N = 5 alone."""
    size = sympy.Dummy("N")
    points, cheaper, touching = _signs(sympy.Poly(size**2 - 10 * size + 25, size, domain="QQ"))
    found = Crossover("N", (), ("a", "b"), points, cheaper, (), (Fraction(1), Fraction(-10), Fraction(25)), touching)
    assert [found.cheaper_at(n) for n in (4, 5, 6, 5.5)] == [1, None, 1, 1]
    assert "b takes less for N = 1 to 4 and 6 on" in str(found)


@share(0.5)
@given(st.lists(st.fractions(Fraction(1, 7), 2**60, max_denominator=9), min_size=1, max_size=4), st.booleans())
def test_roots_are_exact_at_any_magnitude(roots: list[Fraction], turned: bool):
    """A polynomial made of its roots, against the sign of the product of its factors."""
    size = sympy.Dummy("N")
    sign = -1 if turned else 1
    product = sympy.Integer(sign)
    for root in roots:
        product *= size - sympy.Rational(root.numerator, root.denominator)
    polynomial = sympy.Poly(sympy.expand(product), size, domain="QQ")
    points, cheaper, touching = _signs(polynomial)
    assert set(points) | set(touching) == set(roots)
    coefficients = tuple(Fraction(int(c.p), int(c.q)) for c in polynomial.all_coeffs())
    found = Crossover("N", (), ("a", "b"), points, cheaper, (), coefficients, touching)
    for probe in {*roots, *(r + Fraction(1, 2**70) for r in roots), *(r - Fraction(1, 2**70) for r in roots)}:
        value = Fraction(sign)
        for root in roots:
            value *= probe - root
        assert found.cheaper_at(probe) == (None if not value else int(value > 0))
        if value:
            assert cheaper[sum(p < probe for p in points)] == int(value > 0)


@pytest.mark.parametrize("name", ["latent_gnn", "glore"])
def test_formulas_hold_where_the_highest_coefficient_vanishes(name: str):
    """V = C and B = 1: the general solution divides by V - C or B - 1."""
    spec = catalog.get(name)
    sizes = {n: v for n, v in {"N": 50, "C": 12, "R": 5, "V": 12}.items() if n in spec.sizes.names}
    plans = candidates(name, sizes)[:4]
    seen = 0
    for k, first in enumerate(plans):
        for second in plans[k + 1 :]:
            found = crossover(first, second, "R")
            numbers = dict(zip(symbols("B N C V"), (1, 50, 12, 12), strict=True))
            for formula in found.formulas:
                at = formula.subs(numbers)
                assert at.is_finite
                assert min(abs(float(at) - float(p)) for p in found.points) < 1e-9 * float(at)
                seen += 1
    assert seen


def test_what_cannot_be_compared_is_refused():
    spec, sizes = catalog.nl(), {"N": 9, "C": 8}
    made = plan(spec, sizes)
    with pytest.raises(SizeError, match="C is 8 in one and 4 in the other"):
        crossover(made, plan(spec, {"N": 9, "C": 4}), "N")
    with pytest.raises(SizeError, match="for training"):
        crossover(made, plan(spec, sizes, "training"), "N")
    with pytest.raises(SizeError, match="there is no size 'Q'"):
        crossover(made, made, "Q")
    grouped = plan(catalog.cgnl(), {"N": 9, "C": 8, "G": 2, "D": 4})
    with pytest.raises(SizeError, match="is split"):
        crossover(grouped, grouped, "D")


def test_the_non_local_block_costs_what_table_1_of_bat_says():
    spec = Spec(
        "x[N,C]; where C = 2*R; where r, s : R; theta[a,r] = x[a,d]*wt[d,r]; phi[e,r] = x[e,d]*wp[d,r];"
        "g[e,s] = x[e,d]*wg[d,s]; f[a,e] = theta[a,r]*phi[e,r]; y[a,s] = f[a,e]*g[e,s]; z[a,b] = y[a,s]*wz[s,b]"
    )
    made = plan(spec, {"N": 36, "C": 8}, "as_written")
    b, n, r = symbols("B N R")
    c = 2 * r
    assert sympy.expand(made.complexity - b * (2 * c**2 * n + c * n**2)) == 0
    assert all(set(shape) == {"C", "R"} for shape in spec.parameters.values())
    assert len(spec.parameters) * 4 * 8 == 2 * 8**2


def test_bat_block_costs_what_table_1_of_bat_says():
    """P and Q are copied to full size as in the paper's Figure 3: free there, one product for each entry here."""
    spec = Spec(
        "x[H,W,C]; where C = 2*D; where D = G*M; where H = S*U; where W = S*V; where m : K; where e : D;"
        "z[i,j,e] = x[i,j,c]*w1[c,e];"
        "row[i,m] = 1/U/W * z[(i u),j,e]*wf[e,m]; col[j,m] = 1/V/H * z[i,(j v),e]*wf[e,m];"
        "p[g,i,k] = row[t,m]*wp[g,i,k,t,m]; q[g,l,j] = col[t,m]*wq[g,l,j,t,m];"
        "full[g,(i u),(k o)] = p[g,i,k]*I[u,o]; wide[g,(l v),(j o)] = q[g,l,j]*I[v,o];"
        "t[i,j,(g n)] = full[g,i,k]*z[k,l,(g n)]*wide[g,l,j];"
        "v[i,j,e] = t[i,j,d]*w2[d,e]; y[i,j,b] = v[i,j,e]*w3[e,b]"
    )
    made = plan(spec, {"H": 28, "W": 14, "C": 16, "G": 2, "S": 7, "K": 2}, "as_written")
    b, d, h, w, k, g, s = symbols("B D H W K G S")
    c = 2 * d
    table = sympy.Rational(5, 4) * c**2 * h * w + c * h * w * (h + w) / 2 + c * k * h * w / 2 + 2 * k * g * s**3
    copies = g * (h**2 + w**2)
    assert sympy.expand(made.complexity - b * (table + copies)) == 0


@pytest.mark.parametrize("quantity", ["macs", "peak_bytes"])
@pytest.mark.parametrize(("first", "second"), [("nl", "poly_nl"), ("poly_nl", "e_nl")])
def test_crossovers_of_layers_are_those_of_their_best_plans_at_every_size(first: str, second: str, quantity: str):
    sizes = {"C": 8} if second == "poly_nl" else {"C": 8, "R": 3, "V": 2}
    found = layer_crossover(first, second, "N", quantity=quantity, up_to=40, **sizes)
    for number in range(1, 41):
        study = complexity([first, second], orders=["planned"], N=number, **sizes)
        a, b = (getattr(c, quantity) for c in study.cases)
        assert found.cheaper_at(number) == (None if a == b else int(b < a)), number
    with pytest.raises(SizeError, match="is not from 1 to 40"):
        found.cheaper_at(41)


def test_what_layers_cannot_be_compared_by_is_refused():
    refused = {"`quantity` is one of": {"quantity": "colour"}, "`up_to` is": {"up_to": 0}, "varies": {"N": 4}}
    for message, options in refused.items():
        with pytest.raises(SizeError, match=message):
            layer_crossover("nl", "poly_nl", "N", C=4, **options)
