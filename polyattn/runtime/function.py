"""`SpecFunction`: a specification as a function of tensors, on the plan for the shapes that come."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from operator import attrgetter, index
from typing import Any

import torch
from torch import Tensor

from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.language.sizes import is_name, number_of
from polyattn.lowering import FUNCTIONS, calibrated, kind, products_dtype, version
from polyattn.lowering.functions import is_static, is_traced, named, untraced
from polyattn.planning import BATCH, Plan
from polyattn.planning.search import checked_limit
from polyattn.runtime.layouts import channels_first, positions_first
from polyattn.runtime.plan_cache import (
    NOMINAL_BATCH,
    Family,
    family_of,
    limited,
    reads,
    traced,
)

transforms = torch._C._are_functorch_transforms_active
"""Whether a transform of `torch.func` is active."""
shape_of, requires_grad = attrgetter("shape"), attrgetter("requires_grad")

SHAPES = 512
"""Shapes of which a function remembers the program; the oldest is forgotten first."""
NOMINAL_LENGTH, NOMINAL_COUNT = 28, 784
"""Lengths that a plan is made for where a compiler keeps them symbolic: of one axis, and of all positions."""


class SpecFunction:
    """A specification as a function of its inputs and parameters by name; blocks call it in `forward`.

    Args:
        spec: with any number of inputs.
        sizes: those that the inputs' shapes do not fix. Sizes that the specification has not are left out, so that its
            parts take those of the whole.
        objective: which plan; see `polyattn.plan`. "training" plans the backward pass too where gradients are wanted,
            and is "forward" where they are not.
        functions: the callables of functions of the user's own, by name; see `polyattn.lower`.
        accuracy: see `polyattn.plan`; "any" for a text without an author's order.
        memory_limit: the most bytes that a call may allocate, and its backward pass; see `polyattn.plan`. Compilers
            and tracers, which allocate in their own ways, leave it aside.

    >>> function = SpecFunction(Spec("x[N,C]; y[a,b] = 1/N*x[a,d]*w[d,b]"))
    >>> function({"x": torch.ones(2, 5, 3), "w": torch.eye(3)}).shape
    torch.Size([2, 5, 3])
    """

    def __init__(
        self,
        spec: Spec,
        sizes: Mapping[str, int] | None = None,
        objective: str = "training",
        functions: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
        accuracy: str = "written",
        memory_limit: int | None = None,
    ):
        self.memory_limit = checked_limit(memory_limit)
        self.spec, self.text, self.objective = spec, str(spec), objective
        self.functions, self.accuracy = dict(functions or {}), accuracy
        spec.check_functions(self.functions)
        self._own = _named(self.functions)
        self.sizes = tuple((name, size) for name, size in (sizes or {}).items() if name in spec.sizes.names)
        self.position_sizes = tuple(size for shape in spec.inputs.values() for size in shape)
        self.inputs, self.parameters = tuple(spec.inputs), tuple(spec.parameters)
        self._names = (*self.inputs, *self.parameters)
        self._slots = tuple(map(spec.shape, self._names))
        self._reads = reads(spec, self.sizes)
        known = spec.sizes.solve(dict(self.sizes))
        self._fixed = {size: known[size] for size in spec.sizes.atomic if size in known}
        self._made: dict[Hashable, Callable[..., Tensor]] = {}

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The output (B, *axes) for inputs (B, *axes) and parameters.

        Raises:
            SizeError: a tensor's shape contradicts another one's or the given sizes.
        """
        return self.apply(*[tensors[name] for name in self._names])

    def apply(self, *tensors: Tensor) -> Tensor:
        """The same for the inputs and then the parameters, each in the order of the specification.

        A shape that came before finds its function here; its key is all that a plan depends on.
        """
        if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
            return self._traced(tensors)(*tensors)
        first = tensors[0]
        try:
            key = (
                first.stride(),
                first.device,
                torch.is_grad_enabled() and (transforms(), *map(requires_grad, tensors)),
                version(),
                products_dtype(first),
                *map(shape_of, tensors),
            )
            function = self._made.get(key)
        except TypeError:  # lengths that are symbols
            return self._traced(tensors)(*tensors)
        if function is None:
            function = self._kept(key, self._function_for(tensors))
        return function(*tensors)

    def of_map(self, x: Tensor, axes: int, parameters: Sequence[Tensor], check: Callable[[Tensor], None]) -> Tensor:
        """The output (B, C, *positions) for one input of this layout, and parameters; a warm call passes few frames.

        Args:
            axes: the specification's axes of positions. With one, a map may have any number.
            check: refuses maps of another shape or dtype; a shape that came before has passed it.
        """
        function, key = None, None
        if not torch.compiler.is_compiling() and torch._C._get_tracing_state() is None:
            training = torch.is_grad_enabled() and (transforms(), x.requires_grad, *map(requires_grad, parameters))
            narrow = x.is_cuda and products_dtype(x)
            key = (x.stride(), x.dtype, x.device, training, version(), narrow, x.shape, *map(shape_of, parameters))
            try:
                function = self._made.get(key)
            except TypeError:  # lengths that are symbols
                key = None
        if function is None:
            check(x)
            rows = positions_first(x, axes)
            if key is None:
                return channels_first(self.apply(rows, *parameters), x, axes)
            function = self._kept(key, self._function_for((rows, *parameters), axes))
        return function(x, *parameters)

    def _kept(self, key: Hashable, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        if len(self._made) >= SHAPES:
            self._made.pop(next(iter(self._made)), None)
        self._made[key] = function
        return function

    def _function_for(self, tensors: Sequence[Tensor], positions: int | None = None) -> Callable[..., Tensor]:
        """Return the function for the shapes of tensors, which need not have come before.

        Args:
            positions: if given, the function is of maps; see `of_map`.

        Raises:
            SizeError: the shapes contradict each other or the given sizes.
            BudgetError: no plan keeps to the memory limit.
        """
        if self.memory_limit is None:
            return self._family(tensors).function(self._sizes(tensors), positions)
        objective, device, channels_first, dtype = self._how(tensors)
        how = (objective, channels_first, dtype, calibrated(kind(device), dtype), self.accuracy, self.memory_limit)
        return limited(self.text, self._own, pairs(self._sizes(tensors)), *how, positions)[1]

    def _family(self, tensors: Sequence[Tensor]) -> Family:
        return family_of(self.text, self.sizes, self._own, *self._how(tensors), self.accuracy, self._wanted(tensors))

    def _wanted(self, tensors: Sequence[Tensor]) -> tuple[str, ...]:
        """Return the tensors that get gradients, if others are frozen; else nothing."""
        # Transforms wrap tensors, whose flags need not say what is differentiated.
        if self.objective != "training" or not torch.is_grad_enabled() or transforms():
            return ()
        wanted = tuple(name for name, t in zip(self._names, tensors, strict=True) if t.requires_grad)
        return wanted if len(wanted) < len(tensors) else ()

    def _how(self, tensors: Sequence[Tensor]) -> tuple[str, str, bool, str]:
        """Return the key of a plan besides sizes: objective, device, memory layout and dtype."""
        first = tensors[0]
        objective = "forward" if self.objective == "training" and not needs_gradient(tensors) else self.objective
        return objective, first.device.type, _lies_channels_first(first), products_dtype(first)

    def _sizes(self, tensors: Sequence[Tensor]) -> dict[str, int]:
        """Return the numbers of all sizes, the batch included.

        Raises:
            SizeError: the shapes contradict each other or the given sizes.
        """
        inputs = tensors[: len(self.inputs)]
        known = dict(self.sizes)
        lengths = [index(n) for x in inputs for n in x.shape[1:]]
        for name, length in zip(self.position_sizes, lengths, strict=True):
            if not (name.isdigit() or is_name(name)):
                continue  # a combination such as 2*N-1 is checked when N is known
            number = int(name) if name.isdigit() else known.setdefault(name, length)
            if number != length:
                raise SizeError(f"size {name} is {number} for this layer, but {length} in the input")
        table = self.spec.sizes
        solved = table.solve(known, table.names)
        self._check(tensors, solved)
        return {**solved, BATCH: max(1, index(inputs[0].shape[0]))}

    def _check(self, tensors: Sequence[Tensor], known: Mapping[str, Any]) -> None:
        """Check that every tensor has the shape that sizes give it; under a compiler, as guards."""
        for position, (tensor, slots) in enumerate(zip(tensors, self._slots, strict=True)):
            batched = position < len(self.inputs)
            shape, wrong = tensor.shape[1:] if batched else tensor.shape, False
            for length, atoms in zip(shape, slots, strict=False):  # a loop, which compilers unroll
                wrong = wrong or length != times(atoms, known)
            if wrong or len(shape) != len(slots):
                wanted = ", ".join(["B"] * batched + [str(times(s, known)) for s in slots])
                name = self._names[position]
                raise SizeError(f"'{name}' has shape {tuple(tensor.shape)}, but this layer needs ({wanted})")

    def _traced(self, tensors: Sequence[Tensor]) -> Callable[..., Tensor]:
        """Return the function for a compiler, an exporter or a tracer, with symbolic lengths read from shapes.

        Raises:
            SizeError: the shapes contradict each other or the given sizes.
        """
        objective, device, channels_first, dtype = self._how(tensors)
        if is_traced():
            with untraced():
                sizes = self._sizes(tensors)
            # A trace has one program for all that is done with it, also without gradients.
            objective = "forward" if objective == "training" else objective
            read = tuple(r.size for r in self._reads)
            how = (objective, device, channels_first, dtype, True, self.accuracy)
            name = traced(self.text, self.sizes, self._own, pairs(sizes), read, *how)
            return getattr(FUNCTIONS, name)
        planned, lengths, read = dict(self._fixed), dict(self._fixed), []
        for size, tensor, slot, others in self._reads:
            length = tensors[self.inputs.index(tensor)].shape[slot + 1]
            divisor = times(others, lengths)
            lengths[size] = length // divisor if others else length
            if is_static(length):
                planned[size] = index(length) // times(others, planned)
            else:
                alone = len(self.spec.inputs[tensor]) == 2 and not others
                planned[size] = hint(lengths[size], NOMINAL_COUNT if alone else NOMINAL_LENGTH)
                read.append(size)
        if len(planned) < len(self.spec.sizes.atomic):
            planned = self._sizes(tensors)  # sizes that do not follow one by one are numbers
        else:
            self._check(tensors, lengths)
        batch = tensors[0].shape[0]
        planned[BATCH] = max(1, index(batch)) if is_static(batch) else hint(batch, NOMINAL_BATCH)
        eager = torch.compiler.is_exporting()
        known = pairs(planned)
        how = (objective, device, channels_first, dtype, eager, self.accuracy)
        name = traced(self.text, self.sizes, self._own, known, tuple(read), *how)
        return getattr(FUNCTIONS, name)

    def plan(self, sizes: Mapping[str, int], batch: int = 1, gradient: bool = True) -> Plan:
        """Return the plan that runs on the processor for maps of these sizes with the channels first in memory.

        Args:
            sizes: the sizes that the function has not been given; others replace its own.
            gradient: whether a backward pass can follow.

        Raises:
            SizeError: a size is missing, unknown or contradictory.
        """
        fixed = tuple((name, sizes.get(name, size)) for name, size in self.sizes)
        table = self.spec.sizes
        known = {**table.solve({**dict(fixed), **sizes}, table.names), BATCH: batch}
        objective = "forward" if self.objective == "training" and not gradient else self.objective
        if self.memory_limit is not None:
            how = (True, "float32", calibrated("cpu", "float32"), self.accuracy, self.memory_limit)
            return limited(self.text, self._own, pairs(known), objective, *how)[0]
        return family_of(self.text, fixed, self._own, objective, "cpu", True, "float32").chosen(known)[2]

    def __getstate__(self) -> dict[str, Any]:
        """Without the functions, which are made again where they are needed."""
        return {**self.__dict__, "_made": {}, "_own": ()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._own = _named(self.functions)


def _named(functions: Mapping[str, Callable[[Tensor], Tensor]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, named(function)) for name, function in sorted(functions.items()))


def times(atoms: Sequence[str], known: Mapping[str, Any]) -> Any:
    """Return the product of atomic sizes, which may be symbols to a compiler."""
    product: Any = 1
    for atom in atoms:
        number = number_of(atom, known)
        product = product * number
    return product


def pairs(sizes: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Return sizes as a value that compilers know as a constant."""
    return tuple([(name, number) for name, number in sizes.items()])


def hint(length: Any, nominal: int) -> int:
    """Return the length of a tracer's example, where it may be known without a guard, else the nominal one."""
    node = None if torch.compiler.is_dynamo_compiling() else getattr(length, "node", None)
    found = getattr(node, "hint", None)
    return found if type(found) is int else nominal


def needs_gradient(tensors: Sequence[Tensor]) -> bool:
    """Whether a backward pass can follow; only then one is planned."""
    if torch.is_grad_enabled():
        for tensor in tensors:  # any() of a generator takes a time that small layers notice
            if tensor.requires_grad:
                return True
    return False


def _lies_channels_first(x: Tensor) -> bool:
    """Whether a tensor (B, *positions, C) is a view of one that lies in memory as (B, C, *positions)."""
    first, strides = False, x.stride()
    # A compiler with symbolic strides decides at `if`, where it would otherwise pass a symbol on.
    if len(strides) > 2 and strides[-1] > strides[1]:
        first = True
    return first
