"""The README's picture: Poly-NL as a tensor network, and what it and NL cost. `python docs/pictures/poly_nl.py`."""

from __future__ import annotations

from pathlib import Path

import polyattn as pa

FOLDER = Path(__file__).parent
ORDERS = ("as written", "planned")


def pictures() -> dict[str, str]:
    """The files by name, as svg."""
    layers = {"NL": pa.catalog.nl(), "Poly-NL": pa.catalog.poly_nl()}
    study = pa.study.complexity(layers, N=[64, 256, 1024, 4096, 16384], C=256, orders=ORDERS)
    drawn = {
        "poly_nl_network.svg": pa.study.pictures.tensor_network(pa.catalog.poly_nl()),
        "poly_nl_costs.svg": pa.study.pictures.cost_curves(study, orders=ORDERS),
    }
    return {name: pa.study.pictures.svg(figure) for name, figure in drawn.items()}


if __name__ == "__main__":
    for name, text in pictures().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
