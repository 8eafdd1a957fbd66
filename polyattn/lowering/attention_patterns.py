"""Patterns of attention with softmax: whole attention, and both halves of linear attention, also with projection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from polyattn import kernels
from polyattn.algebra import Index
from polyattn.kernels import Cost
from polyattn.kernels.attention import cost as whole_cost
from polyattn.kernels.linear_attention import cost as attention_cost
from polyattn.kernels.projected_attention import cost as projected_cost
from polyattn.language.conditions import comparison, is_condition
from polyattn.lowering.fusion import Argument, Fusion, Groups, axes_of
from polyattn.lowering.reading import Reading, repeats
from polyattn.planning import BATCH, Add, Apply, Coefficient, Contract, Identity, Operand
from polyattn.planning.graph import ITEMSIZE
from polyattn.planning.steps import ONE

SMALL_MAP = 1024**2
"""Similarities of one head, up to which they are stored where queries and keys are hardly smaller: two products are
faster there than fused attention, whose backward pass makes the map again."""


@dataclass(frozen=True)
class Summand:
    """A term of the argument of a softmax, and the steps between the two."""

    operand: Operand
    coefficient: Coefficient
    between: frozenset[int]


@dataclass(frozen=True)
class AttentionPatterns(Reading):
    """The patterns of attention, on one graph."""

    def attention(self, number: int) -> Fusion | None:
        """Match y[b,h,n,s] = Σ_m softmax[m](Σ_r q[b,h,n,r] k[b,h,m,r] + masks)[b,h,n,m] v[b,h,m,s].

        The scale, and factors without an index of the keys or of the queries, may stand anywhere in the product.
        """
        node = self.product(number, alone=False)
        if node is None:
            return None
        for p, v in self.sides(node):
            logits = self.softmaxed(p, node.summed)
            if logits is None or repeats(logits) or repeats(v) or not self.only_here(logits.value):
                continue
            summands = list(self.summands(logits, ONE, frozenset({p.value})))
            for k, summand in enumerate(summands):
                found = self._attention(number, node, v, p.indices, summand, summands[:k] + summands[k + 1 :])
                if found is not None:
                    return found
        return None

    def summands(self, operand: Operand, coefficient: Coefficient, between: frozenset[int]) -> Iterator[Summand]:
        """Yield the terms of a value that only its sum reads, through sums and scalings."""
        node = self.graph.nodes[operand.value]
        names = dict(zip(node.output, operand.indices, strict=True))
        parts: list[tuple[Operand, Coefficient]] = []
        if self.only_here(operand.value) and isinstance(node, Add):
            parts = list(zip(node.operands, node.coefficients, strict=True))
        elif self.only_here(operand.value) and isinstance(node, Contract) and len(node.operands) == 1:
            parts = [] if node.summed else [(node.operands[0], node.coefficient)]
        if not parts or any(repeats(part) for part, _ in parts):
            yield Summand(operand, coefficient, between)
            return
        for part, factor in parts:
            inner = Operand(part.value, tuple(names[i] for i in part.indices))
            yield from self.summands(inner, coefficient.times(factor), between | {operand.value})

    def similarity(self, summand: Summand) -> tuple[Summand, list[Operand]] | None:
        """Return the product of queries and keys in a term, and the factors around it; None for another term."""
        factors: list[Operand] = []
        while True:
            node = self.graph.nodes[summand.operand.value]
            if not isinstance(node, Contract) or len(node.operands) != 2 or not self.only_here(summand.operand.value):
                return None
            if any(repeats(o) for o in node.operands):
                return None
            coefficient = summand.coefficient.times(node.coefficient)
            if node.summed:
                return Summand(summand.operand, coefficient, summand.between | {summand.operand.value}), factors
            names = dict(zip(node.output, summand.operand.indices, strict=True))
            one, other = (Operand(o.value, tuple(names[i] for i in o.indices)) for o in node.operands)
            inner, factor = (one, other) if len(one.indices) >= len(other.indices) else (other, one)
            factors.append(factor)
            summand = Summand(inner, coefficient, summand.between | {summand.operand.value})

    def _attention(
        self, number: int, node: Contract, v: Operand, places: tuple[Index, ...], summand: Summand, rest: list[Summand]
    ) -> Fusion | None:
        """Match a term as queries times keys, and the rest as masks; `places` are the indices of the softmax."""
        made = self.similarity(summand)
        if made is None:
            return None
        product, factors = made
        dot = self.graph.nodes[product.operand.value]
        assert isinstance(dot, Contract)
        back = dict(zip(product.operand.indices, dot.output, strict=True))
        keys = tuple(i for i in places if i in node.summed)
        others = [i for i in places if i not in keys]
        batch = tuple(i for i in others if i.size == BATCH)
        if len(batch) != 1 or not set(places) <= set(back):
            return None
        for q, k in self.sides(dot):
            both = {i for i in others if back[i] in q.indices and back[i] in k.indices}
            heads = tuple(i for i in others if i not in batch and (i in both or i in v.indices))
            rows = tuple(i for i in others if i not in batch and i not in heads)
            pays = self._pays(rows, keys, dot.summed, tuple(i for i in v.indices if i not in places))
            if not heads and rest:
                # Queries of several heads with the keys and masks of one: no mask is repeated for each head.
                read = {i for mask in rest for i in mask.operand.indices}
                heads, rows = tuple(i for i in rows if i not in read), tuple(i for i in rows if i in read)
            values = tuple(i for i in v.indices if i not in places)
            if not rows or not dot.summed or any(back[i] in q.indices for i in keys):
                continue
            if any(back[i] in k.indices for i in rows) or set(node.output) != {*batch, *heads, *rows, *values}:
                continue
            groups, inner = (batch, heads, rows, keys), dot.summed
            there = tuple(tuple(back[i] for i in group) for group in groups)
            by_row = [f for f in factors if not set(f.indices) & set(keys)]
            by_key = [f for f in factors if f not in by_row]
            if any(set(f.indices) & set(rows) for f in by_key):
                continue
            chosen = [(mask, self.conditions(mask, groups)) for mask in rest]
            added = tuple(Argument(mask.operand, groups, mask.coefficient) for mask, where in chosen if where is None)
            arguments = (
                Argument(q, (*there[:3], inner), ONE, self._renamed(by_row, back)),
                Argument(k, (*there[:2], there[3], inner), ONE, self._renamed(by_key, back)),
                Argument(v, (batch, heads, keys, values), node.coefficient),
                *added,
            )
            if not pays or not all(map(_fills_groups, arguments)):
                continue
            where = tuple(c for _, found in chosen for c in (found[0] if found else ()))
            causal = not added and len(where) == 1 and self._is_causal(where[0])
            masks = 0 if causal else sum(self.many(a.operand.indices) for a in (*added, *where))
            count, n, m, r, s = (self.many(group) for group in ((*batch, *heads), rows, keys, inner, values))
            return Fusion(
                "attention",
                kernels.attention,
                number,
                product.between.union(*(mask.between for mask in rest)),
                arguments,
                (batch, heads, rows, values),
                whole_cost.forward(count, n, m, r, s, masks, ITEMSIZE),
                product.coefficient,
                () if causal else where,
                causal,
                frozenset(step for _, found in chosen for step in (found[1] if found else ())),
            )
        return None

    def conditions(self, mask: Summand, groups: Groups) -> tuple[list[Argument], list[int]] | None:
        """Return the conditions whose logarithm a mask is, and the steps that make it; None for another mask."""
        node = self.graph.nodes[mask.operand.value]
        if not isinstance(node, Apply) or node.function != "log" or mask.coefficient.number <= 0:
            return None
        found: list[Argument] = []
        steps: list[int] = []
        left = [mask.operand]
        while left:
            operand = left.pop()
            node = self.graph.nodes[operand.value]
            names = dict(zip(node.output, operand.indices, strict=True))
            steps.append(operand.value)
            if repeats(operand):
                return None
            if isinstance(node, Identity) and is_condition(node.tensor):
                found.append(Argument(operand, groups))
            elif operand.value == mask.operand.value or (
                isinstance(node, Contract) and not node.summed and node.coefficient.is_one
            ):
                left += [Operand(o.value, tuple(names[i] for i in o.indices)) for o in node.operands]
            else:
                return None
        known = {i for group in groups for i in group}
        return (found, steps) if all(known.issuperset(c.operand.indices) for c in found) else None

    def _is_causal(self, condition: Argument) -> bool:
        """Test if a condition says that a key does not come behind a query, both counted from 0."""
        node, (_, _, rows, keys) = self.graph.nodes[condition.operand.value], condition.groups
        assert isinstance(node, Identity)
        order, indices = comparison(node.tensor).order, condition.operand.indices
        if order is None or order[0] != "<=" or self.many(rows) != self.many(keys):
            return False
        return indices == ((*rows, *keys) if order[1] else (*keys, *rows))

    def _renamed(self, factors: list[Operand], names: dict[Index, Index]) -> tuple[Operand, ...]:
        return tuple(Operand(f.value, tuple(names[i] for i in f.indices)) for f in factors)

    def _pays(
        self, rows: tuple[Index, ...], keys: tuple[Index, ...], inner: tuple[Index, ...], values: tuple[Index, ...]
    ) -> bool:
        """Test if the map of similarities is large beside queries, keys and values."""
        n, m, r, s = map(self.many, (rows, keys, inner, values))
        return min(n, m) > 2 * r or (n * m > SMALL_MAP and n * m > (n + m) * (r + s))

    def linear_context(self, number: int) -> Fusion | None:
        """Match c[b,r,s] = Σ_n softmax[n](k)[b,n,r] v[b,n,s]."""
        node = self.product(number, alone=False)
        if node is None or not node.coefficient.is_one:
            return None
        for k, v in self.sides(node):
            key = self.softmaxed(k, node.summed)
            if key is None or repeats(v) or repeats(key):
                continue
            shared = tuple(i for i in node.output if i in key.indices and i in v.indices)
            r = tuple(i for i in key.indices if i not in v.indices)
            s = tuple(i for i in v.indices if i not in key.indices)
            positions = node.summed
            # An index that is summed in one operand alone does not fit the kernel.
            whole = all(set(p) <= set(o.indices) for o in (key, v) for p in (positions, shared))
            if self.many(positions) <= self.many(r):
                continue  # the same sum with the parts exchanged: `linear_query`
            if not whole or not r or not s or len(shared) not in (1, 2) or shared[0].size != BATCH:
                continue
            batch, heads = shared[:1], shared[1:]
            sizes = (self.many(shared), self.many(positions), self.many(r), self.many(s), ITEMSIZE)
            cost = attention_cost.context(*sizes)
            arguments = (Argument(key, (batch, heads, positions, r)), Argument(v, (batch, heads, positions, s)))
            absorbed = frozenset({k.value})
            return Fusion(
                "linear_context", kernels.linear_context, number, absorbed, arguments, (batch, heads, r, s), cost
            )
        return None

    def linear_query(self, number: int) -> Fusion | None:
        """Match y[b,n,s] = Σ_r softmax[r](q)[b,n,r] c[b,r,s]."""
        node = self.product(number, alone=False)
        if node is None or not node.coefficient.is_one:
            return None
        for q, c in self.sides(node):
            query = self.softmaxed(q, node.summed)
            if query is None or repeats(c) or repeats(query):
                continue
            shared = tuple(i for i in node.output if i in query.indices and i in c.indices)
            positions = tuple(i for i in query.indices if i not in c.indices)
            s = tuple(i for i in c.indices if i not in query.indices)
            r = node.summed
            whole = all(set(p) <= set(o.indices) for o in (query, c) for p in (r, shared))
            # The mirror image of the test in `linear_context`, so a product matches one of the two.
            if self.many(positions) < self.many(r):
                continue
            if not whole or not positions or not s or len(shared) not in (1, 2) or shared[0].size != BATCH:
                continue
            batch, heads = shared[:1], shared[1:]
            sizes = (self.many(shared), self.many(positions), self.many(r), self.many(s), ITEMSIZE)
            arguments = (Argument(query, (batch, heads, positions, r)), Argument(c, (batch, heads, r, s)))
            return Fusion(
                "linear_query", kernels.linear_query, number, frozenset({q.value}), arguments,
                (batch, heads, positions, s), attention_cost.query(*sizes),
            )  # fmt: skip
        return None

    def projected_context(self, number: int) -> Fusion | None:
        """Match c[b,r,s] = Σ_n softmax[n](Σ_c x[b,n,c] w[c,r]) v[b,n,s]."""
        half = self.linear_context(number)
        if half is None:
            return None
        _, v = half.arguments
        batch, heads, positions, s = v.groups
        # The projected kernels have no axis for heads.
        made = None if heads else self.projection(half.arguments[0])
        if made is None:
            return None
        x, w, (n, c, r) = made
        values = Argument(v.operand, (batch, positions, s))
        # If values are x itself, the kernel reads it once.
        same = x.operand.value == v.operand.value and axes_of(x) == axes_of(values)
        cost = projected_cost.context(self.many(batch), n, c, r, self.many(s), ITEMSIZE, same=same)
        return self._with_projection("projected_context", half, (x, w, values), cost)

    def projected_query(self, number: int) -> Fusion | None:
        """Match y[b,n,s] = Σ_r softmax[r](Σ_c x[b,n,c] w[c,r]) c[b,r,s]."""
        half = self.linear_query(number)
        if half is None:
            return None
        _, context = half.arguments
        batch, heads, r, s = context.groups
        made = None if heads else self.projection(half.arguments[0])
        if made is None:
            return None
        x, w, (n, c, keys) = made
        cost = projected_cost.query(self.many(batch), n, c, keys, self.many(s), ITEMSIZE)
        return self._with_projection("projected_query", half, (x, w, Argument(context.operand, (batch, r, s))), cost)

    def projection(self, argument: Argument) -> tuple[Argument, Argument, tuple[int, int, int]] | None:
        """Match keys or queries [b,n,r] as x[b,n,c] w[c,r] without other readers.

        Returns:
            x, w and the lengths of n, c and r, or None.
        """
        term = self.product(argument.operand.value)
        if term is None:
            return None
        names = dict(zip(term.output, argument.operand.indices, strict=True))
        _, _, positions, keys = argument.groups
        for x, matrix in self.sides(term):
            groups = self.rows_by_matrix(x, matrix, term)
            if groups is None or len(groups[1]) != 2:
                continue
            (batch, rows, inner), (_, columns) = groups
            if {names[i] for i in rows} != set(positions) or {names[i] for i in columns} != set(keys):
                continue
            back = {new: old for old, new in names.items()}
            rows, columns = tuple(back[i] for i in positions), tuple(back[i] for i in keys)
            made = Argument(x, (batch, rows, inner)), Argument(matrix, (inner, columns), term.coefficient)
            return *made, (self.many(rows), self.many(inner), self.many(columns))
        return None

    def _with_projection(self, kernel: str, half: Fusion, arguments: tuple[Argument, ...], cost: Cost) -> Fusion:
        """Absorb the projection into the kernel of one half of linear attention."""
        batch, heads, *rest = half.result
        assert not heads
        # The softmax is absorbed already; its operand is the projection's product.
        absorbed = half.absorbed | {self._read_by(*half.absorbed)}
        return Fusion(kernel, getattr(kernels, kernel), half.value, absorbed, arguments, (batch, *rest), cost)

    def _read_by(self, number: int) -> int:
        """Return the only operand of a step."""
        (operand,) = self.graph.nodes[number].operands
        return operand.value


def _fills_groups(argument: Argument) -> bool:
    """Test if the argument and its factors have all indices of a group or none, and no others."""
    for operand in (argument.operand, *argument.factors):
        have = set(operand.indices)
        if repeats(operand) or not have <= {i for group in argument.groups for i in group}:
            return False
        if any(have & set(group) and not set(group) <= have for group in argument.groups):
            return False
    return True
