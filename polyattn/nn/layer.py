"""`Layer`: any specification as a trainable module, in the layout of the specification."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.language import value_of
from polyattn.language.conditions import is_condition
from polyattn.language.resolve import accesses_of
from polyattn.lowering.chunking import worthwhile_length
from polyattn.lowering.functions import FUNCTIONS, is_traced
from polyattn.nn.cached_steps import (
    CachedSteps,
    WindowRunner,
    sizes_of_step,
    steps_of,
    traced_step,
    window_runner,
)
from polyattn.nn.causal import ChunkRunner
from polyattn.nn.initialise import fan_in
from polyattn.nn.inputs import Inputs
from polyattn.nn.sizes import checked_sizes, parameter_sizes
from polyattn.nn.steps import State, Steps
from polyattn.nn.tracing import TracedWhole, recorded
from polyattn.planning.decoding import ordered_size
from polyattn.planning.search import checked_limit
from polyattn.runtime.function import SpecFunction, needs_gradient

SHORT, PIECE = 8, 64
"""Positions of a piece of a sequence below which it is run step by step, and of its chunks."""


class Layer(TracedWhole):
    """A specification as a module: inputs (B, *axes) to the output (B, *axes), on the plan for their shapes.

    Inputs come by position or by name and have the axes of the specification behind a batch axis. An input without the
    batch axis is shared by all samples; if no input has one, the output has none. A boolean input is a mask and keeps
    entries where it is True: the layer adds minus infinity elsewhere to the argument of a softmax, and multiplies by 0
    elsewhere outside of functions. A row of a softmax whose entries are all masked out is 0.

    Parameters have the names and shapes of the specification. They are drawn from a normal distribution of variance
    1 / fan-in. The fan-in is the product of the sizes of the indices shared with one neighbouring factor of the term
    (see `polyattn.nn.initialise.fan_in`). Scalar parameters have one entry and start at 1, and a parameter alone in its
    term (a bias) starts at 0. A parameter whose name the module uses itself, such as `half`, is stored with an
    underscore at its end.

    Prefer `Attention` for a layer on (B, channels, *spatial) with a residual.

    Args:
        spec: a specification or its text.
        sizes: the sizes of parameters, and those that no input's shape fixes; further sizes may be given, and are then
            required of the inputs.
        functions: the callable of each function of your own (`where phi : function`): a function of a tensor, entry by
            entry, that keeps its shape. It is not a submodule: parameters inside of it belong to whoever holds it.
        objective: objective of the plan, see `polyattn.plan`. "training" also plans the backward pass if gradients are
            required, and equals "forward" otherwise.
        order: the size whose positions come one by one in `step`, if conditions compare positions of several sizes.
        state: of `step`: "recurrence", "cache", or "auto"; see `polyattn.plan`.
        memory_limit: the most bytes that a call of the equation may allocate, and its backward pass, in float32; see
            `polyattn.plan`. A limit that no plan keeps to raises `BudgetError` at the call, and says the smallest.
        generator: random generator of the initial values.
        device, dtype: of the parameters, as in torch's modules.

    Shape:
        each input (B, *axes) or (*axes), in the order of the specification; the output alike.

    Raises:
        SpecError: the text is wrong, or `functions` does not fit the functions that it declares.
        SizeError: a missing or contradictory size, named; at call time a wrong number of inputs, unknown names, inputs
            that disagree on a size or on the batch, other dtypes than floating ones and masks.

    >>> pooling = Layer("x[N,C]; q[Q,C]; p[i,n] = softmax[n](q[i,c]*k[c,d]*x[n,d]); y[i,c] = p[i,n]*x[n,c]", {"C": 4})
    >>> pooling(torch.zeros(2, 9, 4), q=torch.zeros(3, 4)).shape  # the queries are shared by both samples
    torch.Size([2, 3, 4])
    """

    def __init__(
        self,
        spec: Spec | str,
        sizes: Mapping[str, int] | None = None,
        *,
        functions: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
        objective: str = "training",
        order: str | None = None,
        state: str = "auto",
        memory_limit: int | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.spec = Spec(spec) if isinstance(spec, str) else spec
        self.objective, self.order, self._state, self._dtype = objective, order, state, dtype
        self.memory_limit = checked_limit(memory_limit)
        self.sizes = checked_sizes(self.spec, sizes)
        self._register({"device": device, "dtype": dtype})
        # itemgetter fetches all parameters in one C call: `forward` runs it on every call.
        one, *_ = self._attributes or ("",)
        self._fetch = itemgetter(*self._attributes) if len(self._attributes) > 1 else _only(one)
        # Scalars are stored with shape (1,) and squeezed back to the specification's shape at each call.
        self._scalar = frozenset(i for i, name in enumerate(self.spec.parameters) if not self.spec.shape(name))
        self._function = SpecFunction(self.spec, self.sizes, objective, functions, memory_limit=self.memory_limit)
        self._causal = any(is_condition(a.tensor) for d in self.spec.core for a in accesses_of(d.body))
        self._chosen: dict[Any, tuple[int, ChunkRunner | WindowRunner | None]] = {}
        self._pieces: dict[Any, Any] = {}
        self._inputs = Inputs.of(self.spec, self.sizes, objective, self._function.functions, self.memory_limit)
        self.reset_parameters(generator)

    def _register(self, factory: Mapping[str, Any]) -> None:
        """Register the parameters, without values; their attributes' names are `_attributes`."""
        known = parameter_sizes(self.spec, self.sizes)
        self._attributes: tuple[str, ...] = tuple(map(self._attribute, self.spec.parameters))
        for name, attribute in zip(self.spec.parameters, self._attributes, strict=True):
            shape = [value_of(atoms, known) for atoms in self.spec.shape(name)]
            # Scalars are held as one entry: FSDP2 shards nothing else.
            self.register_parameter(attribute, nn.Parameter(torch.empty(shape or 1, **factory)))

    def _attribute(self, name: str) -> str:
        """Return the parameter's attribute name, with an underscore if the module already uses the name."""
        stem = name.rstrip("_")
        return f"{name}_" if hasattr(type(self), stem) or stem in self.RESERVED else name

    RESERVED = frozenset({"spec", "sizes", "objective", "order", "memory_limit", "training"})
    """Instance attributes that a parameter's name could be, unknown to `hasattr` on the class."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new initial values, as described above."""
        known = parameter_sizes(self.spec, self.sizes)
        with torch.no_grad():
            for name, parameter in self._parameters_of_spec():
                if parameter.is_meta:  # nothing to draw, and slow the first time
                    continue
                fan = fan_in(self.spec, name, known)
                if not self.spec.shape(name):
                    parameter.fill_(1.0)
                elif fan is None:
                    # A parameter alone in its term is a bias.
                    parameter.zero_()
                else:
                    parameter.normal_(0.0, fan**-0.5, generator=generator)

    def forward(self, *inputs: Tensor, **named: Any) -> Any:
        """Return the specification's output for its inputs, by position or by name.

        With `state=` the inputs are a piece of a sequence that goes on behind the positions of the state; the result is
        the output of the piece, and the states after it.
        """
        if "state" in named and "state" not in self.spec.inputs:
            state: Any = named.pop("state")
            names = list(self.spec.inputs)
            tensors = dict(zip(names, inputs, strict=False)) | named
            if len(inputs) > len(names) or set(tensors) != set(names):
                raise SizeError(f"this layer takes {', '.join(names)}; got {', '.join(tensors) or 'no tensor'}")
            return self._piece([tensors[n] for n in names], state)
        if not all(isinstance(given, Tensor) for given in (*inputs, *named.values())):
            call = recorded(self, *inputs, **named)
            if call is not None:
                return call  # pyright: ignore[reportReturnType]
        values = self._held()
        if self._scalar:
            values = self._in_shape(values)
        tensors, batched = self._inputs.read(inputs, named, values)
        if self._causal and all(batched):
            length, runner = self._chunks(tensors, values)
            if runner is not None:
                parameters = dict(zip(self.spec.parameters, values, strict=True))
                return runner.run(tensors, parameters, None, length)[0]
        return self._inputs.apply(self._function, tensors, batched, values)

    def _piece(self, inputs: list[Tensor], state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        """Return the output of a piece of a sequence and the states after it: in chunks, short ones step by step."""
        named = dict(zip(self.spec.inputs, inputs, strict=True))
        steps, values = self._steps(named, piece=True), self._in_shape(self._held())
        length = steps.check_piece(inputs)
        steps.check_state(state, inputs[0].shape[0])
        if isinstance(steps, CachedSteps):
            return steps.run(inputs, values, state)
        wide = inputs[0].dtype in (torch.float32, torch.float64) and not torch.compiler.is_compiling()
        if not wide or length < SHORT or not state:
            return steps.run(inputs, values, state)
        if "piece" not in self._pieces:
            known = {n: v for n, v in steps.plan.sizes.items() if n in self.spec.sizes.atomic}
            functions = self._function.functions
            self._pieces["piece"] = ChunkRunner(self.spec, steps.size, known, self.objective, functions)
        held = {n: s.to(inputs[0].dtype) for n, s in state.items()}
        parameters = dict(zip(self.spec.parameters, values, strict=True))
        return self._pieces["piece"].run(inputs, parameters, held, PIECE)

    def _chunks(
        self, tensors: Sequence[Tensor], values: Sequence[Tensor]
    ) -> tuple[int, ChunkRunner | WindowRunner | None]:
        """Return the length of chunks that are faster than masks here, and what runs them; None for masks."""
        first = tensors[0]
        if (
            torch.compiler.is_compiling()
            or is_traced()
            or self.objective == "as_written"
            or self.memory_limit is not None
            or first.dtype not in (torch.float32, torch.float64)
            or torch.is_autocast_enabled(first.device.type)
        ):
            return 0, None
        key = (*(x.shape for x in tensors), first.device.type, needs_gradient((*tensors, *values)))
        if key not in self._chosen:
            self._chosen[key] = self._chosen_chunks(tensors, needs_gradient((*tensors, *values)))
        return self._chosen[key]

    def _chosen_chunks(
        self, tensors: Sequence[Tensor], training: bool
    ) -> tuple[int, ChunkRunner | WindowRunner | None]:
        known: dict[str, int] = dict(self.sizes)
        for x, sizes in zip(tensors, self.spec.inputs.values(), strict=True):
            known |= {s: int(n) for s, n in zip(sizes, x.shape[1:], strict=True) if not s.isdigit()}
        known = self.spec.sizes.solve(known, self.spec.sizes.names)
        training = training and self.objective == "training"
        batch, device = max(1, tensors[0].shape[0]), tensors[0].device.type
        device = device if device in ("cpu", "cuda") else "cpu"
        length = worthwhile_length(self.spec, self.order, batch, training, device, "float32", *sorted(known.items()))
        if not length:
            functions, made = self._function.functions, self._pieces
            return 0, window_runner(self.spec, known, self.order, self.objective, functions, made)
        running = ordered_size(self.spec, self.order)
        atoms = {n: v for n, v in known.items() if n in self.spec.sizes.atomic and n != running}
        return length, ChunkRunner(self.spec, running, atoms, self.objective, self._function.functions)

    def _steps(self, inputs: Mapping[str, Tensor] | None = None, piece: bool = False) -> Steps:
        """Return the recurrence at the layer's sizes; others are read from inputs, of one position or of a piece."""
        shapes = {name: x.shape[1:] for name, x in (inputs or {}).items()}
        known = sizes_of_step(self.spec, self.sizes, self.order, shapes, piece)
        functions, made = self._function.functions, self._pieces
        return steps_of(self.spec, known, self.order, self._state, self.objective, functions, made)

    def initial_state(
        self,
        batch: int,
        *,
        length: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> State:
        """Return the states before the first position, by name: zeros (batch, *channels); a cache (batch, places,
        *channels) and its number of positions.

        Args:
            batch: number of samples.
            length: positions that a cache has places for, default 16; more are added when they are full, but not in a
                compiled step.
            dtype: of the states, default the parameters'; float32 in the place of 16 bits, but for a cache.
            device: default the parameters'.

        Raises:
            RecurrenceError: a specification without a recurrence.
            SizeError: a size of a state follows from neither `sizes` nor the parameters: give it to the layer.
        """
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise SizeError(f"`batch` is a number of samples, 1 or more, not {batch!r}")
        held = next(iter(self.parameters()), torch.empty(0, dtype=self._dtype))
        steps, dtype, device = self._steps(), dtype or held.dtype, device or held.device
        if isinstance(steps, CachedSteps):
            return steps.initial(batch, dtype, device, length)
        return steps.initial(batch, dtype, device)

    def step(self, *inputs: Any, state: Mapping[str, Tensor] | None = None, **named: Tensor) -> tuple[Tensor, State]:
        """Return the output of one position and the states after it: `y_t, state = layer.step(x_t, state)`.

        Args:
            inputs: of one position, (B, *axes) without the ordered axis, by position or by name; where only blocks are
                ordered, a block. Then the states.
            state: from `initial_state`, or from the step before; not changed.

        Raises:
            RecurrenceError: a specification without a recurrence.
            SizeError: an input or a state of another shape or batch, or one is missing.
        """
        if state is None and inputs and isinstance(inputs[-1], Mapping):
            *given, state = inputs
            inputs = tuple(given)
        if state is None:
            raise SizeError("a step takes the inputs of one position and then `state`, from initial_state or a step")
        names = list(self.spec.inputs)
        tensors = dict(zip(names, inputs, strict=False)) | named
        if len(inputs) > len(names) or set(tensors) != set(names):
            raise SizeError(f"a step takes {', '.join(names)} and the state; got {', '.join(tensors) or 'no tensor'}")
        given, values = [tensors[n] for n in names], self._in_shape(self._held())
        if torch.compiler.is_compiling():
            shapes = tuple([tuple(x.shape[1:]) for x in given])
            places = max([x.shape[1] for x in state.values() if x.dim() > 1], default=0)
            sizes, own = tuple(self.sizes.items()), self._function._own
            name = traced_step(self._function.text, sizes, shapes, self.order, self._state, self.objective, own, places)
            return getattr(FUNCTIONS, name)(given, values, state)
        return self._steps(tensors).step(given, values, state)

    def spec_parameters(self) -> dict[str, Tensor]:
        """Return the parameters of `spec` by name, in the shapes of `spec`."""
        held = self._held()[: len(self.spec.parameters)]
        return dict(zip(self.spec.parameters, self._in_shape(held), strict=True))

    def _in_shape(self, values: Sequence[Tensor]) -> list[Tensor]:
        return [p.squeeze(0) if i in self._scalar else p for i, p in enumerate(values)]

    def _held(self) -> Sequence[Any]:
        """Return the parameters, those of `spec` first.

        Reads `_parameters` directly: `nn.Module.__getattr__` takes several times as long.
        """
        if not torch.compiler.is_compiling():
            try:
                return self._fetch(self._parameters)
            except KeyError:  # a parametrization has replaced the parameter
                pass
        return [getattr(self, attribute) for attribute in self._attributes]

    def extra_repr(self) -> str:
        definitions = "; ".join(map(str, self.spec.statements.definitions))
        inputs = ", ".join(map(str, self.spec.statements.inputs))
        return f"{inputs}; {definitions}; sizes={self.sizes}"

    def _parameters_of_spec(self) -> list[tuple[str, nn.Parameter]]:
        return [(n, getattr(self, a)) for n, a in zip(self.spec.parameters, self._attributes, strict=False)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_chosen": {}, "_pieces": {}}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, parameter in self._parameters.items():
            given = state_dict.get(prefix + name)
            if parameter is not None and parameter.shape == (1,) and isinstance(given, Tensor) and given.dim() == 0:
                state_dict[prefix + name] = given.reshape(1)  # as in old checkpoints
        super()._load_from_state_dict(state_dict, prefix, *rest)


class _only:
    """`itemgetter` of at most one name, which returns a tuple too; a class, so that layers can be pickled."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, held: Mapping[str, Any]) -> tuple[Any, ...]:
        return (held[self.name],) if self.name else ()
