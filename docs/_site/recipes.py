"""The generated part of each recipe in docs/recipes.md: `python docs/_site/recipes.py`.

The page has the equation and its sentence; the picture is made of the equation, the costs are those of
benchmarks/results/recipes.json, and `IN_CATALOGUE` says under which name the catalogue has the layer.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from flow import flow

from polyattn import Spec, catalog

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "recipes.md"
PICTURES = ROOT / "docs" / "pictures" / "recipes"
RECIPE = re.compile(r"^### (.+?)\n(.*?)```text\n(.*?)```\n(?:\n<!-- drawn -->.*?<!-- end of drawn -->\n)?", re.S | re.M)

IN_CATALOGUE = {
    "Multi-head attention": "multi_head",
    "Cross-attention": "cross_attention",
    "Grouped-query attention": "grouped_query",
    "Talking heads": "talking_heads",
    "Attention pooling": "pma",
    "Cosine attention": "cosine_attention",
    "Cross-covariance attention": "xca",
    "Axial attention": "axial_relative",
    "Agent attention": "agent",
    "2-simplicial attention": "two_simplicial",
    "Linear attention": "linear_attention",
    "ReLU linear attention": "relu_linear",
    "Efficient attention": "e_nl",
    "External attention": "external",
    "Lambda layer, content part": "lambda_layer",
    "Attention-free transformer": "aft_full",
    "Non-local block": "nl",
    "Non-local block, dot product": "nl",
    "Poly-NL": "poly_nl",
    "Causal attention": "causal_softmax",
    "Sliding window": "sliding_window",
    "Causal linear attention": "causal_linear",
    "Neighbourhood attention": "neighbourhood",
    "Relative positions": "relative_attention",
    "Squeeze and excitation": "squeeze_excitation",
    "Global context block": "global_context",
    "Gated linear unit": "swiglu",
    "Token mixing": "mixer_token",
    "Bilinear pooling": "bilinear_pooling",
    "Low-rank bilinear model": "mlb",
    "Factorisation machine": "factorisation_machine",
    "Covariance pooling": "covariance_pooling",
    "RMS norm": "rms_norm",
    "Layer norm": "layer_norm",
    "Triangle multiplication": "triangle_outgoing",
    "Outer product mean": "outer_product_mean",
}
"""The entry of the catalogue that is the layer, or its nearest relative; masks and plain convolutions have none."""


def recipes(text: str) -> dict[str, str]:
    """Return the equations of the page by their titles."""
    return {match[1]: match[3] for match in RECIPE.finditer(text)}


def file_name(title: str) -> str:
    """Return the name of a recipe's picture."""
    return re.sub(r"\W+", "_", title.lower()) + ".svg"


def first() -> Spec:
    """Return the layer on the README's first screen."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return Spec(re.findall(r'pa\.Spec\("""(.*?)"""\)', text, re.S)[0])


def pictures(text: str) -> dict[str, str]:
    """Return the pictures by their file names."""
    made = {"readme.svg": flow(first(), "Multi-head attention")}
    return made | {file_name(title): flow(Spec(equation), title) for title, equation in recipes(text).items()}


def written(text: str) -> str:
    """Return the page with the generated part behind each equation."""
    record = json.loads((ROOT / "benchmarks" / "results" / "recipes.json").read_text(encoding="utf-8"))
    costs = {run["layer"]: run for run in record["runs"]}

    def recipe(match: re.Match[str]) -> str:
        title, sentence, equation = match.groups()
        return f"### {title}\n{sentence}```text\n{equation}```\n\n{_drawn(title, costs.get(title))}\n"

    return RECIPE.sub(recipe, text)


def _drawn(title: str, run: dict | None) -> str:
    lines = ["<!-- drawn -->", f"![{title}, definition by definition](pictures/recipes/{file_name(title)})", ""]
    if run is not None:
        sizes = " ".join(f"{name}={number}" for name, number in run["sizes"].items())
        first, second = run["as_written"], run["forward"]
        lines.append(
            f"{count(first['macs'])} MACs as written, {count(second['macs'])} as planned; peak "
            f"{first['peak bytes'] / 2**20:,.2f} and {second['peak bytes'] / 2**20:,.2f} MiB ({sizes})."
        )
    if name := IN_CATALOGUE.get(title):
        lines.append(f"In the catalogue: [`{name}`](catalogue/{catalog.entry(name).family}.md#{name}).")
    return "\n".join([*lines, "<!-- end of drawn -->"])


def count(number: int) -> str:
    """Return a count in words of the table: 520.2 M, or the number itself where it is small."""
    return f"{number / 1e6:,.1f} M" if number >= 1e5 else f"{number:,}"


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, svg in pictures(page).items():
        (PICTURES / name).write_text(svg, encoding="utf-8")
    PAGE.write_text(written(page), encoding="utf-8")
