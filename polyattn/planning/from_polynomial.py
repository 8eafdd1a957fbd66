"""From the canonical polynomial to an evaluation graph: each monomial in its cheapest order, then their sum."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from polyattn.algebra import FunctionFactor, Index, Monomial, Polynomial, TensorFactor
from polyattn.language.syntax import is_fixed
from polyattn.planning.builder import BATCH_INDEX, Builder, Order
from polyattn.planning.steps import Coefficient, Operand


def contract_monomials(polynomial: Polynomial, builder: Builder, order: Order) -> Operand:
    """Build the graph; return the output with its indices in the order of its atomic slots."""
    inputs = frozenset(polynomial.signature.inputs)
    output = polynomial.signature.output_indices()
    total = contract_sum(polynomial.terms, frozenset(output), inputs, builder, order, (BATCH_INDEX, *output))
    return builder.permuted(total, (BATCH_INDEX, *output))


def contract_sum(
    terms: tuple[Monomial, ...],
    keep: frozenset[Index],
    inputs: frozenset[str],
    builder: Builder,
    order: Order,
    axes: tuple[Index, ...] = (),
) -> Operand:
    if not terms:
        # The zero polynomial still needs a value, which `permuted` broadcasts to the output's shape.
        return builder.sum([(builder.constant(), Coefficient(Fraction(0)))])
    parts = []
    for term in terms:
        operands = [_factor(f, inputs, builder, order) for f in term.factors]
        parts.append(builder.product(operands, keep, Coefficient(term.coefficient, term.powers), order))
    return builder.sum(parts, axes)


def _factor(factor: TensorFactor | FunctionFactor, inputs: frozenset[str], builder: Builder, order: Order) -> Operand:
    return factor_operand(
        factor, inputs, builder, lambda terms, keep: contract_sum(terms, keep, inputs, builder, order)
    )


def factor_operand(
    factor: TensorFactor | FunctionFactor,
    inputs: frozenset[str],
    builder: Builder,
    total: Callable[[tuple[Monomial, ...], frozenset[Index]], Operand],
) -> Operand:
    """Build a tensor, or a function of the sum that `total` builds."""
    if isinstance(factor, TensorFactor):
        if is_fixed(factor.tensor):
            return builder.identity(factor.indices, factor.tensor)
        # Parameters carry no batch axis: their products among themselves are computed once for the whole batch.
        lead = (BATCH_INDEX,) if factor.tensor in inputs else ()
        return builder.leaf(factor.tensor, (*lead, *factor.indices))
    argument = total(factor.terms, factor.local)
    # A function sees its own axes even where the argument is constant along them, so they are broadcast first.
    needed = tuple(dict.fromkeys((*argument.indices, *factor.over, *factor.free)))
    argument = builder.permuted(argument, needed)
    gone = set(factor.over) if factor.reduces else set()
    applied = builder.apply(factor.function, factor.over, argument, tuple(i for i in needed if i not in gone))
    # `over` names the axes inside the function, `at` the indices at which its result is read outside.
    read = dict(zip(factor.over, factor.at, strict=False))
    return builder.again(applied, tuple(read.get(i, i) for i in applied.indices))
