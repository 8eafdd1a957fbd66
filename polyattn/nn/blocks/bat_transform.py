"""`BATransform`: the bilinear attentional transform with its predictor, on maps of any size."""

from __future__ import annotations

from functools import cache
from operator import index

import torch
from torch import Tensor
from torch.nn import functional as F

from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.kernels.runtime import has_triton
from polyattn.lowering.functions import is_traced
from polyattn.nn.block import CONVOLUTIONS, Block, one_of, part_of, settling, whole
from polyattn.nn.conv_norm import ConvNormReLU, folded, kaiming
from polyattn.nn.factory import as_factory
from polyattn.nn.open_cut import OpenCut, is_open, open_max, open_mean
from polyattn.nn.partition import block_max, block_mean, cut, of_blocks, overlapped, slid_blocks, taken
from polyattn.nn.parts import part
from polyattn.nn.pointwise_conv import turned_if_few
from polyattn.runtime.communicator import NARROW
from polyattn.runtime.function import SpecFunction
from polyattn.runtime.layouts import is_channels_last, laid_out_as


class BATransform(Block):
    """BA-Transform `conv2(P X_c Q)` with P and Q predicted from X.

    Source: Chi et al., Non-Local Neural Networks with Grouped Bilinear Attentional Transforms.

    The predictor (section 3.2) is a 1x1 convolution to C' channels with batch norm and ReLU (`conv1`), row and column
    max pooling by blocks (Eq. 3 to 6), and a convolution with a global field for each of P and Q (`conv_p`,
    `conv_q`). P and Q are made non-negative and normalised, and multiply X as `P ⊗ I` and `Q ⊗ I`, which are never
    expanded (section 3.3). In 3D each frame has its own P and Q; with `temporal_groups`, a matrix over time (Eq. 7)
    follows, predicted from features that are averaged over the frames' positions and over blocks of frames
    (`conv_t`).

    Height, width and number of frames are free: if the blocks do not divide a side, their lengths differ by one (see
    `polyattn.nn.partition`), and the rows and columns of the resized matrix are normalised over the existing positions.

    `larger_maps` is the rule for maps larger than those of the training. "blocks": always S blocks, which grow with the
    map, as in the paper and in the image code. "slide": the rule of the video code, tested fully convolutionally on 256
    x 256 pixels. A side of L positions then has M = L // (L // S) blocks, for S = 7 of 28 or 14 positions 7, of 32 or
    16 positions 8. `conv_p` slides over the M pooled rows, and its M - S + 1 matrices are averaged where they overlap
    along the diagonal of P (M x M), whose other scores are 0; `conv_q` likewise. The rows' M also serves the columns if
    it divides the width. For M = S the rules agree, and `spec` is the computed function.

    Args:
        channels: channels of the input and the output.
        block_size: the number S of blocks along height and width, or one number for each. The sides themselves give
            the full-resolution transform.
        groups: number of channel groups, each with its own P and Q; 0 makes them the identity.
        predictor_channels: C'; by default the number of groups (without groups, of temporal groups).
        normalisation: "l1" (sigmoid, then rows of P and columns of Q sum to 1, Eq. 2) or "softmax".
        downsample: instead of resizing P and Q, average the map to one position per block, and upsample the output of
            `conv2` bilinearly (Table 2 counts the cost of this order).
        larger_maps: "blocks" or "slide"; see above.
        bias: whether the 1x1 convolutions before batch norms have biases.
        dim: 2, or 3 for (B, C, T, H, W).
        temporal_groups: number of channel groups, each with its own temporal matrix; 0 for none.
        temporal_size: the number of blocks along time.
        generator: random generator of the initial values.
        device, dtype: of the parameters and buffers, as in torch's modules.

    Shape:
        (B, channels, H, W) or (B, channels, T, H, W) to the same; contiguous or channels-last, which is kept.

    Raises:
        SizeError: contradictory arguments; at call time an input of another shape or dtype.

    >>> BATransform(8, block_size=3, groups=2)(torch.zeros(2, 8, 7, 9)).shape
    torch.Size([2, 8, 7, 9])
    """

    @as_factory
    def __init__(
        self,
        channels: int,
        *,
        block_size: int | tuple[int, int] = 7,
        groups: int = 4,
        predictor_channels: int | None = None,
        normalisation: str = "l1",
        downsample: bool = False,
        larger_maps: str = "blocks",
        bias: bool = True,
        dim: int = 2,
        temporal_groups: int = 0,
        temporal_size: int | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(channels, dim, (2, 3))
        rows, columns = (block_size, block_size) if isinstance(block_size, int) else block_size
        self.blocks = (whole("block_size", rows), whole("block_size", columns))
        self.groups, self.temporal_groups = groups, temporal_groups
        for word, number in (("groups", groups), ("temporal_groups", temporal_groups)):
            if number != 0:
                part_of("channels", channels, word, number)
        if dim == 2 and (temporal_groups or temporal_size is not None):
            raise SizeError("temporal_groups and temporal_size need dim=3")
        if temporal_groups and temporal_size is None:
            raise SizeError("temporal_groups needs temporal_size, the number of blocks along time")
        self.temporal_size = whole("temporal_size", temporal_size) if temporal_groups else None
        self.normalisation, self.downsample = one_of("normalisation", normalisation, ("l1", "softmax")), downsample
        self.larger_maps = one_of("larger_maps", larger_maps, ("blocks", "slide"))

        width = (groups or temporal_groups) if predictor_channels is None else predictor_channels
        self.predictor_channels = whole("predictor_channels", width) if groups or temporal_groups else 0
        conv, frame = CONVOLUTIONS[dim], (1,) * (dim - 2)
        self.conv1 = ConvNormReLU(dim, channels, width, bias) if groups or temporal_groups else None
        self.conv_p = conv(width, rows * rows * groups, (*frame, rows, 1)) if groups else None  # pyright: ignore[reportArgumentType]
        self.conv_q = conv(width, columns * columns * groups, (*frame, 1, columns)) if groups else None  # pyright: ignore[reportArgumentType]
        frames = self.temporal_size
        self.conv_t = conv(width, frames * frames * temporal_groups, (frames, 1, 1)) if frames else None  # pyright: ignore[reportArgumentType]
        self.conv2 = ConvNormReLU(dim, channels, channels, bias)
        self.conv2.ends = True

        self.spec = specification(dim, normalisation) if groups else IDENTITY[dim]
        # One plan per memory order: each contracts a map as it lies, without a transposed copy.
        self._spatial = {
            last: SpecFunction(part(specification(dim, normalisation, last), "y", "x", "p", "q"))
            for last in (False, True)
        }
        self._temporal = {last: SpecFunction(temporal_specification(last)) for last in (False, True)}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset to Kaiming normal weights by fan-out, biases 0, batch norms 1 and 0, as in the video code.

        The image code leaves biases at torch's default; only those of `conv_p` and `conv_q` change the output.
        """
        for layer in (self.conv1, self.conv2):
            if layer is not None:
                layer.reset_parameters()
        for conv in (self.conv_p, self.conv_q, self.conv_t):
            if conv is not None:
                kaiming(conv)

    @settling
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, [T,] H, W) to the same shape."""
        self.check(x)
        y = self.conv2(self.transform(turned_if_few(x)))
        whole = not self.downsample or (not is_open(*x.shape[-2:]) and y.shape[2:] == x.shape[2:])
        return laid_out_as(y, x) if whole else self._upsampled(y, x)

    @settling
    def transform(self, x: Tensor) -> Tensor:
        """Return P X Q, in 3D followed by the temporal matrix, without the convolution behind them.

        With `downsample` the result is P X Q of the averaged map, one position per block.
        """
        if self.conv1 is None:
            return x
        features, y = self.conv1(x), x
        if self.conv_p is not None:
            y = self._bilinear(x, *self._spatial_scores(features))
        if self.conv_t is not None:
            y = self._over_time(y, self._temporal_scores(features))
        return laid_out_as(y, x)

    def spec_parameters(self) -> dict[str, Tensor]:
        """Return the parameters of `spec`, with the batch norm in evaluation folded into `wf` and `bf`."""
        if self.conv1 is None or self.conv_p is None or self.conv_q is None:
            return {}
        weight, shift = folded(self.conv1.conv, self.conv1.norm)
        found = {"wf": weight.t(), "bf": shift}
        for letter, conv, side in (("p", self.conv_p, self.blocks[0]), ("q", self.conv_q, self.blocks[1])):
            assert conv.bias is not None
            shape = (self.groups, side, side)
            found[f"w{letter}"] = conv.weight.flatten(1).unflatten(1, (-1, side)).transpose(1, 2).unflatten(0, shape)
            found[f"b{letter}"] = conv.bias.unflatten(0, shape)
        return found

    def matrices(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return P and Q of an input per block, (B, [T,] groups, S, S); rows of P and columns of Q sum to 1.

        With `larger_maps="slide"`, (B, [T,] groups, M, M).

        Raises:
            SizeError: groups=0, so P and Q are not predicted.
        """
        self.check(x)
        if self.conv1 is None or self.conv_p is None:
            raise SizeError("with groups=0 there are no P and Q: they are the identity")
        p, q = self._spatial_scores(self.conv1(x))
        return self._normalized(p, -1), self._normalized(q, -2)

    def _largest(self, features: Tensor, axis: int) -> Tensor:
        # Overridden on shards, where the maximum is a reduction over them.
        return features.amax(axis)

    def _frame_means(self, features: Tensor) -> Tensor:
        return features.mean((-2, -1))

    def _sides(self, x: Tensor) -> tuple[int, ...]:
        """Return the height and width of the map."""
        return index(x.shape[-2]), index(x.shape[-1])

    def _blocks(self, x: Tensor) -> tuple[int, int]:
        """Return the numbers of rows of P and of columns of Q for a map."""
        if self.larger_maps == "blocks":
            return self.blocks
        if is_traced():
            raise SizeError(
                'larger_maps="slide" chooses the number of blocks by the size, which torch.jit.trace and the exporter '
                'on it cannot follow: use torch.export.export, torch.onnx.export(dynamo=True) or larger_maps="blocks"'
            )
        height, width = self._sides(x)[-2:]
        rows, columns = slid_blocks(height, self.blocks[0]), slid_blocks(width, self.blocks[1])
        # The video code derives one number of blocks for both axes from the height.
        return rows, rows if self.blocks[0] == self.blocks[1] and width % rows == 0 else columns

    def _spatial_scores(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the unnormalised P and Q: (B, [T,] G, S, S), or M x M if the predictor slides."""
        assert self.conv_p is not None
        assert self.conv_q is not None
        rows, columns = self._blocks(features)
        # Rows pool over the width first, then over the blocks of the height; a maximum of maxima is exact in any order.
        p = self.conv_p(_block_max(self._largest(features, -1), rows).unsqueeze(-1))
        q = self.conv_q(_block_max(self._largest(features, -2), columns).unsqueeze(-2))
        return self._matrices(p, self.blocks[0]), self._matrices(q, self.blocks[1])

    def _matrices(self, predicted: Tensor, side: int) -> Tensor:
        """Reshape (B, G S S, [T,] n, 1) or (..., 1, n) to (B, [T,] G, M, M), M = S + n - 1."""
        windows = predicted.flatten(-2).movedim(1, -1)
        return overlapped(windows.unflatten(-1, (self.groups, side, side)))

    def _temporal_scores(self, features: Tensor) -> Tensor:
        """Return the unnormalised temporal matrices (B, temporal groups, S, S)."""
        assert self.conv_t is not None
        frames = self.temporal_size
        assert frames is not None
        means = self._frame_means(features)
        pooled = open_mean(means, frames) if is_open(means.shape[-1]) else block_mean(means, frames)
        return self.conv_t(pooled[..., None, None]).flatten(1).unflatten(1, (self.temporal_groups, frames, frames))

    def _normalized(self, scores: Tensor, axis: int) -> Tensor:
        """Normalise scores to sums of 1 along an axis.

        Sigmoids over their sum equal the softmax of their logarithms, which cannot be 0/0.
        """
        # Float32 up to the last rounding: a logsigmoid rounded to 16 bits would shift the weights.
        wide = scores.float() if scores.dtype in NARROW else scores
        return torch.softmax(F.logsigmoid(wide) if self.normalisation == "l1" else wide, axis).to(scores.dtype)

    def _bilinear(self, x: Tensor, p: Tensor, q: Tensor) -> Tensor:
        if is_open(*x.shape[-2:]):
            return self._open_bilinear(x, p, q)
        height, width = index(x.shape[-2]), index(x.shape[-1])
        blocks = (index(p.shape[-1]), index(q.shape[-1]))
        if self.downsample and (height, width) != blocks:
            return self._product(self._averaged(x, blocks), self._normalized(p, -1), self._normalized(q, -2))
        rows, columns = cut(height, blocks[0]), cut(width, blocks[1])
        # Reordering makes each part a regular map of blocks; if the blocks divide both sides, nothing is copied.
        x = taken(taken(x, x.dim() - 2, rows.order), x.dim() - 1, columns.order)
        bands = []
        for a in rows.parts:
            # A part with some of the blocks takes their rows and columns, which no longer sum to 1.
            left = self._normalized(of_blocks(p, a), -1)
            band = [
                self._product(
                    x.narrow(-2, a.start, a.length).narrow(-1, b.start, b.length),
                    left,
                    self._normalized(of_blocks(q, b), -2),
                )
                for b in columns.parts
            ]
            bands.append(torch.cat(band, -1) if len(band) > 1 else band[0])
        y = torch.cat(bands, -2) if len(bands) > 1 else bands[0]
        return taken(taken(y, y.dim() - 2, rows.inverse), y.dim() - 1, columns.inverse)

    def _open_bilinear(self, x: Tensor, p: Tensor, q: Tensor) -> Tensor:
        """Compute the same for sides that a compiler or tracer keeps open."""
        if self.downsample:
            first, last = x.dim() - 2, x.dim() - 1
            averaged = open_mean(open_mean(x.transpose(first, last), p.shape[-1]).transpose(first, last), q.shape[-1])
            return self._product(averaged, self._normalized(p, -1), self._normalized(q, -2))
        rows = OpenCut.of(x.shape[-2], p.shape[-1], x.device)
        columns = OpenCut.of(x.shape[-1], q.shape[-1], x.device)
        frames = x if self.dim == 2 else x.transpose(1, 2).flatten(0, 1)
        p, q = (m if self.dim == 2 else m.flatten(0, 1) for m in (p, q))
        number, channels, height, width = frames.shape
        each = channels // self.groups
        y = frames.reshape(number, self.groups, each, height, width).permute(0, 1, 3, 2, 4)
        y = rows.mixed(y, p, self._rows_normalized).permute(0, 1, 4, 3, 2)
        y = columns.mixed(y, q.transpose(-2, -1), self._rows_normalized).permute(0, 1, 3, 4, 2)
        y = y.reshape(number, channels, height, width)
        return y if self.dim == 2 else y.reshape(x.shape[0], x.shape[2], channels, height, width).transpose(1, 2)

    def _rows_normalized(self, scores: Tensor) -> Tensor:
        return self._normalized(scores, -1)

    def _product(self, x: Tensor, p: Tensor, q: Tensor) -> Tensor:
        """Multiply (P ⊗ I) X (Q ⊗ I), for sides divisible by the matrices, in the map's memory order.

        On GPUs the fused kernel takes channels as the last axis, in any strides.
        """
        last = is_channels_last(x) or (x.is_cuda and has_triton())
        y = self._spatial[last]({"x": x.movedim(1, -1) if last else x, "p": p, "q": q})
        return y.movedim(-1, 1) if last else y

    def _averaged(self, x: Tensor, blocks: tuple[int, int]) -> Tensor:
        if self.dim == 2:
            return F.adaptive_avg_pool2d(x, blocks)
        return F.adaptive_avg_pool3d(x, (None, *blocks))

    def _upsampled(self, y: Tensor, like: Tensor) -> Tensor:
        mode = "bilinear" if self.dim == 2 else "trilinear"  # the number of frames is unchanged
        return laid_out_as(F.interpolate(y, like.shape[2:], mode=mode, align_corners=False), like)

    def _over_time(self, x: Tensor, scores: Tensor) -> Tensor:
        """Multiply (T ⊗ I) X over the frames (Eq. 7)."""
        assert self.temporal_size is not None
        if is_open(x.shape[2]):
            frames = OpenCut.of(x.shape[2], self.temporal_size, x.device)
            batch, channels, length, *sides = x.shape
            each = channels // self.temporal_groups
            y = x.reshape(batch, self.temporal_groups, each, length, sides[0] * sides[1]).permute(0, 1, 3, 2, 4)
            y = frames.mixed(y, scores, self._rows_normalized).permute(0, 1, 3, 2, 4)
            return y.reshape(batch, channels, length, *sides)
        last = is_channels_last(x)
        shape, frames = x.shape[3:], cut(index(x.shape[2]), self.temporal_size)
        x = taken(x, 2, frames.order)
        parts = []
        for a in frames.parts:
            # Height and width become one axis N: the matrix over time acts alike on all positions of a frame.
            some = x.narrow(2, a.start, a.length).flatten(3)
            mixed = self._temporal[last](
                {"x": some.movedim(1, -1) if last else some, "r": self._normalized(of_blocks(scores, a), -1)}
            )
            parts.append((mixed.movedim(-1, 1) if last else mixed).unflatten(3, shape))
        y = torch.cat(parts, 2) if len(parts) > 1 else parts[0]
        return taken(y, 2, frames.inverse)

    def extra_repr(self) -> str:
        shown = f"{self.channels}, block_size={self.blocks}, groups={self.groups}, {self.normalisation}"
        shown += f", larger_maps={self.larger_maps!r}" * (self.larger_maps != "blocks")
        over_time = f", temporal_groups={self.temporal_groups}, temporal_size={self.temporal_size}"
        return shown + over_time * (self.dim == 3)


def _block_max(x: Tensor, blocks: int) -> Tensor:
    return open_max(x, blocks) if is_open(x.shape[-1]) else block_max(x, blocks)


IDENTITY = {2: Spec("x[H,W,C]; y[i,j,c] = x[i,j,c]"), 3: Spec("x[T,H,W,C]; y[t,i,j,c] = x[t,i,j,c]")}
"""The specification without groups."""


@cache
def specification(dim: int, normalisation: str, channels_last: bool = True) -> Spec:
    """Return P X Q with the predictor, for blocks that divide the sides; in 3D for each frame.

    The batch norm in evaluation is folded into `wf` and `bf`.
    """
    t = "t," if dim == 3 else ""
    size = "T," if dim == 3 else ""

    def at(first: str, second: str, channel: str) -> str:
        return f"{t}{first},{second},{channel}" if channels_last else f"{channel},{t}{first},{second}"

    def normalized(name: str, over: str, letters: str, scores: str) -> str:
        if normalisation == "softmax":
            return f"{name}[{letters}] = softmax[{over}]({scores})"
        return f"{name}s[{letters}] = sigmoid({scores})\n{name}[{letters}] = normalize[{over}]({name}s[{letters}])"

    sides = f"{size}H,W,C" if channels_last else f"C,{size}H,W"
    return Spec(f"""
        x[{sides}]; where C = G*M; where H = S*U; where W = R*V; where m : K
        features[{t}i,j,m] = relu(x[{at("i", "j", "c")}]*wf[c,m] + bf[m])
        row[{t}i,m] = max[u,j](features[{t}(i u),j,m])
        col[{t}j,m] = max[i,v](features[{t}i,(j v),m])
        {normalized("p", "k", f"{t}g,i,k", f"row[{t}s,m]*wp[g,i,k,s,m] + bp[g,i,k]")}
        {normalized("q", "l", f"{t}g,l,j", f"col[{t}s,m]*wq[g,l,j,s,m] + bq[g,l,j]")}
        y[{at("(i u)", "(j v)", "(g n)")}] = p[{t}g,i,k]*x[{at("(k u)", "(l v)", "(g n)")}]*q[{t}g,l,j]
    """)


@cache
def temporal_specification(channels_last: bool = True) -> Spec:
    """Return the temporal matrix of each group over blocks of frames, with N positions per frame."""
    if channels_last:
        return Spec("x[T,N,C]; r[G,S,S]; where C = G*M; where T = S*U; y[(i u),a,(g n)] = r[g,i,k]*x[(k u),a,(g n)]")
    return Spec("x[C,T,N]; r[G,S,S]; where C = G*M; where T = S*U; y[(g n),(i u),a] = r[g,i,k]*x[(g n),(k u),a]")
