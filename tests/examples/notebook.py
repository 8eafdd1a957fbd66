"""The example notebook: what its cells say, and its execution.

python tests/examples/notebook.py      executes it again and writes its outputs
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path
from typing import Any

import nbformat
from IPython.core.formatters import DisplayFormatter
from nbclient import NotebookClient

PATH = Path(__file__).parents[2] / "examples" / "study_poly_nl.ipynb"

CELLS = (
    """\
# Studying a layer: Poly-NL

Poly-NL (Eq. 6 of its paper) replaces the non-local block's N × N map by an elementwise product with a pooled vector.
This notebook looks at it: as an equation, a tensor network, a plan, a proof, and beside the non-local block.""",
    """\
from IPython.display import SVG

import polyattn as pa
from polyattn.planning import CPU  # the figures that come with polyattn, so that every machine chooses the same plans

pictures = pa.study.pictures
spec = pa.catalog.poly_nl()
spec""",
    """\
Three x, one tensor: the same circle. The channel d meets four tensors, so it is a dot; a and b are the output's.""",
    "SVG(pictures.svg(pictures.tensor_network(spec), outlines=False))",
    """\
Two of the x share their position, which is summed: that pair is the Gram matrix XᵀX, and where positions outnumber
channels the planner makes it first, once.""",
    """\
plan = pa.plan(spec, {"B": 8, "N": 3136, "C": 256}, "training", device=CPU)
plan""",
    "SVG(pictures.svg(pictures.contraction_tree(plan), outlines=False))",
    "Written by hand, the Gram form is the same function at every size, and here is the proof:",
    """\
gram = pa.Spec(\"\"\"
    x[N,C]
    s[d,f] = 1/N * x[e,d]*x[e,f]
    t[d] = s[h,f]*w1[h,d]*w2[f,d]
    y[a,b] = x[a,d]*t[d]*w3[d,b]
\"\"\")
pa.prove(spec, gram)""",
    "What both orders of both layers take, and where the curves cross:",
    """\
study = pa.study.complexity(["poly_nl", "nl"], orders=["as written", "planned"], device=CPU, N="49:3136", C=256)
study""",
    'SVG(pictures.svg(study.plot(orders=["as written", "planned"]), outlines=False))',
    """\
hadamard, gram = (pa.plan(spec, {"N": n, "C": 256}, device=CPU) for n in (49, 3136))
print(pa.study.crossover(hadamard, gram, "N"))""",
    "SVG(pictures.svg(pictures.roofline(study), outlines=False))",
    'study.formulas["poly_nl"][0]',
)


def made() -> Any:
    """The notebook without outputs: text cells and code cells, told apart by their first words."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    for number, text in enumerate(CELLS):
        new = nbformat.v4.new_code_cell if _is_code(text) else nbformat.v4.new_markdown_cell
        cell = new(text)
        cell["id"] = f"cell-{number}"  # random otherwise
        notebook.cells.append(cell)
    return notebook


def _is_code(text: str) -> bool:
    try:
        compile(text, "cell", "exec")
    except SyntaxError:
        return False
    return not text.startswith("#")


def executed() -> Any:
    """The notebook with the outputs that it has here."""
    notebook = made()
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for cell in notebook.cells:
        cell.metadata.clear()  # times of execution
    return notebook


SHOWN = ("text/plain", "text/html", "text/latex")


def executed_here() -> Any:
    """The notebook with what its cells print and show as text, run in this process, which has torch already."""
    notebook, names = made(), {"__name__": "__notebook__"}
    formatter = DisplayFormatter()
    formatter.active_types = list(SHOWN)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        tree, printed = ast.parse(cell.source), io.StringIO()
        last = tree.body.pop()
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, "cell", "exec"), names)
            assert isinstance(last, ast.Expr)
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        if printed.getvalue():
            cell.outputs.append(nbformat.v4.new_output("stream", text=printed.getvalue()))
        if value is not None:
            cell.outputs.append(nbformat.v4.new_output("execute_result", data=formatter.format(value)[0]))
    return notebook


def texts(notebook: Any) -> list[str]:
    """What the cells print and show as text and as tables; pictures apart, which follow matplotlib's version."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            shown = [data.get(kind, "") for kind in SHOWN]
            found.append(re.sub(r" at 0x[0-9a-f]+", "", "\n".join([output.get("text", ""), *shown])))
    return found


if __name__ == "__main__":
    nbformat.write(executed(), PATH)
