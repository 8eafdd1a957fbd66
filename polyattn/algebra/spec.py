"""`Spec`: the public specification, a checked text with the algebra's operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any

from polyattn.algebra.expand import Expansion, expand
from polyattn.algebra.polynomial import Polynomial, Signature
from polyattn.algebra.printing import statements_of
from polyattn.display import block, note, svg
from polyattn.errors import BudgetError, NotPolynomialError, SpecError
from polyattn.language import Specification
from polyattn.language.functions import RECIPROCAL
from polyattn.language.syntax import Call, Definition, Statements

if TYPE_CHECKING:
    import numpy as np

    from polyattn.algebra.core import ChannelCore


class Spec(Specification):
    """An attention layer as equations.

    >>> spec = Spec("x[N,C]; y[a,b] = x[a,d]*wf[d,f]*x[e,f] * x[e,h]*wg[h,b]")
    >>> spec.parameters
    {'wf': ('C', 'C'), 'wg': ('C', 'C')}
    >>> spec.degree, spec.is_polynomial
    (3, True)
    >>> spec == Spec(str(spec))
    True

    Raises:
        SpecError: the text is wrong; the message shows the line with a caret under the place.
    """

    def __init__(self, text: str | bytes | Statements):
        super().__init__(text)
        if not any(map(_may_cancel, self.core)):
            return
        try:
            self.expansion()
        except SpecError as error:
            source = text.decode("utf-8") if isinstance(text, bytes) else text if isinstance(text, str) else ""
            raise SpecError(error.reason, source, error.line, error.column) from None
        except BudgetError:  # too large to expand: the denominators stay as they are
            pass

    def _repr_html_(self) -> str:
        """Return the equations, typeset if the notebook has MathJax, above the text and the parameters."""
        parameters = ", ".join(f"{n}[{', '.join(s)}]" if s else n for n, s in self.parameters.items()) or "none"
        return f"{escape(self._repr_latex_())}{block(str(self))}{note(f'parameters: {parameters}')}"

    def _repr_svg_(self) -> str | None:
        """Return the tensor-network diagram; None if matplotlib is not installed or the diagram would be too large."""
        return svg(self)

    @classmethod
    def of(cls, polynomial: Polynomial) -> Spec:
        """Return the specification of a polynomial in expanded form."""
        return cls(statements_of(polynomial))

    def expansion(self) -> Expansion:
        """Return the monomials in the order of the text, brackets multiplied out and intermediates substituted."""
        return _expansion(self)

    def polynomial(self) -> Polynomial:
        """Return the canonical form. `==` between two is equality at every size; a `Polynomial` is hashable."""
        return _polynomial(self)

    @property
    def signature(self) -> Signature:
        """Return the names and shapes of the inputs and the output."""
        shapes = {name: self.shape(name) for name in (*self.inputs, *self.parameters, self.output)}
        return Signature(tuple(self.inputs), self.output, self.shape(self.output), shapes, self.sizes)

    @property
    def degree(self) -> int:
        """Return the degree in the inputs; a function of them counts as one factor."""
        return self.polynomial().degree

    @property
    def is_polynomial(self) -> bool:
        """Return whether the specification is free of functions other than `mean`, a sum."""
        return not self.has_functions

    def expanded(self) -> Spec:
        """Return the canonical form as a specification: one sum of products."""
        return Spec.of(self.polynomial())

    def derivative(self, tensor: str, seed: str = "dy") -> Spec:
        """Return the specification of the vector-Jacobian product by an input or parameter.

        Its inputs are this specification's and `seed`, of the output's shape; its output is `d<tensor>`.

        Functions entry by entry have derivatives in the language; that of a maximum is a share among its ties.

        >>> print(Spec("x[N,C]; y[a,b] = x[a,d]*w[d,b]").derivative("w"))
        x[N,C]
        dy[N,C]
        dw[c,c1] = dy[n,c1]*x[n,c]

        Raises:
            NotPolynomialError: the tensor occurs inside a function of your own.
            SpecError: the tensor is unknown, the seed's name is in use or not a name of the language, or the derivative
                is zero.
        """
        return Spec.of(self.polynomial().derivative(tensor, seed))

    def substitute(self, *statements: str) -> Spec:
        """Return the specification with parameters replaced by definitions.

        Args:
            statements: definitions such as "wf[d,f] = wq[d,r]*wk[f,r]", and sizes of their own indices such as
                "r : R".
        """
        return self.with_statements(*(_with_where(s) for s in statements))

    def interaction_tensor(
        self,
        sizes: Mapping[str, int],
        parameters: Mapping[str, Any] | None = None,
        *,
        degree: int | None = None,
        budget: int | None = None,
    ) -> Any:
        """Return the explicit interaction tensor W of order 2(D+1) (Poly-NL, Eq. 4 and 5, for D = 3).

        Args:
            sizes: a number for every size.
            parameters: an array for each parameter; without them the entries are symbolic.
            degree: the degree of the tensor, needed if the terms have several.
            budget: largest size of the tensor in bytes; default 1 GiB.

        Returns:
            With parameters a numpy array of shape (output shape) + (input shape) * D. Without, a dict from index
            tuples to sympy expressions, without the zero entries. The x's are numbered in the order of the text;
            W is only defined up to permuting them (see `symmetrise`).

        Raises:
            BudgetError: the tensor would exceed the budget; the message has its size.
            NotPolynomialError: the specification applies functions, has several inputs, or several degrees and
                no `degree` is given.
            SizeError: a size is missing or contradictory, or a parameter has another shape.
        """
        # Imported here: a specification on its own needs neither numpy nor sympy.
        from polyattn.algebra.tensor import interaction_entries, interaction_tensor

        if parameters is None:
            return interaction_entries(self, self.expansion(), sizes, degree, budget)
        return interaction_tensor(self, self.expansion(), sizes, parameters, degree, budget)

    def channel_cores(self, channels: int, parameters: Mapping[str, Any]) -> tuple[ChannelCore, ...]:
        """Return the position patterns of the layer, each with its core over channels; the highest degree first.

        `W[a,b, c,d, e,f, g,h]` is a sum of (deltas between a, c, e, g) times (core `T[b,d,f,h]`); for NL's kind the
        deltas are δ[a,c] δ[e,g]. The x's are ordered so that the patterns are in standard form.

        Args:
            channels: C, the size of the input's last slot.
            parameters: an array for each parameter.

        Raises:
            NotPolynomialError: a parameter has slots over positions, functions are applied, or the output's shape is
                not the input's.
            SizeError: a parameter is missing, or its shape contradicts the others.
        """
        from polyattn.algebra.core import channel_cores

        return channel_cores(self, self.expansion(), channels, parameters)

    def channel_core(self, channels: int, parameters: Mapping[str, Any]) -> ChannelCore:
        """Return the one position pattern of the layer with its core T[b,d,f,h] over channels; see `channel_cores`.

        >>> import numpy as np
        >>> spec = Spec("x[N,C]; y[a,b] = 1/N * x[a,d]*wf[d,f]*x[e,f] * x[e,h]*wg[h,b]")
        >>> print(spec.channel_core(2, {"wf": np.eye(2), "wg": np.eye(2)}))
        δ[y,x1] δ[x2,x3] ⊗ core of shape 2 x 2 x 2 x 2 / N

        Raises:
            NotPolynomialError: there are several patterns, or an error of `channel_cores`.
            SizeError: a parameter is missing, or its shape contradicts the others.
        """
        from polyattn.algebra.core import pattern_text

        found = self.channel_cores(channels, parameters)
        if len(found) != 1:
            patterns = "; ".join(pattern_text(c.pattern) for c in found)
            raise NotPolynomialError(f"the layer has {len(found)} position patterns ({patterns}): take channel_cores")
        return found[0]

    def evaluate(
        self,
        tensors: Mapping[str, Any],
        sizes: Mapping[str, int] | None = None,
        functions: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    ) -> np.ndarray:
        """Return the output for given tensors, in numpy, definition by definition as written. A reference: slow.

        Args:
            tensors: an array for every input and parameter; for a scalar one without axes, or of one entry.
            sizes: sizes not determined by a tensor's shape.
            functions: a function of an array for each function of your own (`where phi : function`).

        Raises:
            SizeError: a tensor is missing or its shape contradicts the others.
            SpecError: `functions` does not fit the functions that are declared.
        """
        from polyattn.algebra.evaluate import evaluate

        return evaluate(self, tensors, sizes, functions)


def _may_cancel(definition: Definition) -> bool:
    """Return whether a definition is 1 over a sum with a term that is subtracted."""
    body = definition.body
    return isinstance(body, Call) and body.function == RECIPROCAL and any(t.negative for t in body.argument.terms)


def _with_where(statement: str) -> str:
    """Return `r : R` and `C = G*M` as `where` statements, and other statements unchanged."""
    bare = statement.strip()
    head = bare.partition("=")[0].strip()
    # A capital without slots on the left is a size; `w[d,f] = ...` is not an identifier.
    is_size = head.isidentifier() and head[:1].isupper()
    if not bare.startswith("where ") and (is_size or ("=" not in bare and ":" in bare)):
        return f"where {bare}"
    return statement


# Specs are immutable and hash once, so every module of one layer shares one expansion.
@lru_cache(maxsize=512)
def _expansion(spec: Spec) -> Expansion:
    return expand(spec)


@lru_cache(maxsize=512)
def _polynomial(spec: Spec) -> Polynomial:
    return Polynomial.of(spec.signature, _expansion(spec).terms)
