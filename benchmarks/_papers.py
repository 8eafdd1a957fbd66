"""The layers as their papers write them, by hand in plain torch, and as one `torch.einsum` per product.

Each function takes the input and the parameters in the order of the catalogue's specification. `x` is (B, N, C) or
(B, H, W, C), but for the bilinear transform, which gets (B, C, H, W) as in its own code: each in the memory layout
that its products like best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import opt_einsum
import torch
from torch import Tensor

from polyattn import Spec
from polyattn.algebra import TensorFactor
from polyattn.language.syntax import IDENTITY
from polyattn.planning import Coefficient

Layer = Callable[..., Tensor]


def poly_nl(x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor) -> Tensor:
    """Poly-NL, Eq. 7."""
    return (((x @ w1) * (x @ w2)).mean(1, keepdim=True) * x) @ w3


def nl(x: Tensor, wf: Tensor, wg: Tensor) -> Tensor:
    """Non-local block without softmax, Poly-NL Eq. 8."""
    return (x @ wf @ x.mT) @ (x @ wg)


def e_nl(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor) -> Tensor:
    """Efficient attention with scaling normalisation."""
    context = (x @ wk).mT @ (x @ wv) / x.shape[1]
    return (x @ wq) @ context @ wo


def latent_gnn(x: Tensor, wpsi: Tensor, wphi: Tensor, wg: Tensor, adj: Tensor) -> Tensor:
    """Latent-GNN: positions to nodes, along the adjacency, and back."""
    nodes = (x @ wphi).mT @ (x @ wg) / x.shape[1]
    return (x @ wpsi) @ (adj @ nodes)


def tesa(
    x: Tensor,
    wq1: Tensor,
    wk1: Tensor,
    wv1: Tensor,
    wq2: Tensor,
    wk2: Tensor,
    wv2: Tensor,
    wq3: Tensor,
    wk3: Tensor,
    wv3: Tensor,
    alpha1: Tensor,
    alpha2: Tensor,
    alpha3: Tensor,
) -> Tensor:
    """TESA: a non-local block on each of the three matricisations."""

    def block(unfold: Callable[[Tensor], Tensor], wq: Tensor, wk: Tensor, wv: Tensor) -> Tensor:
        query, key, value = unfold(x @ wq), unfold(x @ wk), unfold(x @ wv)
        return query @ key.mT @ value

    b, h, w, c = x.shape
    one = block(lambda t: t.flatten(1, 2), wq1, wk1, wv1).view(b, h, w, c)
    two = block(lambda t: t.flatten(2), wq2, wk2, wv2).view(b, h, w, c)
    three = block(lambda t: t.transpose(1, 2).flatten(2), wq3, wk3, wv3).view(b, w, h, c).transpose(1, 2)
    return alpha1 * one + alpha2 * two + alpha3 * three


def ba_transform_block(x: Tensor, wf: Tensor, wp: Tensor, wq: Tensor) -> Tensor:
    """BA-Transform, Eq. 1, with its block matrices copied to full size (Figure 3); x is (B, C, H, W)."""
    b, c, h, w = x.shape
    groups, s = wp.shape[:2]
    features = torch.einsum("bchw,cm->bmhw", x, wf)
    row = features.unflatten(2, (s, -1)).mean((3, 4))
    col = features.unflatten(3, (s, -1)).mean((2, 4))
    p = torch.einsum("bmt,giktm->bgik", row, wp)
    q = torch.einsum("bmt,gljtm->bglj", col, wq)
    rows = torch.kron(p, torch.eye(h // s, dtype=x.dtype, device=x.device))
    columns = torch.kron(q, torch.eye(w // s, dtype=x.dtype, device=x.device))
    y = rows.unsqueeze(2) @ x.view(b, groups, c // groups, h, w) @ columns.unsqueeze(2)
    return y.view(b, c, h, w)


def einsum_form(spec: Spec, sizes: dict[str, int]) -> Layer:
    """The expanded specification as one `torch.einsum` per product, in the order that opt_einsum finds.

    Equations are made from atomic slots, so tensors whose slots are split are viewed accordingly.
    """
    polynomial = spec.polynomial()
    output = polynomial.signature.output_indices()
    names = (*spec.inputs, *spec.parameters)
    views = {t: [sizes[a] for slot in spec.shape(t) for a in slot] for t in names}
    products: list[tuple[str, list[int], float]] = []
    for term in polynomial.terms:
        letters = {i: opt_einsum.get_symbol(k + 1) for k, i in enumerate(dict.fromkeys((*output, *term.indices())))}
        texts, numbers = [], []
        for factor in term.factors:
            assert isinstance(factor, TensorFactor)
            assert factor.tensor != IDENTITY
            batch = "a" if factor.tensor in spec.inputs else ""
            texts.append(batch + "".join(letters[i] for i in factor.indices))
            numbers.append(names.index(factor.tensor))
        equation = f"{','.join(texts)}->a{''.join(letters[i] for i in output)}"
        products.append((equation, numbers, float(Coefficient(term.coefficient, term.powers).value(sizes))))
    whole = [sizes[spec.sizes.name(slot)] for slot in spec.shape(spec.output)]

    def layer(*tensors: Tensor) -> Tensor:
        atomic = [
            t.reshape(t.shape[0], *views[n]) if n in spec.inputs else t.reshape(views[n])
            for n, t in zip(names, tensors, strict=True)
        ]
        total = None
        for equation, numbers, scale in products:
            y = torch.einsum(equation, [atomic[k] for k in numbers])
            y = y if scale == 1 else scale * y
            total = y if total is None else total + y
        assert total is not None
        return total.reshape(total.shape[0], *whole)

    return layer


FORMS: dict[str, Layer] = {
    "poly_nl": poly_nl,
    "nl": nl,
    "e_nl": e_nl,
    "latent_gnn": latent_gnn,
    "tesa": tesa,
    "ba_transform_block": ba_transform_block,
}
"""By catalogue name."""

CHANNELS_FIRST = frozenset({"ba_transform_block"})
"""Forms whose input and output are (B, C, H, W)."""


def channels_first(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The input moved to (B, C, H, W), contiguous; the parameters as they are."""
    return [tensors[0].movedim(-1, 1).contiguous(), *tensors[1:]]
