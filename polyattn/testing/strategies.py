"""The public strategies for whole specifications and for numbers of their sizes."""

from __future__ import annotations

from hypothesis import strategies as st

from polyattn.language import Specification
from polyattn.testing.space import Limits, Space
from polyattn.testing.writing import write


@st.composite
def _texts(draw: st.DrawFn, limits: Limits) -> str:
    return write(draw, Space.drawn(draw, limits))


def specification_texts(
    *,
    max_degree: int = 3,
    homogeneous: bool = False,
    functions: bool = True,
    splits: bool = True,
    brackets: bool = True,
    max_inputs: int = 2,
    max_intermediates: int = 2,
    max_indices: int = 7,
    max_monomials: int = 8,
    output_like_input: bool = False,
) -> st.SearchStrategy[str]:
    """Texts of valid specifications, in the plain layout (see `respaced` for others).

    They are small enough for an evaluation by loops over the indices, and use all of the language: splits with
    composite slots and plain indices mixed, several inputs, intermediates, functions, brackets, signs, numbers and
    sizes as coefficients and after '/', scalar parameters, the identity, terms without some of the output's indices,
    repeated indices, and sizes given as numbers or inferred from other tensors.

    Args:
        max_degree: limit on the inputs and outputs of functions in a product; at least 1.
        homogeneous: whether every product of the output has the same degree, at least 1.
        functions: whether definitions may apply functions. `mean` is a sum, but counts as one here.
        splits: whether sizes may be split (`where C = G*M`).
        brackets: whether sums in brackets may be factors.
        max_inputs: 1 or 2.
        max_intermediates: limit on the definitions before the output; the output uses each.
        max_indices: limit on the indices of atomic size of a product, in the output and summed, after substitution of
            intermediates and expansion of brackets; at least 3.
        max_monomials: limit on the products after that expansion.
        output_like_input: whether the output has the shape of the first input.
    """
    return _texts(
        Limits(
            degree=max_degree,
            homogeneous=homogeneous,
            functions=functions,
            splits=splits,
            brackets=brackets,
            inputs=max_inputs,
            intermediates=max_intermediates,
            indices=max_indices,
            monomials=max_monomials,
            output_like_input=output_like_input,
        )
    )


def specifications(**options) -> st.SearchStrategy:
    """Map `specification_texts(**options)` to `Spec`s."""
    from polyattn.algebra import Spec

    return specification_texts(**options).map(Spec)


def size_assignments(spec: Specification, max_size: int = 3) -> st.SearchStrategy[dict[str, int]]:
    """Draw a number from 1 to `max_size` for every atomic size of a specification; split sizes follow."""
    return st.fixed_dictionaries({name: st.integers(1, max_size) for name in spec.sizes.atomic})
