"""Trained modules of NL's kind: their channel core, and a factored layer as their replacement."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from polyattn.algebra import NL_PATTERN, Spec
from polyattn.algebra.core import pattern_text
from polyattn.errors import FittingError, NotPolynomialError
from polyattn.fitting.factorise import Factorisation
from polyattn.nn import Attention, NonLocal


class FactoredNonLocal(nn.Module):
    """`x + norm(y)`, as `NonLocal` with the dot product, for a factored layer y with biases.

    Shape:
        (B, channels, *positions) to the same.
    """

    def __init__(self, attention: Attention, norm: nn.Module | None):
        super().__init__()
        self.attention, self.norm = attention, norm

    def forward(self, x: Tensor) -> Tensor:
        y = self.attend(x)
        return x + (y if self.norm is None else self.norm(y))

    def attend(self, x: Tensor) -> Tensor:
        """Compute the residual before its norm."""
        return self.attention(x)


@dataclass(frozen=True, eq=False)
class TrainedLayer:
    """A module of NL's kind as a channel core.

    Attributes:
        module: the module.
        spec: its function of the input, before residual and norm.
        sizes: the sizes of its parameters.
        core: T[b,d,f,h] in float64; with biases d, f and h have the constant 1 behind the channels.
        mean: whether it divides by the number of positions.
    """

    module: Attention | NonLocal
    spec: Spec
    sizes: dict[str, int]
    core: np.ndarray
    mean: bool

    def __repr__(self) -> str:
        return f"TrainedLayer({type(self.module).__name__} of {self.channels} channels, mean={self.mean})"

    @property
    def channels(self) -> int:
        return self.core.shape[0]

    @property
    def bias(self) -> bool:
        return self.core.shape[1] > self.core.shape[0]

    @torch.no_grad()
    def attend(self, x: Tensor) -> Tensor:
        """Compute the output before residual and norm, in x's precision."""
        # Values are drawn first and then overwritten: from a generator, so that the global one does not move.
        made = Attention(
            self.spec, self.channels, sizes=self.sizes, residual=False, generator=torch.Generator()
        ).to(x)  # fmt: skip
        for name, parameter in made._parameters_of_spec():
            parameter.copy_(self.module.spec_parameters()[name])
        return made(x)

    def replaced_by(self, found: Factorisation) -> nn.Module:
        """Build the module with this factorisation as its polynomial: the same residual, norm and dtype."""
        old = self.module
        like = next(old.parameters())
        residual = isinstance(old, Attention) and old.alpha is not None
        made = Attention(found.spec, self.channels, residual=residual, generator=torch.Generator())
        made = made.to(device=like.device, dtype=like.dtype)
        with torch.no_grad():
            for name, parameter in made._parameters_of_spec():
                parameter.copy_(torch.from_numpy(found.parameters[name]))
            if isinstance(old, Attention):
                made.objective = old.objective
                if made.alpha is not None and made.beta is not None and old.alpha is not None and old.beta is not None:
                    made.alpha.copy_(old.alpha)
                    made.beta.copy_(old.beta)
                return made.train(old.training)
            # The output's bias is added after the polynomial, so the core does not contain it.
            if self.bias and old.out.bias is not None:
                dict(made._parameters_of_spec())["bo"].copy_(old.out.bias)
        made.training = old.training
        # A copy: the replaced module keeps its own norm, and may be trained further.
        factored = FactoredNonLocal(made, copy.deepcopy(old.norm))
        factored.training = old.training
        return factored


MOST_BYTES = 2**30
"""Greatest size of a core that is formed, in float64."""


def _check_width(channels: int) -> None:
    """Check that the core of so many channels can be formed.

    Raises:
        FittingError: it is too large.
    """
    size = 8 * channels**4
    if size > MOST_BYTES:
        widest = int((MOST_BYTES / 8) ** 0.25)
        raise FittingError(
            f"the core of {channels} channels has {channels}^4 entries, {size / 2**30:,.1f} GiB, and fits form it "
            f"whole: they take layers of up to {widest} channels"
        )


def trained_layer(module: nn.Module) -> TrainedLayer:
    """Extract the channel core of a module.

    Raises:
        FittingError: it is not an `Attention` or `NonLocal` of NL's kind; says why.
    """
    if isinstance(module, Attention):
        _check_width(module.channels)
        parameters = {n: p.detach().cpu().double().numpy() for n, p in module.spec_parameters().items()}
        try:
            found = module.spec.channel_cores(module.channels, parameters)
        except NotPolynomialError as error:
            raise FittingError(f"the layer is not of NL's kind: {error}") from error
        # A pattern of NL's kind may still carry another scale than 1/N.
        if [c.pattern for c in found] != [NL_PATTERN] or found[0].powers not in ((), (("N", -1),)):
            raise FittingError(
                f"the layer is not of NL's kind, {pattern_text(NL_PATTERN)}; found {'; plus '.join(map(str, found))}"
            )
        return TrainedLayer(module, module.spec, dict(module.sizes), found[0].core, bool(found[0].powers))
    if not isinstance(module, NonLocal):
        raise FittingError(f"only Attention and NonLocal are taken apart; found {type(module).__name__}")
    if module.similarity != "dot_product" or module.sub_sample > 1:
        raise FittingError(
            'NonLocal is a polynomial of NL\'s kind with similarity="dot_product" and sub_sample=1; found '
            f'similarity="{module.similarity}", sub_sample={module.sub_sample}'
        )
    heads, inner = module.heads, module.inner_channels
    _check_width(module.spec_parameters()["wq"].shape[0])
    found = {n: p.detach().cpu().double() for n, p in module.spec_parameters().items()}
    biased = "bq" in found
    query, key, value = (
        (torch.cat([found[f"w{n}"], found[f"b{n}"][None]]) if biased else found[f"w{n}"]).unflatten(1, (heads, -1))
        for n in "qkv"
    )
    out = found["wo"].unflatten(0, (heads, -1))
    # Heads are summed: together they are one core.
    core = torch.einsum("djr,fjr,hjs,jsb->bdfh", query, key, value, out).numpy()
    sizes = {"J": heads, "D": inner}
    return TrainedLayer(module, module.spec, sizes, core, True)


def layers_of(model: nn.Module) -> dict[str, TrainedLayer]:
    """Find the modules of NL's kind in a network, by name; the model itself has the name "".

    Raises:
        FittingError: the network does not have one; names its attention modules, and why they do not fit.
    """
    found, reasons = {}, []
    for name, module in model.named_modules():
        if isinstance(module, Attention | NonLocal):
            try:
                found[name] = trained_layer(module)
            except FittingError as error:
                reasons.append(f"{name or 'the model'}: {error}")
    if not found:
        why = "; ".join(reasons) or "it has no Attention and no NonLocal"
        raise FittingError(f"there is no layer of NL's kind in {type(model).__name__}: {why}")
    return found
