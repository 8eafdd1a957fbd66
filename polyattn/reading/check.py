"""The guard of a reading: its text, evaluated at the example, against the code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import TYPE_CHECKING, Any

import torch

from polyattn.algebra import Spec
from polyattn.language import value_of
from polyattn.language.functions import KEEPING, kind
from polyattn.language.syntax import Access, Bracket, Call, Number, SizeRef, Sum, Term
from polyattn.reading.export import Exported

if TYPE_CHECKING:
    from polyattn.reading.reading import Reading

BATCH = "the batch"
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Layout:
    """How the code's tensors lie against the equation's: the cuts, the batch axes dropped from them, the output."""

    cuts: Sequence[Any]
    dropped: Mapping[Any, Sequence[int]]
    output: int


def agrees(exported: Exported, reading: Reading, layout: Layout) -> str:
    """Return "" if the equation has the code's values at the example, else how it differs."""
    tensors = {name: t.double() for name, t in reading.tensors.items()}
    batched: set[str] = set()
    inputs = list(reading.spec.inputs)
    for name, (_, held) in zip(inputs, exported.inputs.values(), strict=False):
        tensors[name] = _flat(held.double(), reading.batch.get(name))
        if name in reading.batch:
            batched.add(name)
    if layout.cuts:
        values = _interpreted(exported)
        for (tensor, node, entry, *_), name in zip(layout.cuts, (c.name for c in reading.cuts), strict=True):
            value = values[node] if entry is None else values[node][entry]
            where = layout.dropped.get(tensor, [])
            value = value.double().reshape([n for n in value.shape if n != 1])
            if where:
                value = value.movedim(where[0], 0)
                batched.add(name)
            tensors[name] = value
        wanted = values[exported.outputs[layout.output]]
    else:
        wanted = exported.call(*(t for _, t in exported.inputs.values()))[layout.output]
    wanted = _flat(wanted.double(), reading.batch.get(reading.spec.output))
    found = evaluate(reading.spec, reading.sizes, tensors, batched)
    found = found.reshape(wanted.shape) if found.numel() == wanted.numel() else found
    if found.shape != wanted.shape:
        return f"the shape {tuple(found.shape)} instead of {tuple(wanted.shape)}"
    slack = _slack(exported)
    finite = torch.isfinite(wanted)
    if not bool((torch.isfinite(found) == finite).all()):
        return "entries that are not finite"
    apart = (found - wanted)[finite].abs().max().item() if bool(finite.any()) else 0.0
    scale = max(1.0, wanted[finite].abs().max().item() if bool(finite.any()) else 0.0)
    return "" if apart <= slack * scale else f"off by {apart:.3g}"


def _slack(exported: Exported) -> float:
    """Return how far the code's rounding may take it, relative to the largest entry."""
    dtypes = {m.dtype for n in exported.graph.nodes if isinstance(m := n.meta.get("val"), torch.Tensor)}
    floating = {d for d in dtypes if d.is_floating_point}
    if floating <= {torch.float64}:
        return TOLERANCE
    return 1e-4 if floating <= {torch.float64, torch.float32} else 3e-2


def _flat(tensor: torch.Tensor, batch: int | None) -> torch.Tensor:
    """Return a tensor without its axes of length 1, its batch axis first."""
    if batch is not None:
        tensor = tensor.movedim(batch, 0)
        return tensor.reshape([tensor.shape[0], *(n for n in tensor.shape[1:] if n != 1)])
    return tensor.reshape([n for n in tensor.shape if n != 1])


def _interpreted(exported: Exported) -> dict[Any, Any]:
    """Return the real value of every node at the example."""
    values: dict[Any, Any] = {}
    given = dict(exported.inputs.values()) | {n: h for n, (_, _, h) in exported.stored.items()}
    with torch.no_grad():
        for node in exported.graph.nodes:
            if node in given:
                values[node] = given[node]
            elif node.op == "call_function":
                args = torch.fx.map_arg(node.args, values.__getitem__)
                kwargs = torch.fx.map_arg(node.kwargs, values.__getitem__)
                values[node] = node.target(*args, **kwargs)
    return values


def evaluate(
    spec: Spec, sizes: Mapping[str, int], tensors: Mapping[str, torch.Tensor], batched: set[str]
) -> torch.Tensor:
    """Return the output of a specification whose right-hand sides are sums of products, or functions of them.

    Args:
        tensors: the inputs and parameters; those in `batched` have a leading batch axis.
    """
    known = spec.sizes.solve(dict(sizes))
    values, batched = dict(tensors), set(batched)
    for definition, letters in zip(spec.core, spec.resolved.index_sizes, strict=True):
        lengths = {i: value_of(a, known) for i, a in letters.items()}
        one = _Definition(values, batched, lengths, known)
        body, target = definition.body, [i for s in definition.target.slots for i in s.indices]
        result, has_batch = one.call(body, target) if isinstance(body, Call) else one.sum(body, target)
        shape = [prod(lengths[i] for i in s.indices) for s in definition.target.slots]
        values[definition.name] = result.reshape([*result.shape[: int(has_batch)], *shape])
        if has_batch:
            batched.add(definition.name)
    return values[spec.output]


@dataclass
class _Definition:
    values: Mapping[str, torch.Tensor]
    batched: set[str]
    lengths: Mapping[str, int]
    known: Mapping[str, int]

    def call(self, call: Call, target: Sequence[str]) -> tuple[torch.Tensor, bool]:
        extra = [i for i in call.over if i not in target]
        argument, batched = self.sum(call.argument, [*target, *extra])
        axes = [([*target, *extra].index(i)) + int(batched) for i in call.over]
        name = call.function
        if kind(name) == KEEPING or name == "logsumexp":
            if name == "softmax":
                return torch.exp(argument - torch.logsumexp(argument, axes, keepdim=True)), batched
            if name == "logsumexp":
                return torch.logsumexp(argument, axes), batched
        functions: dict[str, Any] = {
            "max": lambda s: s.amax(axes),
            "min": lambda s: s.amin(axes),
            "gelu": torch.nn.functional.gelu,
            "gelu_tanh": lambda s: torch.nn.functional.gelu(s, approximate="tanh"),
            "silu": torch.nn.functional.silu,
            "softplus": lambda s: torch.logaddexp(s, torch.zeros_like(s)),
            "elu": torch.nn.functional.elu,
        }
        return functions.get(name, getattr(torch, name, torch.nn.Identity()))(argument), batched

    def sum(self, total: Sum, target: Sequence[str]) -> tuple[torch.Tensor, bool]:
        parts = [self.term(t, target) for t in total.terms]
        batched = any(b for _, b in parts)
        found: Any = 0
        for value, has in parts:
            found = found + (value if has or not batched else value.unsqueeze(0))
        shape = [*found.shape[: int(batched)], *(self.lengths[i] for i in target)]
        return found.expand(shape), batched

    def term(self, term: Term, target: Sequence[str]) -> tuple[torch.Tensor, bool]:
        scale = -1.0 if term.negative else 1.0
        operands: list[torch.Tensor] = []
        words: list[list[str]] = []
        for factor, divide in zip(term.factors, term.divides, strict=True):
            if isinstance(factor, Access):
                value, word = self.access(factor)
                operands.append(1 / value if divide else value)
                words.append(word)
            else:
                number = self.number(factor)
                scale = scale / number if divide else scale * number
        names = {
            i: chr(97 + k) if k < 26 else chr(39 + k) for k, i in enumerate(dict.fromkeys(i for w in words for i in w))
        }
        batched = BATCH in names
        kept = [i for i in target if i in names]
        right = ([BATCH] if batched else []) + kept
        if operands:
            text = ",".join("".join(names[i] for i in w) for w in words) + "->" + "".join(names[i] for i in right)
            value = scale * torch.einsum(text, *operands)
        else:
            value = torch.tensor(scale, dtype=torch.float64)
        shape = [*value.shape[: int(batched)], *(self.lengths[i] if i in names else 1 for i in target)]
        return value.reshape(shape), batched

    def access(self, access: Access) -> tuple[torch.Tensor, list[str]]:
        if access.tensor.startswith("["):
            held = self.holds(access)
            return held.reshape([self.lengths[i] for i in access.indices]), list(access.indices)
        value = self.values[access.tensor]
        lead = [value.shape[0]] if access.tensor in self.batched else []
        value = value.reshape([*lead, *(self.lengths[i] for i in access.indices)])
        return value, [BATCH] * len(lead) + list(access.indices)

    def holds(self, access: Access) -> torch.Tensor:
        """Return 1 where a condition such as `[{0}-2*{1}+1==0]` holds, else 0, with an axis for each of its slots."""
        shape = [prod(self.lengths[i] for i in s.indices) for s in access.slots]
        places = [torch.arange(n).reshape([-1] + [1] * (len(shape) - 1 - k)) for k, n in enumerate(shape)]
        match = re.fullmatch(r"\[(.+?)(<=|>=|==|!=|<|>)(.+)\]", access.tensor)
        assert match is not None
        left, right = (self.place(text, places) for text in match.group(1, 3))
        relation = {"<=": left <= right, ">=": left >= right, "<": left < right, ">": left > right}
        relation |= {"==": left == right, "!=": left != right}
        return relation[match[2]].expand(shape).double()

    def place(self, text: str, places: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return an integer combination of places, sizes and numbers."""
        found = torch.zeros((), dtype=torch.long)
        for term in re.findall(r"[+-]?[^+-]+", text):
            product = torch.tensor(-1 if term[0] == "-" else 1)
            for part in term.strip("+-").split("*"):
                if part.startswith("{"):
                    product = product * places[int(part[1:-1])]
                else:
                    product = product * (int(part) if part.isdigit() else self.known[part])
            found = found + product
        return found

    def number(self, factor: Any) -> float:
        if isinstance(factor, Number):
            return float(factor.value)
        if isinstance(factor, SizeRef):
            number = int(factor.size) if factor.size.isdigit() else self.known[factor.size]
            return sqrt(number) if factor.root else float(number)
        if isinstance(factor, Bracket):
            raise TypeError("a bracket")
        return self.constant(factor)

    def constant(self, factor: Any) -> float:
        if isinstance(factor, Call) and factor.function == "sqrt":
            return sqrt(float(sum((self.term(t, [])[0] for t in factor.argument.terms), torch.tensor(0.0))))
        raise TypeError(f"a factor {factor}")
