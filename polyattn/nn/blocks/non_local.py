"""`NonLocal`: the non-local block in its four published forms."""

from __future__ import annotations

from functools import cache
from operator import index

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.nn.block import AXES, BATCH_NORMS, Block, inner_width, matrix, one_of, part_of, pointwise, settling, whole
from polyattn.nn.conv_norm import affine
from polyattn.nn.factory import as_factory
from polyattn.nn.fused import attention
from polyattn.nn.open_cut import is_open
from polyattn.nn.plain import is_plain
from polyattn.nn.pointwise_conv import are_few, projected, times_columns
from polyattn.runtime.function import SpecFunction
from polyattn.runtime.layouts import as_map, channels_first, is_channels_last, laid_out_as, positions_first

SMALL_MAP = 1024**2
"""Similarities of one head, up to which they are made in training where the queries and keys together are no smaller:
the backward pass then takes 0.6 to 0.9 of the time of fused attention (49 to 784 positions, float32, one core)."""

DOT_PRODUCT = (
    "query[N,D]; key[M,D]; value[M,D]; where D = J*R; where j : J; "
    "y[a,(j s)] = 1/M * query[a,(j r)]*key[e,(j r)]*value[e,(j s)]"
)
"""The attention between the convolutions, for modules that have to be called."""

SIMILARITIES = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")


class NonLocal(Block):
    """Non-local block `x + norm(out(f(theta(x), phi(x)) g(x)))` (Wang et al., Non-local Neural Networks, 2018).

    The similarities f of position a with position e, the M positions e being those after sub-sampling:

    - "embedded_gaussian": softmax over e of `scale * theta_a . phi_e`;
    - "gaussian": softmax over e of `scale * x_a . x_e`, without theta and phi;
    - "dot_product": `theta_a . phi_e / M`, run on the plan for the shape at hand, with the N x M map only if it is
      cheaper;
    - "concatenation": `relu(w . [theta_a, phi_e]) / M`.

    Prefer "dot_product" for large N: it is linear in N. The others compute N x M similarities; the softmax forms use
    `torch.nn.functional.scaled_dot_product_attention`, without storing them (except small maps in training on the CPU).
    `spec` is the block without batch norm and residual.

    Args:
        channels: channels of the input and the output.
        reduction: channels / inner channels, those of theta, phi and g.
        inner_channels: the inner channels themselves, instead of `reduction`.
        similarity: one of the four above.
        scale: the factor before the softmax; (inner channels / heads) ** -0.5 by default, for "gaussian" 1.
        heads: number of heads that split the channels, each with its own similarities.
        sub_sample: side of the windows over which keys and values are max-pooled (in 3D, not over frames).
        pool: "before" phi and g (the paper), or "after" them.
        bias: whether the four 1x1 convolutions have biases.
        norm: batch norm on the output.
        zero_init: the block starts as the identity: the norm's scale (without norm, `out`) starts at 0.
        dim: the number of axes of positions.
        generator: random generator of the initial values.
        device, dtype: of the parameters and buffers, as in torch's modules.

    Shape:
        (B, channels, *positions) to the same, of any size; contiguous or channels-last, which is kept.

    Raises:
        SizeError: contradictory arguments; at call time an input of another shape or dtype.

    >>> NonLocal(8, reduction=2, similarity="dot_product")(torch.zeros(2, 8, 5, 7)).shape
    torch.Size([2, 8, 5, 7])
    """

    @as_factory
    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 2,
        inner_channels: int | None = None,
        similarity: str = "embedded_gaussian",
        scale: float | None = None,
        heads: int = 1,
        sub_sample: int = 1,
        pool: str = "before",
        bias: bool = True,
        norm: bool = True,
        zero_init: bool = True,
        dim: int = 2,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(channels, dim)
        self.similarity = one_of("similarity", similarity, SIMILARITIES)
        self.sub_sample, self.pool = whole("sub_sample", sub_sample), one_of("pool", pool, ("before", "after"))
        self.inner_channels = inner = inner_width(channels, reduction, inner_channels)
        self.heads, each = heads, part_of("inner channels", inner, "heads", heads)
        if similarity == "gaussian":
            part_of("channels", channels, "heads", heads)
        if similarity == "concatenation" and heads > 1:
            raise SizeError(f"similarity 'concatenation' has one head, not heads = {heads}")
        self.scale = (1.0 if similarity == "gaussian" else each**-0.5) if scale is None else float(scale)

        embeds = similarity != "gaussian"
        self.theta = pointwise(dim, channels, inner, bias=bias) if embeds else None
        self.phi = pointwise(dim, channels, inner, bias=bias) if embeds else None
        self.g = pointwise(dim, channels, inner, bias=bias)
        # 2D for every dim, as in mmcv; only its weight is read, as a vector.
        self.concat = pointwise(2, 2 * inner, 1) if similarity == "concatenation" else None
        self.out = pointwise(dim, inner, channels, bias=bias)
        self.norm = BATCH_NORMS[dim](channels) if norm else None
        self.zero_init = zero_init
        self.spec = _specification(similarity, bias, sub_sample > 1, pool)
        self._function = SpecFunction(self.spec, {"J": heads, "D": inner})
        text = DOT_PRODUCT if sub_sample > 1 else DOT_PRODUCT.replace("M", "N")
        self._attended = SpecFunction(Spec(text), {"J": heads})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw normal weights of variance 1 / inputs, with biases 0 and, with `zero_init`, output 0."""
        for layer in (self.theta, self.phi, self.g, self.concat, self.out):
            if layer is not None:
                nn.init.normal_(layer.weight, 0.0, layer.in_channels**-0.5)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        if self.norm is not None:
            self.norm.reset_parameters()
        if self.zero_init:
            nn.init.zeros_(self.out.weight if self.norm is None else self.norm.weight)

    @settling
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, *positions) to the same shape."""
        self.check(x)
        if self.similarity not in ("dot_product", "concatenation"):
            return x + laid_out_as(self._out(self._softmax(x), x), x).to(x.dtype)
        if not is_plain(self.theta, self.phi, self.g, self.concat, self.out):
            return x + laid_out_as(self._out(self._compared(x), x), x).to(x.dtype)
        y = laid_out_as(channels_first(self._planned(x), x, 1), x)
        return x + (y if self.norm is None else self.norm(y)).to(x.dtype)

    def _out(self, rows: Tensor, x: Tensor) -> Tensor:
        """Apply the last convolution and the norm to rows (B, N, inner); return a map in the layout of x."""
        if not is_plain(self.out):
            y = self.out(laid_out_as(channels_first(rows, x, 1), x))
            return y if self.norm is None else self.norm(y)
        weight, bias, norm = affine(self.out, self.norm, x)
        if is_channels_last(x) or are_few(rows, weight.shape[0]):
            y = laid_out_as(channels_first(F.linear(rows, weight, bias), x, 1), x)
        else:
            y = as_map(times_columns(weight, bias, rows.transpose(1, 2)), x)
        return y if norm is None else norm(y)

    def spec_parameters(self) -> dict[str, Tensor]:
        layers = {"q": self.theta, "k": self.phi, "v": self.g, "o": self.out}
        found = {f"w{letter}": matrix(layer) for letter, layer in layers.items() if layer is not None}
        # Not `|=`: compilers before torch 2.7 do not trace it.
        found.update(
            {f"b{k}": layer.bias for k, layer in layers.items() if layer is not None and layer.bias is not None}
        )
        if self.concat is not None:
            found["wa"], found["we"] = self.concat.weight.flatten().split(self.inner_channels)
        return found

    def _planned(self, x: Tensor) -> Tensor:
        tensors = {"x": positions_first(x, 1), **self.spec_parameters()}
        if self.sub_sample > 1 and self.pool == "before":
            tensors["z"] = self._fewer(x)
        elif self.sub_sample > 1:
            tensors["key"], tensors["value"] = self._embedded(x)
        return self._function(tensors)

    def _softmax(self, x: Tensor) -> Tensor:
        """Compute softmax attention with all heads: (B, N, inner channels)."""
        query, key, value = self._heads(x) if is_plain(self.theta, self.phi, self.g) else self._called(x)
        query, key, value = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (query, key, value))
        if _is_faster_with_its_map(query, key):
            y = _map(query, key, self.scale).to(value.dtype) @ value
        else:
            y = attention(query, key, value, self.scale)
        return y.transpose(1, 2).flatten(2)

    def _heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute queries, keys and values, as rows (B, N or M, ...) of all heads, by the weights."""
        rows = positions_first(x, 1)
        theta, phi, g = self.theta, self.phi, self.g
        if self.sub_sample > 1:
            query = rows if theta is None else projected(rows, theta)[0]
            if self.pool == "after":
                return query, *self._embedded(x)
            fewer = self._fewer(x)
            return query, (fewer if phi is None else projected(fewer, phi)[0]), projected(fewer, g)[0]
        if theta is None or phi is None:
            return rows, rows, projected(rows, g)[0]
        return projected(rows, theta, phi, g)

    def _called(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the same by calls of the modules."""
        query = positions_first(x if self.theta is None else self.theta(x), 1)
        if self.sub_sample > 1 and self.pool == "after":
            return query, *self._embedded(x)
        fewer = self._pooled(x) if self.sub_sample > 1 else x
        key, value = fewer if self.phi is None else self.phi(fewer), self.g(fewer)
        return query, positions_first(key, 1), positions_first(value, 1)

    def _compared(self, x: Tensor) -> Tensor:
        """Compute "dot_product" or "concatenation" up to `out`, (B, N, inner channels), by calls of the modules."""
        query, key, value = self._called(x)
        if self.concat is None:
            return self._attended({"query": query, "key": key, "value": value})
        if is_plain(self.concat):
            own, other = self.concat.weight.flatten().split(self.inner_channels)
            alike = (query @ own)[:, :, None] + (key @ other)[:, None]
        else:
            shape = (*query.shape[:2], key.shape[1], -1)
            pairs = torch.cat([query[:, :, None].expand(shape), key[:, None].expand(shape)], 3)
            alike = self.concat(pairs.movedim(3, 1)).squeeze(1)
        return (torch.relu(alike) @ value) / self.positions.count(value.transpose(1, 2))

    def _fewer(self, x: Tensor) -> Tensor:
        """Return the max-pooled map as rows (B, M, channels)."""
        return positions_first(self._pooled(x), 1)

    def _pooled(self, x: Tensor) -> Tensor:
        window = (1,) * (self.dim == 3) + (self.sub_sample,) * min(self.dim, 2)
        for axis, length, width in zip(AXES[self.dim], x.shape[2:], window, strict=True):
            if not is_open(length) and length < width:
                raise SizeError(f"NonLocal pools over sub_sample = {width} positions, but {axis} = {length}")
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[self.dim - 1]
        return pool(x, window)

    def _embedded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (B, M, ...), pooled after their convolutions."""
        return self._fewer(x if self.phi is None else self.phi(x)), self._fewer(self.g(x))

    def extra_repr(self) -> str:
        return f"{self.similarity}, scale={self.scale:.3g}, heads={self.heads}, sub_sample={self.sub_sample}"


def _is_faster_with_its_map(query: Tensor, key: Tensor) -> bool:
    """Return whether to store the N x M map of (B, heads, N, R) and (B, heads, M, R).

    On the CPU the backward pass of fused attention recomputes the map, which takes longer than two products with a
    small stored one. A map larger than the queries and keys would set the memory peak.
    """
    if is_open(query.shape[2], key.shape[2]):
        return False
    grows = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    length, keys, width = (index(number) for number in (query.shape[2], *key.shape[2:]))
    return grows and query.device.type == "cpu" and keys <= 2 * width and length * keys <= SMALL_MAP


def _map(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Return the softmax of the scaled similarities of (B, heads, N, R) and (B, heads, M, R): (B, heads, N, M)."""
    if query.dtype == torch.float16:  # unscaled products may overflow
        query, scale = scale * query, 1.0
    # Scaling inside the product keeps no scaled copy of the queries for autograd; beta=0 ignores `unused`.
    unused = query.new_empty(1, 1, 1)
    alike = torch.baddbmm(unused, query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2), beta=0, alpha=scale)
    return torch.softmax(alike, 2).unflatten(0, query.shape[:2])


@cache
def _specification(similarity: str, bias: bool, sub_sampled: bool, pool: str) -> Spec:
    """Return the block as equations, without its norm and residual.

    With sub-sampling, keys and values read a second input: `z` if pooled before their convolutions, `key` and `value`
    if after.
    """
    b = {w: f" + b{w}[{'b' if w == 'o' else '(j r)'}]" if bias else "" for w in "qkvo"}
    embeds = similarity != "gaussian"
    source, count = ("z", "M") if sub_sampled else ("x", "N")
    given = sub_sampled and pool == "after"
    width = "D" if embeds else "C"
    lines = ["x[N,C]"]
    if given:
        lines.append(f"key[M,{width}]; value[M,D]")
    elif sub_sampled:
        lines.append("z[M,C]")
    lines.append("where D = J*R" if embeds else "where D = J*R; where C = J*U")
    lines.append("where j : J; where r, s : R")
    key, value = ("key[e,(j r)]", "value[e,(j s)]") if given else ("k[e,j,r]", "v[e,j,s]")
    if embeds:
        lines.append(f"q[a,j,r] = x[a,d]*wq[d,(j r)]{b['q']}")
        if not given:
            lines.append(f"k[e,j,r] = {source}[e,f]*wk[f,(j r)]{b['k']}")
        alike = f"q[a,j,r]*{key}"
    else:
        alike = f"x[a,(j u)]*{'key' if given else source}[e,(j u)]"
    if not given:
        lines.append(f"v[e,j,r] = {source}[e,h]*wv[h,(j r)]{b['v']}")
    if similarity == "dot_product":
        lines.append(f"y[a,b] = 1/{count} * {alike} * {value}*wo[(j s),b]{b['o']}")
        return Spec("\n".join(lines))
    if similarity == "concatenation":
        lines[lines.index("where j : J; where r, s : R")] = "where j : J; where r, s, t : R"
        # The two halves of w are summed separately, so the key needs an index of its own.
        other = key.replace("r)", "t)").replace("r]", "t]")
        lines.append(f"f[a,e,j] = relu(q[a,j,r]*wa[(j r)] + {other}*we[(j t)])")
        lines.append(f"y[a,b] = 1/{count} * f[a,e,j]*{value}*wo[(j s),b]{b['o']}")
    else:
        lines.append(f"f[a,e,j] = softmax[e](scale*{alike})")
        lines.append(f"y[a,b] = f[a,e,j]*{value}*wo[(j s),b]{b['o']}")
    return Spec("\n".join(lines))
