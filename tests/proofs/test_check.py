"""The checker accepts what the prover writes, and no changed certificate, whatever was changed."""

import ast
import json
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from polyattn.testing import renamed, specification_texts
from proofs import check
from proofs.theorem import CERTIFICATES
from tests.drawing import share
from tests.proofs.mutants import mutant, places

SECONDS = 10
STORED = {
    path.stem: found
    for path in sorted(CERTIFICATES.glob("*.json"))
    if (found := json.loads(path.read_text(encoding="utf-8"))["certificate"]) is not None
}
CLAIM = ("format", "indices", "shapes", "given", "renaming", "left", "right", "results", "pairs")
"""What no accepted change touches. Functions, and steps, may also stand in another order: then they are another proof
of the same claim."""


def refused(certificate) -> bool:
    text = certificate if isinstance(certificate, str) else json.dumps(certificate)
    start = time.process_time()
    try:
        check.check(text)
    except check.Refused:
        return True
    finally:
        assert time.process_time() - start < SECONDS
    return False


def is_another_proof(changed, original) -> bool:
    """Whether it has the same claim, the same functions and the same steps, but for their order."""
    if json.dumps([changed.get(name) for name in CLAIM]) != json.dumps([original.get(name) for name in CLAIM]):
        return False
    return len(changed["steps"]) == len(original["steps"]) and sorted(changed["functions"]) == sorted(
        original["functions"]
    )


def assert_mutants_are_refused(certificate, seed: int, count: int) -> None:
    random, same = Random(seed), json.dumps(certificate)
    for _ in range(count):
        changed = mutant(certificate, random)
        if json.dumps(changed) != same and not refused(changed):
            assert is_another_proof(json.loads(json.dumps(changed)), certificate)


def test_the_checker_is_one_file_below_950_lines_that_imports_the_standard_library_only():
    source = Path(check.__file__).read_text(encoding="utf-8")
    assert len(source.splitlines()) < 950
    assert max(map(len, source.splitlines())) <= 120
    nodes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names} | {
        n.module for n in nodes if isinstance(n, ast.ImportFrom)
    }
    assert names <= sys.stdlib_module_names
    assert not any(isinstance(n, ast.ImportFrom) and n.level for n in nodes)


def test_the_checker_runs_alone(tmp_path):
    alone = tmp_path / "check.py"
    alone.write_bytes(Path(check.__file__).read_bytes())
    stored = CERTIFICATES / "e_nl_is_nl.json"
    done = subprocess.run([sys.executable, "-I", alone, "--certificate", stored], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    word, _, claim = done.stdout.partition(" ")
    assert word == "accepted:"
    assert json.loads(claim) == {name: found for name, found in STORED["e_nl_is_nl"].items() if name in check.CLAIM}
    done = subprocess.run([sys.executable, "-I", alone, stored], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "a verdict's texts are not checked here" in done.stderr
    (tmp_path / "no.json").write_text("[]")
    done = subprocess.run([sys.executable, "-I", alone, tmp_path / "no.json"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("refused")


@share(0.5)
@given(st.data())
def test_generated_proofs_are_accepted_and_their_mutants_refused(data):
    text = data.draw(specification_texts())
    verdict = pa.prove(text, data.draw(renamed(text)))
    certificate = verdict.certificate
    assert certificate is not None
    assert not refused(certificate)
    assert_mutants_are_refused(certificate, data.draw(st.integers(0, 2**32)), 25)


@pytest.mark.parametrize("name", STORED)
def test_stored_certificates_are_accepted_and_their_mutants_refused(name):
    assert not refused(STORED[name])
    # Fewer for the many that differ in their laws only.
    assert_mutants_are_refused(
        STORED[name], 0, 60 if all("use" in s or "add" in s for s in STORED[name]["steps"]) else 15
    )


@pytest.mark.parametrize("strange", [None, True, 10**40, -1, 0.5, "", "0", [], {}, [[]], {"0": 1}])
def test_no_value_can_be_replaced_by_another_type(strange):
    original = STORED["glore_similarity_is_symmetric"]
    for *way, last in places(original)[1:]:
        changed = json.loads(json.dumps(original))
        parent = changed
        for key in way:
            parent = parent[key]
        if json.dumps(parent[last]) != json.dumps(strange):
            parent[last] = strange
            assert refused(changed), (way, last)


def poisoned(**changes):
    return json.dumps(STORED["nl_core"] | changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 200_000,
        '{"certificate": ' * 50_000,
        "NaN",
        json.dumps(STORED["nl_core"]).replace('"coefficient": "1"', '"coefficient": NaN'),
        json.dumps(STORED["nl_core"]).replace('"left": 0', '"left": ' + "9" * 5000),
        json.dumps(STORED["nl_core"]).replace("x[", "\u0445["),
        json.dumps(STORED["nl_core"]).replace("c1", "c\u0661"),
        poisoned(left="y[n,c] = " + "9" * 4000 + ("*" + "9" * 4000) * 500 + "*x[n,c]"),
        poisoned(left="y[n,c] = " + " + ".join(["x[n,c]"] * 30_000)),
        poisoned(left="y[n,c] = " + "*".join(["I[c1,c2]"] * 100_000)),
        poisoned(left="y[" + ",".join(["n"] * 400_000) + "] = 1"),
        poisoned(indices={f"n{k}": "N" for k in range(200_000)}),
        poisoned(steps=[{"use": 0, "in": "left", "term": 0, "factors": [1]}] * 60_000),
        poisoned(functions=["f[n,n1] = softmax[n1](" * 1000 + "x" + ")" * 1000] * 500),
        " " * (check.BYTES + 1),
    ],
    ids=str.__len__,
)
def test_hostile_certificates_are_refused_in_bounded_time(text):
    assert refused(text)


def certificate(left, right, **more):
    """A certificate about x[N], w[N,N] and u[N], with one pair unless told otherwise."""
    have = "".join([left, right, *more.get("results", ()), *(g["equation"] for g in more.get("given", ()))])
    shapes = {"x": ["N"], "w": ["N", "N"], "u": ["N"], "y": ["N"], "f1": ["N"], "f2": ["N"]}
    functions = "".join(more.get("functions", ()))
    return {
        "format": "polyattn equality 2",
        "indices": {i: "N" for i in ("i", "j", "k") if i in have + functions},
        "shapes": {t: s for t, s in shapes.items() if f"{t}[" in have + functions},
        "functions": [],
        "given": [],
        "left": left,
        "right": right,
        "steps": [],
        "results": [left, right],
        "pairs": [{"left": 0, "right": 0, "factors": [0], "indices": {"i": "i"}, "coefficient": "1", "powers": {}}],
    } | more


def test_the_smallest_certificate_is_accepted():
    assert not refused(certificate("y[i] = x[i]", "y[i] = x[i]"))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("y[i] = x[i]", "y[i] = 2*x[i]"),
        ("y[i] = x[i]", "y[i] = x[j]"),
        ("y[i] = N*x[i]", "y[i] = x[i]"),
        ("y[i] = x[i]", "y[i] = x[i] + x[i]"),
        ("y[i] = x[i]", "y[i] = u[i]"),
        ("y[i] = x[i]", "z[i] = x[i]"),
        ("y[i] = y[i]", "y[i] = y[i]"),
        ("y[i] = relu(x[i])", "y[i] = relu(x[i])"),
    ],
)
def test_wrong_claims_are_refused(left, right):
    assert refused(certificate(left, right))


POWERS = {"x[i]": {}, "N*x[i]": {"N": 1}, "N*N*x[i]": {"N": 2}, "x[i]/N": {"N": -1}}


@pytest.mark.parametrize("left", POWERS)
@pytest.mark.parametrize("right", POWERS)
def test_products_with_other_powers_of_sizes_are_refused_whatever_their_pair_says(left, right):
    for powers in (POWERS[left], POWERS[right]):
        made = certificate(f"y[i] = {left}", f"y[i] = {right}")
        made["pairs"] = [made["pairs"][0] | {"powers": powers}]
        assert bool(refused(made)) == (left != right)


def test_a_rule_whose_summed_index_is_used_elsewhere_is_refused():
    given = [{"equation": "w[i,j]*u[j] = x[i]", "summed": ["j"]}]
    pair = {"left": 0, "right": 0, "factors": [0], "indices": {"i": "i"}, "coefficient": "1", "powers": {}}
    use = [{"use": 0, "in": "left", "term": 0, "factors": [0, 1]}]
    right = "y[i] = x[i]"
    fine = certificate("y[i] = w[i,j]*u[j]", right, given=given, steps=use, results=[right, right], pairs=[pair])
    assert not refused(fine)
    for left in ("y[i] = w[i,j]*u[j]*u[j]", "y[i] = w[j,i]*u[j]", "y[i] = w[i,i]*u[i]", "y[i] = w[j,j]*u[j]"):
        wrong = right if left.count("*") == 1 else "y[i] = u[j]*x[i]"
        assert refused(certificate(left, wrong, given=given, steps=use, results=[wrong, wrong], pairs=[pair]))


@pytest.mark.parametrize(("size", "right"), [("1", "y[i] = x[i]"), ("N", "y[i] = N*x[i]"), ("7", "y[i] = 7*x[i]")])
def test_the_claim_says_the_sizes_on_which_it_depends(size, right):
    """A sum of x[i]*I[c,c] over c is x[i] as often as c has values."""
    made = certificate("y[i] = x[i]*I[c,c]", right) | {"indices": {"i": "N", "c": size}}
    number, powers = ("1", {"N": 1}) if size == "N" else (size, {})
    made["results"] = [right, right]
    made["pairs"] = [made["pairs"][0] | {"coefficient": number, "powers": powers}]
    claim = check.check(json.dumps(made))
    assert claim["indices"]["c"] == size
    assert claim["shapes"] == {"x": ["N"], "y": ["N"]}
    assert all(refused(made | {"indices": {"i": "N", "c": other}}) for other in {"1", "N", "7", "M"} - {size})


def test_an_output_is_not_called_as_the_identity():
    made = json.dumps(STORED["nl_core"]).replace('"y', '"I')
    assert refused(made)
    assert refused(certificate("I[i] = x[i]", "I[i] = x[i]") | {"shapes": {"x": ["N"], "I": ["N"]}})


def test_keys_that_occur_twice_are_refused():
    """Readers differ in which of the two they take, so one could show another claim than the other has checked."""
    text = json.dumps(certificate("y[i] = x[i]", "y[i] = x[i]"))
    assert not refused(text)
    for twice in ('{"left": "y[i] = 2*x[i]", ' + text[1:], text[:-1] + ', "right": "y[i] = x[i]"}'):
        assert refused(twice)
    assert refused(text.replace('{"i": "N"}', '{"i": "M", "i": "N"}'))
    assert refused(text.replace('"powers": {}', '"powers": {"N": 1, "N": 0}'))


@pytest.mark.parametrize("name", ["nl_core", "glore_similarity_is_symmetric"])
def test_the_printed_claim_is_all_that_an_accepted_change_may_not_touch(name):
    random = Random(1)
    for _ in range(100):
        changed = mutant(STORED[name], random)
        if not refused(changed):
            claim = {part: found for part, found in STORED[name].items() if part in check.CLAIM}
            assert check.check(json.dumps(changed)) == claim | {"functions": changed["functions"]}


def test_functions_that_define_each_other_are_refused():
    lines = ["f1[i] = relu(f2[i])", "f2[i] = relu(f1[i])"]
    assert refused(certificate("y[i] = f1[i]", "y[i] = f2[i]", functions=lines))


def test_functions_of_different_arguments_are_not_the_same():
    lines = ["f1[i] = softmax[i](x[i])", "f2[i] = softmax[i](2*x[i])"]
    step = {"same": "f2", "as": "f1", "letters": [0], "terms": [[0, [0]]]}
    results = ["y[i] = f1[i]"] * 2
    wrong = certificate("y[i] = f1[i]", "y[i] = f2[i]", functions=lines, steps=[step], results=results)
    assert refused(wrong)
    assert not refused(wrong | {"functions": [line.replace("2*", "") for line in lines]})
    assert refused(
        wrong | {"functions": [line.replace("2*", "").replace("f2[i] = softmax[i]", "f2[i] = relu") for line in lines]}
    )
