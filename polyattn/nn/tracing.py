"""`TracedWhole`: a layer as tracers see it. Its plan depends on the shapes, of which they know nothing."""

from __future__ import annotations

from typing import Any, NoReturn, cast

from torch import fx, nn

from polyattn.errors import PolyattnError


class TracedWhole(nn.Module):
    """A module that `torch.fx` records as one call, like torch's own modules, and that TorchScript refuses."""

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuse `torch.jit.script`, which calls this for every submodule.

        Raises:
            PolyattnError: always.
        """
        raise PolyattnError(
            f"torch.jit.script cannot compile {type(self).__name__}, whose plan is chosen from the input's shape in "
            "Python: use torch.export.export or torch.compile"
        )


def recorded(module: nn.Module, *inputs: Any, **named: Any) -> fx.Proxy | None:
    """Record one call of the module if a tracer of `torch.fx` passes a proxy among its inputs; else return None."""
    for given in (*inputs, *named.values()):
        if isinstance(given, fx.Proxy):
            tracer, name = cast(fx.Tracer, given.tracer), "layer"
            if tracer.root is module:
                # A graph cannot call the module that it belongs to, so the root becomes one around it.
                tracer.root = nn.Module()
                tracer.root.add_module(name, module)
            else:
                name = tracer.path_of_module(module)
            return tracer.create_proxy("call_module", name, inputs, named)
    return None
