"""One specification's part of a page: all that is shown of it, computed once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from polyattn.algebra import Spec
from polyattn.errors import BudgetError, NotPolynomialError
from polyattn.lowering import lower, plan
from polyattn.planning import Plan
from polyattn.study.pictures import contraction_tree, tensor_network
from polyattn.study.report.candidates import Candidate, candidates
from polyattn.study.report.comparison import Comparison
from polyattn.study.report.figures import Picture, picture
from polyattn.study.report.sizes import Freedom, freedom, start

OBJECTIVES = {"forward": "one evaluation", "training": "an evaluation and its backward pass"}
LARGEST_EXPANSION = 40
"""Polynomials of more terms are counted and not printed."""


@dataclass(frozen=True)
class Section:
    """A specification as a page shows it.

    Attributes:
        name, anchor: how it is called, and its id in the page.
        spec: the specification.
        sizes: the numbers that the plan is made for, with B for the batch.
        freedom: which of them the page lets vary.
        degree, terms, expanded: of the polynomial; `expanded` is "" where it is too long to print.
        plan, code: the planner's choice at the sizes, and the torch code of it.
        orders: the candidates by objective.
        network, tree: pictures of the specification and of the plan.
        comparisons: verdicts against the others.
    """

    name: str
    anchor: str
    spec: Spec
    sizes: Mapping[str, int]
    freedom: Freedom
    degree: int | None
    terms: int | None
    expanded: str
    plan: Plan
    code: str
    orders: Mapping[str, tuple[Candidate, ...]]
    network: Picture
    tree: Picture
    comparisons: tuple[Comparison, ...] = ()

    def data(self) -> dict[str, Any]:
        """What the page's script needs to compute the costs at any sizes."""
        return {
            "name": self.name,
            "free": list(self.freedom.free),
            "derived": [[d.size, list(d.above), list(d.below)] for d in self.freedom.derived],
            "sizes": {name: str(number) for name, number in self.sizes.items()},
            "orders": {
                objective: [{"label": c.label, "terms": c.formula.data()} for c in found]
                for objective, found in self.orders.items()
            },
        }


def section(
    name: str, spec: Spec, sizes: Mapping[str, int], *, number: int = 0, comparisons: Sequence[Comparison] = ()
) -> Section:
    """All that a page shows of a specification.

    Args:
        name: how it is called.
        sizes: sizes by name, with B for the batch; those that are not given are the usual ones.
        number: its place in the page.

    Raises:
        SizeError: the sizes contradict each other.
        BudgetError: no plan can be made.
    """
    numbers = start(spec, sizes)
    chosen = plan(spec, numbers)
    degree = terms = None
    expanded = ""
    try:
        polynomial = spec.polynomial()
        degree, terms = polynomial.degree, len(polynomial.terms)
        expanded = str(polynomial) if terms <= LARGEST_EXPANSION else ""
    except (BudgetError, NotPolynomialError):
        pass  # the page says that it is too large to expand
    anchor = f"layer-{number}-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-') or 'own'}"
    return Section(
        name,
        anchor,
        spec,
        numbers,
        freedom(spec),
        degree,
        terms,
        expanded,
        chosen,
        lower(chosen).code.strip(),
        {objective: candidates(spec, numbers, objective) for objective in OBJECTIVES},
        picture(partial(tensor_network, spec), f"network{number}", f"The tensor network of {name}"),
        picture(partial(contraction_tree, chosen), f"tree{number}", f"The plan of {name} as a tree", scrolls=True),
        tuple(comparisons),
    )
