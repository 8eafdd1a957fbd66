"""Judge a candidate, any code on torch tensors, by running it with elements of a field in the place of floats."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polyattn.algebra import Spec
from polyattn.algebra.monomial import ROOT, power_value
from polyattn.errors import BudgetError, PolyattnError, ProofError, SizeError
from polyattn.language import value_of
from polyattn.lowering import lower
from polyattn.lowering import whole_plan as plan
from polyattn.proving.evaluation import Point, evaluate, modular
from polyattn.verifying.ring.field import Field, Unlucky, draw_field
from polyattn.verifying.ring.functions import NeedsExponentials
from polyattn.verifying.ring.kernels import kernels_in, loaded
from polyattn.verifying.ring.ring import KERNELS, Ring
from polyattn.verifying.ring.size import Size
from polyattn.verifying.ring.tensor import RingTensor
from polyattn.verifying.verification import Check, Difference, Verification
from polyattn.verifying.verify_target import BATCH, MAX_ENTRIES

SECURITY = 50
"""Points are added until a wrong candidate passes with a chance of at most 2 to minus this, at most 14 of them."""

FEWEST, MOST = 2, 14

BITS = 31
"""Bits of the primes."""

TRIES = 60
"""Primes and points drawn before a division by 0 counts as one at every point."""

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

SIGNALS = (Unlucky, NeedsExponentials)

FAR = 1e-6
"""A relative difference in float64 that rounding does not explain."""


@dataclass(frozen=True)
class Run:
    """The values of the candidate and of the specification at one point.

    Attributes:
        have, want: residues of the output and, by request, of the gradients, by name.
        ring: what was met on the way.
        size: bounds for the entries of the candidate less those of the specification.
        failure: why the candidate is without values.
    """

    have: Mapping[str, Tensor]
    want: Mapping[str, Tensor]
    ring: Ring
    size: Size
    failure: str = ""


@dataclass(frozen=True)
class Candidate:
    """Code, and how it takes the tensors of a specification.

    Attributes:
        call: a function of the specification's tensors, by name.
    """

    name: str
    call: Callable[[Mapping[str, Tensor]], Any]

    @classmethod
    def of(cls, code: Any, spec: Spec, sizes: Mapping[str, int], parameters: Mapping[str, str] | None) -> Candidate:
        """Find out how the code takes its tensors.

        Raises:
            ProofError: the code cannot be called, or `parameters` names tensors or parameters that are not there.
            SizeError: a parameter of a module has another shape than the specification says.
        """
        if isinstance(code, nn.Module):
            return cls(type(code).__name__, _module_call(code, spec, sizes, parameters))
        if not callable(code):
            raise ProofError(f"`candidate` must be a function or a module, not {type(code).__name__}")
        if parameters is not None:
            raise ProofError("`parameters` names a module's parameters, but `candidate` is a function, which gets them")
        names = (*spec.inputs, *spec.parameters)
        try:
            accepted = inspect.signature(code).parameters
        except (TypeError, ValueError):
            accepted = {}
        by_name = all(n in accepted and accepted[n].kind is not inspect.Parameter.POSITIONAL_ONLY for n in names)

        def call(tensors: Mapping[str, Tensor]) -> Any:
            arguments = {n: tensors[n] for n in names}
            return code(**arguments) if by_name else code(*arguments.values())

        return cls(getattr(code, "__name__", type(code).__name__), call)


def _module_call(
    module: nn.Module, spec: Spec, sizes: Mapping[str, int], parameters: Mapping[str, str] | None
) -> Callable[[Mapping[str, Tensor]], Any]:
    own = dict(module.named_parameters()) | dict(module.named_buffers())
    named = {t: t for t in spec.parameters if t in own} | dict(parameters or {})
    if unknown := sorted(set(named) - set(spec.parameters)):
        raise ProofError(
            f"`parameters` has {unknown[0]!r}, which is not a parameter of the specification; "
            f"these are {', '.join(spec.parameters) or 'none'}"
        )
    if missing := [t for t in spec.parameters if t not in named]:
        raise ProofError(
            f"`parameters` does not say which parameter of {type(module).__name__} is {missing[0]!r}; "
            f"it has {', '.join(own) or 'none'}"
        )
    if absent := [(t, n) for t, n in named.items() if n not in own]:
        tensor, name = absent[0]
        raise ProofError(
            f"`parameters` says {tensor!r} is {name!r}, which {type(module).__name__} does not have; "
            f"it has {', '.join(own) or 'none'}"
        )
    for tensor, name in named.items():
        expected, shape = _shape(spec, tensor, sizes), tuple(own[name].shape)
        if [n for n in shape if n != 1] != [n for n in expected if n != 1]:
            raise SizeError(f"`parameters`: {name!r} has shape {shape}, but {tensor!r} is {expected} at these sizes")

    def call(tensors: Mapping[str, Tensor]) -> Any:
        replaced = {n: tensors[t].reshape(own[n].shape) for t, n in named.items()}
        return torch.func.functional_call(module, replaced, tuple(tensors[t] for t in spec.inputs))

    return call


def judge(
    code: Any,
    spec: Spec,
    sizes: Mapping[str, int],
    *,
    parameters: Mapping[str, str] | None,
    derivative: bool,
    dtype: Any,
    seed: int,
    budget: int | None,
) -> Verification:
    """Judge a candidate at the modular level; see `verify`."""
    dtype = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype not in DTYPES:
        raise ProofError(f"`dtype` must be one of {', '.join(str(d).removeprefix('torch.') for d in DTYPES)}")
    made = plan(spec, sizes, "as_written", accuracy="any")
    sizes = made.sizes
    shapes = {t: _shape(spec, t, sizes) for t in (*spec.inputs, *spec.parameters, spec.output)}
    if (entries := BATCH * sum(map(prod, shapes.values()))) > MAX_ENTRIES:
        raise BudgetError(f"the tensors have {entries:,} entries; the limit of verify is {MAX_ENTRIES:,}")
    macs = -(-made.macs // made.batch) * BATCH
    if macs > (limit := 200_000_000 if budget is None else budget):
        raise BudgetError(
            f"the specification takes {macs:,} multiply-accumulates as written, in exact arithmetic; the budget is "
            f"{limit:,} (budget=... raises it)"
        )
    candidate = Candidate.of(code, spec, sizes, parameters)
    judging = _Judging(candidate, spec, sizes, shapes, lower(made), derivative, dtype, Random(seed))
    return judging.verification(seed)


@dataclass
class _Judging:
    """One judgement: the candidate at one point after another, until the chance of a false yes is small."""

    candidate: Candidate
    spec: Spec
    sizes: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    text: torch.fx.GraphModule
    derivative: bool
    dtype: torch.dtype
    random: Random

    def __post_init__(self) -> None:
        # Primes with exponentials and with roots are drawn once something has asked for them.
        self.exponentials = False
        self.roots: set[int] = set()
        # Roots of sizes are rational approximations among monomials, and symbols where the text is run.
        self.by_monomials = self.spec.is_polynomial and not any(
            size[0] == ROOT for term in self.spec.expansion().terms for size, _ in term.powers
        )

    def verification(self, seed: int) -> Verification:
        bound, points = Fraction(1), 0
        run = None
        while points < FEWEST or (bound > Fraction(1, 2**SECURITY) and points < MOST):
            run = self.run()
            points += 1
            for _ in range(TRIES if run.ring.divided_by_zero and not run.failure else 0):
                # A difference may be of an entry whose denominator happened to be 0.
                if all(torch.equal(run.have[n], run.want[n]) for n in run.want):
                    break
                run = self.run()
            if run.failure or any(not torch.equal(run.have[n], run.want[n]) for n in run.want):
                return self._finish(self._checks(run), run, points, None, seed)
            if unbounded := run.ring.exponentials or bool(run.ring.opaque):
                if points > FEWEST:
                    break
            else:
                bound *= min(Fraction(1), _chance(run.ring.field, run.size, self.roots))
        assert run is not None
        return self._finish(self._checks(run), run, points, None if unbounded else bound, seed)

    def run(self) -> Run:
        """Return the values at a fresh point modulo a fresh prime."""
        for _ in range(TRIES):
            field = draw_field(self.random, BITS, self.exponentials, sorted(self.roots))
            try:
                return self._at(field)
            except NeedsExponentials:
                self.exponentials = True
            except Unlucky as unlucky:
                if unlucky.root:
                    self.roots.add(unlucky.root)
        raise ProofError(f"the candidate or the specification divided by 0 at each of {TRIES} random points")

    def _at(self, field: Field) -> Run:
        ring = Ring(field)
        generator = torch.Generator().manual_seed(self.random.randrange(2**62))

        def unknowns(shape: tuple[int, ...]) -> RingTensor:
            values = torch.randint(field.prime, shape, generator=generator)
            powers = torch.randint(field.order, shape, generator=generator) if field.order else None
            return ring.variable(values, powers, self.dtype)

        tensors = {
            t: unknowns((BATCH, *self.shapes[t]) if t in self.spec.inputs else self.shapes[t])
            for t in (*self.spec.inputs, *self.spec.parameters)
        }
        seed = unknowns((BATCH, *self.shapes[self.spec.output])) if self.derivative else None
        want, wanted_size = self._text(ring, tensors, seed)
        opaque, ring.opaque = ring.opaque, set()
        try:
            with kernels_in(ring):
                have, size = self._outputs(ring, self.candidate.call, tensors, seed)
        except (PolyattnError, *SIGNALS):
            raise
        except Exception as error:
            # Triton wraps what its interpreter raises, once for each function around it.
            while type(error).__name__ == "InterpreterError" and isinstance(error.__cause__, Exception):
                error = error.__cause__
            if isinstance(error, (PolyattnError, *SIGNALS)):
                raise error from None
            lines = str(error).strip().splitlines() or [type(error).__name__]
            hint = " (to judge Triton kernels set TRITON_INTERPRET=1 before Triton is imported)" if loaded() else ""
            return Run({}, want, ring, Size(), f"it cannot run: {type(error).__name__}: {lines[0]}{hint}")
        ring.opaque |= opaque
        for name, array in want.items():
            if have[name].shape != array.shape:
                return Run(
                    {}, want, ring, Size(), f"its {name} has shape {tuple(have[name].shape)}, not {tuple(array.shape)}"
                )
        return Run(have, want, ring, size + wanted_size)

    def _outputs(
        self, ring: Ring, call: Callable[[Mapping[str, Tensor]], Any], tensors: Mapping[str, RingTensor],
        seed: RingTensor | None,
    ) -> tuple[dict[str, Tensor], Size]:  # fmt: skip
        if seed is None:
            with torch.no_grad(), ring:
                output = call(tensors)
            output = _tensor(ring, output)
            return {self.spec.output: output.values}, output.state.size
        with torch.enable_grad(), ring:
            leaves = {t: v.detach().requires_grad_() for t, v in tensors.items()}
            output = call(leaves)
            if not isinstance(output, Tensor):
                _tensor(ring, output)
            gradients = [None] * len(leaves)
            if output.requires_grad:
                gradients = torch.autograd.grad(output, list(leaves.values()), seed, allow_unused=True)
        found = {self.spec.output: _tensor(ring, output).values}
        size = _tensor(ring, output).state.size
        for (tensor, leaf), given in zip(leaves.items(), gradients, strict=True):
            gradient = ring.lift(torch.zeros(leaf.shape)) if given is None else _tensor(ring, given)
            found[f"d{tensor}"] = gradient.values
            size = size.join(gradient.state.size)
        return found, size

    def _text(
        self, ring: Ring, tensors: Mapping[str, RingTensor], seed: RingTensor | None
    ) -> tuple[dict[str, Tensor], Size]:
        """Return the specification's values: its monomials one by one, or, of functions, the text step by step."""
        if self.by_monomials and seed is None:
            arithmetic = modular(ring.field.prime)
            expansion = self.spec.expansion()
            samples = []
            for k in range(BATCH):
                arrays = {
                    t: self._atomic(t, (v.values[k] if t in self.spec.inputs else v.values).numpy())
                    for t, v in tensors.items()
                }
                samples.append(evaluate(expansion.terms, expansion.output, Point(self.sizes, arrays), arithmetic))
            shape = (BATCH, *self.shapes[self.spec.output])
            return {self.spec.output: torch.from_numpy(np.stack(samples)).reshape(shape)}, self._expanded_size()
        return self._outputs(ring, lambda given: self.text(*given.values()), tensors, seed)

    def _expanded_size(self) -> Size:
        """Return bounds for the monomials' sum: each counts once for every value of its indices."""
        size = Size()
        for term in self.spec.expansion().terms:
            number = Size.number(term.coefficient)
            for name, exponent in term.powers:
                number = number * Size.number(power_value(name, exponent, self.sizes))
            count = value_of((i.size for i in term.indices()), self.sizes)
            size = size + number * Size(len(term.factors), count.bit_length())
        return size

    def _atomic(self, tensor: str, array: np.ndarray) -> np.ndarray:
        return array.reshape([value_of([a], self.sizes) for atoms in self.spec.shape(tensor) for a in atoms])

    def _checks(self, run: Run) -> tuple[Check, ...]:
        if run.failure:
            return (Check(self.spec.output, failure=run.failure),)
        checks = []
        for name, want in run.want.items():
            have = run.have[name]
            wrong = (have != want).nonzero()
            entry = tuple(wrong[0].tolist()) if len(wrong) else ()
            if not len(wrong):
                checks.append(Check(name, entries=want.numel()))
            elif run.ring.opaque:
                checks.append(self._compared_in_floats(name, want.numel(), len(wrong)))
            else:
                values = str(have[entry].item()), str(want[entry].item())
                checks.append(
                    Check(
                        name, entries=want.numel(), difference=Difference(name, entry, *values, len(wrong), "candidate")
                    )
                )
        return tuple(checks)

    def _compared_in_floats(self, name: str, entries: int, count: int) -> Check:
        """Compare at a random point in float64, where functions that are opaque in the ring have their values."""
        generator = torch.Generator().manual_seed(self.random.randrange(2**62))
        tensors = {
            t: torch.randn((BATCH, *self.shapes[t]) if t in self.spec.inputs else self.shapes[t], generator=generator,
                           dtype=torch.float64)
            for t in (*self.spec.inputs, *self.spec.parameters)
        }  # fmt: skip
        if name == self.spec.output:
            with torch.no_grad():
                have, want = self.candidate.call(tensors), self.text(*tensors.values())
            far = ((have - want).abs() > FAR * want.abs().max().clamp_min(1e-30)).nonzero()
            if have.shape == want.shape and len(far):
                entry = tuple(far[0].tolist())
                values = f"{have[entry].item():.12g}", f"{want[entry].item():.12g}"
                return Check(name, entries=entries, difference=Difference(name, entry, *values, len(far), "candidate"))
        return Check(name, entries=entries - count, undecided=count, detail="equal only if laws of functions say so")

    def _finish(
        self, checks: tuple[Check, ...], run: Run, points: int, bound: Fraction | None, seed: int
    ) -> Verification:
        reference = "the expanded sum of products" if self.by_monomials and not self.derivative else "the text"
        method = (
            f"run on elements of the integers modulo {points} random prime{'s' if points > 1 else ''} of {BITS} "
            f"bits, a batch of {BATCH}, against {reference} there"
        )
        if run.ring.exponentials:
            method += ", exponentials as powers of an element of large order"
        if run.ring.opaque:
            method += f", {', '.join(sorted(run.ring.opaque))} as functions without laws"
        if bound is not None:
            method += f"; wrong code would pass with a chance of at most 2^-{_minus_log2(bound)}"
            if run.ring.kernels:
                method += f", if its kernels write quotients of polynomials of degree {KERNELS.degree} at most"
        elif all(checks):
            method += "; the chance that wrong code passes is not bounded"
        return Verification(
            "modular", str(self.spec), tuple(sorted(self.sizes.items())), "", method, checks, bound, seed,
            self.candidate.name,
        )  # fmt: skip


def _tensor(ring: Ring, output: Any) -> RingTensor:
    if isinstance(output, RingTensor):
        return output
    if isinstance(output, Tensor):
        return ring.lift(output)
    raise ProofError(
        f"`candidate` must return one tensor, not {type(output).__name__}; wrap it in a function that does"
    )


def _shape(spec: Spec, tensor: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(value_of(atoms, sizes) for atoms in spec.shape(tensor))


def _chance(field: Field, size: Size, roots: set[int]) -> Fraction:
    """Bound the chance that a difference that is not 0 is 0 at this random prime and point.

    With roots of primes as symbols the difference has a norm, the product of its conjugates, with integer coefficients.

    Args:
        size: bounds for the difference, whose numerator has to vanish.
    """
    conjugates = 2 ** len(roots)
    degree, bits = conjugates * size.degree, conjugates * (size.bits + 64)
    width = field.prime.bit_length()
    # Of the numbers of this width, more than 1 in 2 * width is a prime that is 3 modulo 4; each root halves them.
    primes = Fraction(2 ** (width - 1), 2 * width * conjugates * (width if field.order else 1))
    return Fraction(degree, field.prime) + Fraction(bits, (width - 1)) / primes


def _minus_log2(bound: Fraction) -> int:
    return (bound.denominator // max(bound.numerator, 1)).bit_length() - 1
