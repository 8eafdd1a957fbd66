"""One specification's part of a page, computed once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from polyattn.algebra import Spec
from polyattn.errors import BudgetError, NotPolynomialError
from polyattn.lowering import lower
from polyattn.lowering import whole_plan as plan
from polyattn.planning import Plan
from polyattn.study.pictures import contraction_tree, tensor_network
from polyattn.study.report.candidates import Candidate, candidates
from polyattn.study.report.comparison import Comparison
from polyattn.study.report.figures import Picture, picture
from polyattn.study.report.sizes import Freedom, freedom, positions, start

OBJECTIVES = {"forward": "one evaluation", "training": "an evaluation and its backward pass"}
LARGEST_EXPANSION = 40
"""Terms above which a polynomial is counted but not printed."""


@dataclass(frozen=True)
class Section:
    """A specification as a page shows it.

    Attributes:
        name, anchor: its name, and its id in the page.
        spec: the specification.
        sizes: the numbers of the plan, with B for the batch.
        freedom: the sizes that vary on the page.
        degree, terms, expanded: of the polynomial; `expanded` is "" if it is too long to print.
        plan, code: the planner's choice at the sizes, and its torch code.
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
        """Return the data from which the page's script computes the costs at any sizes."""
        return {
            "name": self.name,
            "free": list(self.freedom.free),
            "positions": list(positions(self.spec)),
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
    """Compute a specification's part of a page.

    Args:
        name: its name.
        sizes: sizes by name, with B for the batch; the usual ones for the others.
        number: its position in the page.

    Raises:
        SizeError: the sizes contradict each other.
        BudgetError: planning exceeds its budget.
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
    # The number makes ids unique where names differ only in punctuation.
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
