"""A process imports only the libraries of the functions that it calls, and runs without those that it does not need."""

import json
import subprocess
import sys

import pytest

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "tensorly", "scipy", "pandas", "rich"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
"""
LAYER = '"x[N,C]; y[a,b] = x[a,d]*w[d,f]*x[e,f] * x[e,b]"'


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("call", "unused"),
    [
        (f"pa.Spec({LAYER}).parameters", {"torch", "numpy", "sympy", "scipy", "igraph", "opt_einsum"}),
        (f'pa.plan({LAYER}, {{"N": 784, "C": 64}}).macs', {"torch", "sympy", "scipy"}),
        ('__import__("polyattn.cli")', {"torch", "numpy", "sympy", "scipy", "lark", "rich"}),
    ],
    ids=["Spec", "plan", "command line"],
)
def test_libraries_that_a_first_call_does_not_need_are_not_imported(call, unused):
    code = f"import json, sys\nimport polyattn as pa\n{call}\nprint(json.dumps(list(sys.modules)))"
    assert unused.isdisjoint(json.loads(run(code)))


def test_stages_on_torch_import_no_compiler_and_no_package_of_another_stage():
    """Kernels run where torch is all that is installed, as in images for GPUs."""
    stages = ["kernels", "nn", "fitting"]
    code = "\n".join(f"import polyattn.{s}\nprint(json.dumps(list(sys.modules)))" for s in stages)
    kernels, nn, fitting = map(json.loads, run(f"import json, sys\n{code}").splitlines())
    assert {"lark", "igraph", "tensorly", "typer", "rich", "triton"}.isdisjoint(kernels)
    assert "torch._dynamo" not in nn
    assert {"torch._dynamo", "tensorly", "pandas"}.isdisjoint(fitting)


def test_specifications_proofs_plans_and_studies_run_without_torch():
    code = f"""
import polyattn as pa
spec = pa.Spec({LAYER})
print(spec.degree, bool(pa.prove(spec, spec.expanded())), pa.prove(spec, "x[N,C]; y[a,b] = relu(x[a,b])").status)
print(pa.plan(spec, {{"N": 5, "C": 2}}, cost="macs").macs)  # x^T x, w times it, x times that: 20 + 8 + 20
study = pa.study.complexity(spec, N=[4, 64], C=8)
print(len(study.cases), study.formulas["layer 1"][0].macs, "predicted" in str(study))
"""
    assert run(BLOCKED + code).splitlines() == ["3 True different", "48", "6 B*C**2*N + 2*B*C*N**2 True"]


def test_the_command_line_runs_without_torch():
    lines = [
        ["--help"],
        ["--version"],
        ["show", "poly_nl"],
        ["plan", "nl", "--sizes", "N=8,C=4"],
        ["study", "nl", "--sizes", "N=8,C=4"],
    ]
    code = f"from polyattn.cli import app\nprint([app(line, standalone_mode=False) for line in {lines!r}])"
    assert run(BLOCKED + code).splitlines()[-1] == str([0, 0, None, None, None])
