"""Questions that once crashed or never ended: each has an answer after an amount of work that no clock decides."""

import copy
import pickle
import sys

import pytest

import polyattn as pa
from polyattn.algebra import FunctionFactor
from polyattn.algebra.monomial import monomial_text
from polyattn.proving.work import MAX_PROOF, Meter, SpentError, charge

PRIME = 2**31 - 1


def calls(function) -> int:
    """How many functions are called; the same on every machine."""
    found = 0

    def profile(_frame, event, _):
        nonlocal found
        found += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
    return found


def nested(depth: int, step: str = "sigmoid({})", name: str = "t") -> str:
    steps = [step.format(f"{name}{k - 1}[a]" if k else "x[a]") for k in range(depth)]
    return "x[N]; " + "; ".join(f"{name}{k}[a] = {s}" for k, s in enumerate(steps)) + f"; y[a] = {name}{depth - 1}[a]"


def scalars(count: int, name: str = "s") -> str:
    return "*".join([name] * count)


class TestCoefficients:
    @pytest.mark.parametrize(
        "number", [f"{PRIME}", f"1/{PRIME}", f"{PRIME**2}", f"{PRIME}/2147483629", f"1/{PRIME**2}"]
    )
    def test_a_multiple_of_the_prime_of_the_search_is_no_zero(self, number):
        verdict = pa.prove(f"x[N]; y[a] = {number}*x[a]*x[a] + x[a]", "x[N]; y[a] = x[a]")
        assert verdict.status == "different"
        assert verdict.counterexample["left"] != verdict.counterexample["right"]

    def test_a_power_that_no_text_can_say_is_refused(self):
        squares = "; ".join(f"t{k + 1} = t{k}*t{k}" for k in range(60))
        with pytest.raises(pa.BudgetError, match="N to a power of more than 512"):
            pa.Spec(f"x[N]; t0 = N; {squares}; y[a] = t60*x[a]").polynomial()

    def test_neither_can_given_equations_make_one(self):
        with pytest.raises(pa.BudgetError, match="a coefficient has more than 300 digits"):
            pa.prove(f"x[N]; y[a] = {scalars(20)}*x[a]", "x[N]; y[a] = x[a]", given=f"s = {'9' * 200}*t")


class TestGiven:
    def test_products_of_scalars_may_be_given(self):
        verdict = pa.prove("x[N]; y[a] = s*s*x[a]", "x[N]; y[a] = 2*s*x[a]", given="s*s = s")
        found = verdict.counterexample
        assert verdict.status == "different"
        assert found["tensors"]["s"] == 1
        assert (found["left"], found["right"]) == (found["tensors"]["x"][0], 2 * found["tensors"]["x"][0])

    @pytest.mark.parametrize(("have", "rule", "left"), [(16, 8, 0), (20, 9, 2), (16, 17, 16), (60, 3, 0)])
    def test_many_equal_factors_are_matched_once(self, have, rule, left):
        given, right = f"{scalars(rule)} = 1", "*".join(["x[a]", *["s"] * left])
        assert pa.prove(f"x[N]; y[a] = {scalars(have)}*x[a]", f"x[N]; y[a] = {right}", given=given)

    def test_a_size_that_only_a_given_equation_has_is_searched_too(self):
        given = ["u[i,k] = q[i,r]*p[r,k]", "q[i,r]*q[j,r] = I[i,j]", "r : R"]
        text = "x[N,C]; y[a,b] = {}x[a,d]*u[d,b]"
        verdict = pa.prove(text.format(""), text.format("2*"), given=given)
        assert verdict.status == "different"
        assert set(verdict.counterexample["sizes"]) == {"C", "N", "R"}

    def test_a_match_of_many_tensors_comes_to_an_end(self):
        """Of 20 tensors none shares an index with another, so that the rule fits at no one of 20!/11! places."""
        have = "*".join(f"w[i{k},j{k}]" for k in range(20))
        rule = "*".join(f"w[k{k},k{k + 1}]" for k in range(9))
        where = f"where {', '.join(f'i{k}, j{k}' for k in range(20))} : N"
        given = f"{rule}*w[k9,k0] summed over k0 is 1"
        verdict = pa.prove(f"x[N]; {where}; y[a] = x[a]*{have}", "x[N]; y[a] = x[a]", given=given, effort=200)
        assert verdict.status == "undecided"


class TestCounterexamples:
    LETTERS = ",".join("abcdefghijkl")

    def test_twelve_slots_are_shrunk_to_one_entry(self):
        sizes, moved = ",".join(["2"] * 12), self.LETTERS.replace("a,b", "b,a")
        left = f"x[{sizes}]; y[{self.LETTERS}] = x[{self.LETTERS}]"
        verdict = pa.prove(left, left.replace(f"= x[{self.LETTERS}]", f"= x[{moved}]"))
        assert verdict.status == "different"
        assert str(verdict.counterexample["tensors"]["x"]).count("1") == 1

    def test_what_no_counterexample_could_show_is_undecided(self):
        verdict = pa.prove("x[999999999]; y[a] = x[a]", "x[999999999]; y[a] = 2*x[a]")
        assert verdict.status == "undecided"
        assert "999,999,999 entries" in verdict.reason


class TestNested:
    def test_functions_nest_as_deeply_as_stated_and_no_deeper(self):
        assert pa.prove(nested(160), nested(160, name="u"))
        with pytest.raises(pa.SpecError, match=r"functions are nested more than 160 deep\n +line 1: ") as error:
            pa.Spec(nested(161))
        assert error.value.column > 0

    def test_given_equations_nest_no_deeper_either(self):
        with pytest.raises(pa.BudgetError, match="nested more than 160 deep"):
            pa.prove(nested(160, "sigmoid({}*s)"), nested(160), given=["s = max[i](v[i])", "i : N"])

    @pytest.mark.parametrize("step", ["sigmoid({})", "softmax[a]({})", "relu({} + 2*x[a])"])
    def test_twice_the_depth_takes_at_most_three_times_the_work(self, step):
        def work(depth):
            left, right = nested(depth, step, f"l{depth}"), nested(depth, step, f"r{depth}")
            return calls(lambda: pa.prove(left, right))

        work(2)
        assert work(40) < 3 * work(20)

    def test_they_print_and_compare(self):
        spec = pa.Spec(nested(120))
        polynomial = spec.polynomial()
        assert pa.Spec(str(spec.expanded())).polynomial() == polynomial
        assert polynomial != pa.Spec(nested(119)).polynomial()
        assert copy.copy(polynomial) == polynomial

    def test_a_function_is_the_same_after_pickling(self):
        (term,) = pa.Spec("x[N]; y[a] = softmax[a](x[a]*x[b]*x[b] + 1/3*x[a])").polynomial().terms
        again = pickle.loads(pickle.dumps(term))
        assert again == term
        assert hash(again) == hash(term)
        assert isinstance(again.factors[0], FunctionFactor)

    @pytest.mark.parametrize(
        "text",
        [
            "x[N]; y[a] = softmax[a](x[a]*x[b]*x[b] + 1/3*x[a])",
            "x[N]; t[a] = relu(x[a]); y[a] = 2*N*t[a]*t[a]",
            "x[N]; y[a] = 3",
        ],
    )
    def test_the_order_of_terms_is_that_of_their_representation(self, text):
        for term in pa.Spec(text.replace("y[a] = 3", "where a : N; y[a] = 3")).polynomial().terms:
            assert monomial_text(term) == repr(term)


class TestMeter:
    def test_steps_are_counted_in_all_meters_that_run(self):
        outer, inner = Meter(10), Meter(3)
        charge(1000)
        with outer.running():
            charge(4)
            with inner.running():
                charge(3)
                with pytest.raises(SpentError):
                    charge(1)
        assert (outer.left, inner.left) == (2, -1)

    def test_a_count_does_not_depend_on_earlier_questions(self):
        text, steps = nested(12, "relu({} + x[b]*w[b]*w[a])"), []
        for _ in range(2):
            meter = Meter(MAX_PROOF)
            with meter.running():
                pa.prove(text, text)
            steps.append(meter.left)
        assert steps[0] == steps[1] < MAX_PROOF

    def test_a_proof_of_too_many_steps_is_undecided(self, monkeypatch):
        monkeypatch.setattr(sys.modules["polyattn.proving.prove"], "MAX_PROOF", 100)
        text = "x[N]; y[a] = x[a]*x[b]*w[b,a]"
        verdict = pa.prove(text, text)
        assert (verdict.status, verdict.reason) == ("undecided", "a proof takes more than 100 steps")


def test_a_function_of_an_argument_with_too_many_factors_is_refused():
    brackets = "*".join(f"(x[a]*w{k}[a] + v{k}[a])" for k in range(9))
    with pytest.raises(pa.BudgetError, match="the argument of 'softmax' has more than 4096 factors"):
        pa.Spec(f"x[N]; y[a] = softmax[a]({brackets})").polynomial()


def test_a_proof_counts_canonical_forms_before_it_makes_them(monkeypatch: pytest.MonkeyPatch):
    specs = [pa.Spec(t) for t in ("x[N]; y[a] = (x[a] + u[a])*v[a]", "x[N]; y[a] = v[a]*x[a] + u[a]*v[a]")]
    monkeypatch.setattr(pa.Spec, "polynomial", lambda self: pytest.fail("collected without a meter"))
    assert pa.prove(*specs)
