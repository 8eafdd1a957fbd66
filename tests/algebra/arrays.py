"""Numbers for specifications, and their comparison."""

from math import prod

import numpy as np

from polyattn import Spec


def tensors_of(spec: Spec, sizes: dict[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    """A random array for every input and parameter, the same one for the same name and shape; none near zero."""
    known = spec.sizes.solve(sizes)
    arrays = {}
    for name in sorted({*spec.inputs, *spec.parameters}):
        shape = [prod(int(a) if a.isdigit() else known[a] for a in atoms) for atoms in spec.shape(name)]
        generator = np.random.default_rng([seed, *name.encode(), *shape])
        arrays[name] = generator.uniform(0.5, 1.5, shape) * generator.choice([-1, 1], shape)
    return arrays


def evaluated(spec: Spec, sizes: dict[str, int], seed: int = 0) -> np.ndarray:
    return spec.evaluate(tensors_of(spec, sizes, seed), {s: n for s, n in sizes.items() if s in spec.sizes.names})


def agree(one: np.ndarray, other: np.ndarray) -> bool:
    scale = max(1.0, np.abs(one).max(initial=0), np.abs(other).max(initial=0))
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-9, atol=1e-9 * scale))
