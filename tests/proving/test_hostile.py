"""Whatever is asked of the prover: an answer, or an error of polyattn, soon and without much memory."""

import pytest

import polyattn as pa

NINES = "9" * 18
SELF = "x[N,C]; y[a,b] = x[a,d]*x[e,d]*x[e,b]"
HUGE = f"x[N]; y[a] = {'*'.join([NINES] * 40)}*x[a]"
TINY = f"x[N]; y[a] = 1/{'/'.join([NINES] * 40)}*x[a]"


class TestCoefficients:
    @pytest.mark.parametrize("text", [f"{NINES}*{NINES}*x[a]", f"{NINES}*x[a]/7919/{NINES[:-1]}/31"])
    def test_a_long_coefficient_is_printed_so_that_it_parses(self, text):
        polynomial = pa.Spec(f"x[N]; y[a] = {text}").polynomial()
        assert polynomial is not None
        again = pa.Spec(f"x[N]; {polynomial}")
        assert pa.prove(f"x[N]; y[a] = {text}", again).status == "equal"

    @pytest.mark.parametrize("text", [HUGE, TINY])
    def test_a_coefficient_that_no_text_can_say_is_refused_when_it_is_made(self, text):
        with pytest.raises(pa.BudgetError, match="a coefficient has more than 300 digits"):
            pa.prove(text, text)

    @pytest.mark.parametrize("text", [HUGE, TINY])
    def test_and_so_is_one_that_no_float_holds_when_it_is_lowered(self, text):
        with pytest.raises(pa.SizeError, match=r"a coefficient of about 10\^-?720 cannot be held by a float64"):
            pa.lower(pa.plan(text, {"N": 3}))

    def test_large_coefficients_that_differ_in_the_last_digit_are_different(self):
        verdict = pa.prove(f"x[N]; y[a] = {'7' * 250}1*x[a]", f"x[N]; y[a] = {'7' * 250}2*x[a]")
        assert verdict.status == "different"


class TestSizes:
    @pytest.mark.parametrize("level", ["symbolic", "modular", "numeric"])
    @pytest.mark.parametrize("value", [0, -1, True, 2.0, float("nan"), float("inf"), "3", None], ids=repr)
    def test_what_is_no_size_is_refused(self, value, level):
        with pytest.raises(pa.SizeError, match="size N must be a positive whole number"):
            pa.verify(SELF, {"N": value, "C": 2}, level=level)

    @pytest.mark.parametrize("level", ["symbolic", "modular", "numeric"])
    def test_sizes_that_nothing_can_hold_are_refused(self, level):
        with pytest.raises(pa.BudgetError):
            pa.verify(SELF, {"N": 10**30, "C": 2}, level=level)

    @pytest.mark.parametrize("sizes", ["N", [("N", 2)], 3], ids=repr)
    def test_what_is_no_mapping_is_refused(self, sizes):
        with pytest.raises(pa.SizeError, match="sizes is a mapping"):
            pa.verify(SELF, sizes)


class TestQuestions:
    @pytest.mark.parametrize(
        "text",
        [
            "x[N]; y[a] = x[a]*" + "*".join(f"x[i{k}]" for k in range(10**5)),
            "x[N]; y[a] = " + "(" * 5000 + "x[a]" + ")" * 5000,
            "x[N]; y[a] = \N{CYRILLIC SMALL LETTER HA}[a]",
            "x[N]; y[a] = x[\N{CYRILLIC SMALL LETTER A}]",
            "x[N]; y[a] = \N{ARABIC-INDIC DIGIT THREE}*x[a]",
            "x[N]; y[a] = x[a]/0",
            "x[N]; y[a] = 1e999*x[a]",
        ],
        ids=["indices", "brackets", "Cyrillic tensor", "Cyrillic index", "Arabic digit", "1/0", "1e999"],
    )
    def test_hostile_texts_are_refused_on_both_sides_and_by_verify(self, text):
        plain = "x[N]; y[a] = x[a]"
        for ask in (lambda: pa.prove(text, plain), lambda: pa.prove(plain, text), lambda: pa.verify(text, {"N": 2})):
            with pytest.raises(pa.SpecError):
                ask()

    @pytest.mark.parametrize(
        "given",
        [
            None,
            3,
            [3],
            ["x[a,b] = " + "*".join(f"w[i{k}]" for k in range(10**5))],
            ["\N{CYRILLIC SMALL LETTER HA}[a,b] = x[b,a]"],
            [f"x[a,b] = {k}*w[a,b]" for k in range(10**4)],
            ["x[a,b] = " + "(" * 1000],
        ],
        ids=["None", "number", "list of numbers", "indices", "Cyrillic", "many", "brackets"],
    )
    def test_hostile_given_equations_are_refused(self, given):
        with pytest.raises(pa.ProofError):
            pa.prove(SELF, SELF, given=given)

    @pytest.mark.parametrize("effort", [-1, True, 1.5, float("nan"), None], ids=repr)
    def test_an_effort_is_a_number_of_monomials(self, effort):
        with pytest.raises(pa.ProofError, match="the effort is a number of monomials"):
            pa.prove(SELF, SELF, effort=effort)

    def test_without_effort_a_difference_is_undecided_and_equality_still_proved(self):
        other = SELF.replace("x[e,b]", "2*x[e,b]")
        assert pa.prove(SELF, other, effort=0).status == "undecided"
        assert pa.prove(SELF, other).status == "different"
        assert pa.prove(SELF, SELF, effort=0).status == "equal"
