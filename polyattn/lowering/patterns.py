"""Patterns: steps of an evaluation graph that match a fused kernel.

A pattern looks at one node and returns the kernel for its value, the kernel's arguments, and the nodes it makes
unnecessary, provided that only the pattern reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from polyattn import kernels
from polyattn.algebra import Index
from polyattn.kernels.bilinear import cost as bilinear_cost
from polyattn.kernels.cross_gram import cost as cross_cost
from polyattn.kernels.gram import cost as gram_cost
from polyattn.kernels.hadamard_mean import cost as hadamard_cost
from polyattn.kernels.project import cost as project_cost
from polyattn.lowering.attention_patterns import AttentionPatterns
from polyattn.lowering.fusion import Argument, Fusion, axes_of
from polyattn.lowering.reading import batch_of, repeats
from polyattn.planning import BATCH, Add, Contract, Operand
from polyattn.planning.graph import ITEMSIZE

TALL = 4
"""Least ratio of length to width of the operands of `cross_gram`."""


@dataclass(frozen=True)
class Matcher(AttentionPatterns):
    """The patterns, on one graph."""

    def found(self) -> Iterator[Fusion]:
        for number in range(len(self.graph.nodes)):
            # More specific patterns come first: `fusions` keeps the first of those with equal saving.
            for pattern in (
                self.bilinear,
                self.hadamard_mean,
                self.project_pair,
                self.attention,
                self.linear_context,
                self.linear_query,
                self.projected_context,
                self.projected_query,
                self.gram,
                self.cross_gram,
                self.project,
            ):
                fusion = pattern(number)
                if fusion is not None:
                    yield fusion

    def gram(self, number: int) -> Fusion | None:
        """Match g[b,c,d] = Σ_n x[b,n,c] x[b,n,d]: one value, read twice with different names for some axes."""
        node = self.product(number, alone=False)
        if node is None or node.operands[0].value != node.operands[1].value:
            return None
        left, right = node.operands
        batch, summed = batch_of(node), node.summed
        rows = tuple(i for i in left.indices if i not in right.indices)
        columns = tuple(i for i in right.indices if i not in left.indices)
        # Otherwise the two readings transpose each other's axes, and the product is not a Gram matrix.
        same = all(a == b or (a in rows and b in columns) for a, b in zip(left.indices, right.indices, strict=True))
        if not same or not rows or not batch or {*batch, *rows, *columns} != set(node.output) or repeats(left):
            return None
        cost = gram_cost.forward(self.many(batch), self.many(summed), self.many(rows), ITEMSIZE)
        argument = Argument(left, (batch, summed, rows))
        return Fusion(
            "gram", kernels.gram, number, frozenset(), (argument,), (batch, rows, columns), cost, node.coefficient
        )

    def cross_gram(self, number: int) -> Fusion | None:
        """Match g[b,c,d] = Σ_n x[b,n,c] y[b,n,d] of two tall matrices."""
        node = self.product(number, alone=False)
        if node is None or any(repeats(o) for o in node.operands):
            return None
        left, right = node.operands
        batch, summed = batch_of(node), node.summed
        rows = tuple(i for i in left.indices if i not in right.indices)
        columns = tuple(i for i in right.indices if i not in left.indices)
        if not rows or not columns or not batch or {*batch, *rows, *columns} != set(node.output):
            return None
        whole = {*batch, *summed, *rows} == set(left.indices) and {*batch, *summed, *columns} == set(right.indices)
        positions, width = self.many(summed), (self.many(rows), self.many(columns))
        if not whole or positions < TALL * max(width):
            return None
        arguments = (Argument(left, (batch, summed, rows)), Argument(right, (batch, summed, columns)))
        return Fusion(
            "cross_gram", kernels.cross_gram, number, frozenset(), arguments, (batch, rows, columns),
            cross_cost.forward(self.many(batch), positions, *width, ITEMSIZE), node.coefficient,
        )  # fmt: skip

    def project(self, number: int) -> Fusion | None:
        """Match y[b,n,o] = Σ_c x[b,n,c] (s[b,c] w[c,o]), where the bracket is a step without other readers."""
        node = self.product(number, alone=False)
        if node is None:
            return None
        for x, matrix in self.sides(node):
            groups = self.rows_by_matrix(x, matrix, node)
            # Only a matrix with a batch of its own can be a weight scaled by the input.
            scaled = self.graph.nodes[matrix.value]
            if groups is None or len(groups[1]) != 3 or not self.only_here(matrix.value):
                continue
            if not isinstance(scaled, Contract) or len(scaled.operands) != 2 or scaled.summed:
                continue
            names = dict(zip(scaled.output, matrix.indices, strict=True))
            (batch, rows, inner), (_, _, columns) = groups
            for one, two in self.sides(scaled):
                s, w = (Operand(o.value, tuple(names[i] for i in o.indices)) for o in (one, two))
                if set(s.indices) == {*batch, *inner} and set(w.indices) == {*inner, *columns}:
                    sizes = (self.many(batch), self.many(rows), self.many(inner), self.many(columns), ITEMSIZE)
                    factor = node.coefficient.times(scaled.coefficient)
                    arguments = (
                        Argument(x, groups[0]),
                        Argument(w, (inner, columns)),
                        Argument(s, (batch, inner), factor),
                    )
                    result = (batch, rows, columns)
                    absorbed = frozenset({matrix.value})
                    return Fusion(
                        "project", kernels.project, number, absorbed, arguments, result, project_cost.project(*sizes)
                    )
        return None

    def project_pair(self, number: int) -> Fusion | None:
        """Match y[b,n,o] = Σ_c a[b,n,c] m[b,c,o] + Σ_c x[b,n,c] s[b,c,o], two products without other readers."""
        node = self.graph.nodes[number]
        if not isinstance(node, Add) or len(node.operands) != 2:
            return None
        arguments: list[Argument] = []
        lengths: list[int] = []
        results = set()
        for operand, factor in zip(node.operands, node.coefficients, strict=True):
            term = self.product(operand.value)
            if term is None or set(operand.indices) != set(node.output):
                return None
            found = None
            for x, matrix in self.sides(term):
                found = self.rows_by_matrix(x, matrix, term)
                # Both operands may fit as x, if both have a batch: then the taller one is x.
                if found is not None and self.many(found[0][1]) >= self.many(found[1][-1]):
                    arguments += [
                        Argument(x, found[0]),
                        Argument(matrix, found[1], factor.times(term.coefficient)),
                    ]
                    lengths.append(self.many(found[0][2]))
                    names = dict(zip(term.output, operand.indices, strict=True))
                    groups = (found[0][0], found[0][1], found[1][-1])
                    results.add(tuple(tuple(names[i] for i in g) for g in groups))
                    break
            else:
                return None
        # The two terms must agree in the meaning of rows and columns.
        if len(results) != 1:
            return None
        (result,) = results
        sizes = [self.many(g) for g in result]
        cost = project_cost.project_pair(sizes[0], sizes[1], lengths[0], lengths[1], sizes[2], ITEMSIZE)
        absorbed = frozenset(o.value for o in node.operands)
        return Fusion("project_pair", kernels.project_pair, number, absorbed, tuple(arguments), result, cost)

    def hadamard_mean(self, number: int) -> Fusion | None:
        """Match m[b,d] = Σ_n (Σ_c x[b,n,c] v[c,d]) (Σ_c x[b,n,c] w[c,d]), two projections without other readers."""
        node = self.product(number, alone=False)
        if node is None or set(node.operands[0].indices) != set(node.operands[1].indices):
            return None
        batch = batch_of(node)
        columns = tuple(i for i in node.operands[0].indices if i not in (*node.summed, *batch))
        xs: list[Argument] = []
        matrices: list[Argument] = []
        factor = node.coefficient
        for operand in node.operands:
            term = self.product(operand.value)
            if term is None or not columns:
                return None
            names = dict(zip(term.output, operand.indices, strict=True))
            for x, matrix in self.sides(term):
                groups = self.rows_by_matrix(x, matrix, term)
                if groups is None or len(groups[1]) != 2:
                    continue
                if {names[i] for i in groups[1][1]} == set(columns) and {names[i] for i in groups[0][1]} == set(
                    node.summed
                ):
                    xs.append(Argument(x, groups[0]))
                    # Both matrices get the column order of the first projection.
                    ordered = tuple(next(i for i in groups[1][1] if names[i] == c) for c in columns)
                    matrices.append(Argument(matrix, (groups[1][0], ordered)))
                    factor = factor.times(term.coefficient)
                    break
            else:
                return None
        # The kernel reads x once, so both projections must read the same value with the same axes.
        places = {(a.operand.value, axes_of(a)) for a in xs}
        if len(places) != 1:
            return None
        inner = xs[0].groups[2]
        sizes = (self.many(batch), self.many(node.summed), self.many(inner), self.many(columns), ITEMSIZE)
        absorbed = frozenset(o.value for o in node.operands)
        arguments = (xs[0], *matrices)
        return Fusion(
            "hadamard_mean", kernels.hadamard_mean, number, absorbed, arguments, (batch, columns),
            hadamard_cost.forward(*sizes), factor,
        )  # fmt: skip

    def bilinear(self, number: int) -> Fusion | None:
        """Match y[b,i,u,j,v,g,n] = Σ_kl p[b,g,i,k] x[b,k,u,l,v,g,n] q[b,g,l,j], the first product read only here."""
        node = self.product(number, alone=False)
        if node is None:
            return None
        for middle, second in self.sides(node):
            first = self.product(middle.value)
            if first is None:
                continue
            # The names of the outer product serve for both.
            names = dict(zip(first.output, middle.indices, strict=True))
            for p, x in self.sides(first):
                p, x = (Operand(o.value, tuple(names.get(i, i) for i in o.indices)) for o in (p, x))
                inner = names.get(first.summed[0], first.summed[0])
                fusion = self._bilinear(number, node, first, (p, inner), x, (second, node.summed[0]))
                if fusion is not None:
                    return fusion
        return None

    def _bilinear(
        self, number: int, node: Contract, first: Contract, p: tuple[Operand, Index], x: Operand,
        q: tuple[Operand, Index],
    ) -> Fusion | None:  # fmt: skip
        """Match the two matrices in either order, each with the index of its sum."""
        if len(first.summed) != 1 or len(node.summed) != 1 or len(x.indices) < 4 or x.indices[0].size != BATCH:
            return None
        roles: dict[Index, tuple[Operand, Index]] = {}
        for matrix, inner in (p, q):
            new = [i for i in matrix.indices if i not in x.indices]
            if len(matrix.indices) != 4 or repeats(matrix) or len(new) != 1 or inner not in matrix.indices:
                return None
            if new[0].size != inner.size or inner not in x.indices:
                return None
            roles[inner] = (matrix, new[0])
        both = {i for i in x.indices if all(i in matrix.indices for matrix, _ in roles.values())}
        groups = both - {x.indices[0]}
        if len(roles) != 2 or len(groups) != 1 or x.indices[0] not in both:
            return None
        (g,) = groups
        k, l = sorted(roles, key=x.indices.index)
        at_k, at_l, at_g = (x.indices.index(i) for i in (k, l, g))
        # The kernel takes the blocks of rows first, then those of columns, then the channels.
        if not (at_k == 1 and at_l < at_g):
            return None
        batch, inside_rows, inside_columns = x.indices[:1], x.indices[2:at_l], x.indices[at_l + 1 : at_g]
        channels = x.indices[at_g + 1 :]
        (rows, i), (columns, j) = roles[k], roles[l]
        result = (batch, (i, *inside_rows), (j, *inside_columns), (g, *channels))
        if {index for group in result for index in group} != set(node.output):
            return None
        factor = node.coefficient.times(first.coefficient)
        arguments = (
            Argument(x, (batch, (k, *inside_rows), (l, *inside_columns), (g, *channels))),
            Argument(rows, (batch, (g,), (i,), (k,)), factor),
            Argument(columns, (batch, (g,), (l,), (j,))),
        )
        sides = [self.many(group) for group in result]
        cost = bilinear_cost.forward(
            sides[0], sides[1], sides[2], sides[3], self.many([g]), self.many([k]), self.many([l]), ITEMSIZE
        )
        # `kernels.bilinear` refuses more blocks.
        if self.many([k, l]) > kernels.MOST_BLOCKS:
            return None
        return Fusion(
            "bilinear", kernels.bilinear, number, frozenset(o.value for o in node.operands) - {q[0].value}, arguments,
            result, cost,
        )  # fmt: skip
