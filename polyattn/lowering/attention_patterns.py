"""Patterns of attention with softmax: the two halves of linear attention, with and without projection."""

from __future__ import annotations

from dataclasses import dataclass

from polyattn import kernels
from polyattn.kernels import Cost
from polyattn.kernels.linear_attention import cost as attention_cost
from polyattn.kernels.projected_attention import cost as projected_cost
from polyattn.lowering.fusion import Argument, Fusion, axes_of
from polyattn.lowering.reading import Reading, repeats
from polyattn.planning import BATCH
from polyattn.planning.graph import ITEMSIZE


@dataclass(frozen=True)
class AttentionPatterns(Reading):
    """The patterns of attention, on one graph."""

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
