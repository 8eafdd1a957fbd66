"""Layers of the whole catalogue at sizes small enough to differentiate numerically, and their reference."""

import numpy as np
import torch
from torch import Tensor

from polyattn import Spec, catalog
from polyattn.nn import Attention
from polyattn.nn.sizes import layout, missing_sizes

CHANNELS = 4
WITH_FUNCTIONS = {
    "e_nl_softmax": catalog.e_nl(softmax=True),
    "nl_softmax": Spec("""
        x[N,C]; where r : R
        query[a,r] = x[a,d]*wq[d,r]
        key[e,r] = x[e,f]*wk[f,r]
        share[a,e] = softmax[e](query[a,r]*key[e,r])
        y[a,b] = share[a,e]*x[e,h]*wg[h,b]
    """),
    "bat_normalised": Spec("""
        x[H,W,C]; where C = G*M; where m : K
        row[i,m] = 1/W * x[i,j,c]*wf[c,m]
        col[j] = max[m](1/H * x[i,j,c]*wf[c,m])
        ps[g,i,k] = sigmoid(row[u,m]*wp[g,i,k,u,m])
        p[g,i,k] = normalize[k](ps[g,i,k])
        positive[v] = relu(col[v])
        q[g,l,j] = softmax[l](positive[v]*wq[g,l,j,v])
        y[i,j,(g n)] = p[g,i,k] * x[k,l,(g n)] * q[g,l,j]
    """),
}
"""Layers with functions: E-NL and NL with softmax, and a BA-Transform with every function of the language."""

SIZES = {
    "a2_net": {"R": 2, "V": 3},
    "axial": {"R": 3},
    "ba_transform": {"H": 2, "W": 3, "G": 2, "K": 2},
    "cgnl": {"G": 2, "M": 3},
    "e_nl": {"R": 2, "V": 3},
    "glore": {"R": 2, "V": 3},
    "latent_gnn": {"R": 3},
    "e_nl_softmax": {"R": 2, "V": 3},
    "nl_softmax": {"R": 3},
    "bat_normalised": {"H": 2, "W": 3, "G": 2, "K": 2},
}
"""The sizes of 2 are left out."""

SPATIAL = {"ba_transform_block": (2, 4)}
"""Where it is not (2, 3)."""


def layer(name: str, **options) -> Attention:
    """The catalogue's layer of a name, or one with functions, with a beta that lets it through."""
    spec, given = WITH_FUNCTIONS.get(name) or catalog.get(name), SIZES.get(name, {})
    missing = missing_sizes(spec, {layout(spec)[0]: CHANNELS, **given})
    return Attention(spec, CHANNELS, **{"sizes": given | dict.fromkeys(missing, 2), "beta": 0.7, **options})


def image(name: str, batch: int = 2, **options) -> Tensor:
    """An input for it."""
    return torch.randn(batch, CHANNELS, *SPATIAL.get(name, (2, 3)), **options)


def named(module: Attention) -> dict[str, Tensor]:
    """The specification's parameters by their names in the specification."""
    return module.spec_parameters()


def reference(module: Attention, x: Tensor) -> Tensor:
    """What the specification says of each sample, in numpy, as written."""
    (name, shape), *_ = module.spec.inputs.items()
    parameters = {n: p.detach().double().numpy() for n, p in named(module).items()}
    outputs = []
    for sample in x.detach().double():
        rows = sample.flatten(1).T if len(shape) == 2 else sample.movedim(0, -1)
        y = torch.from_numpy(np.asarray(module.spec.evaluate({name: rows.numpy(), **parameters}, module.sizes)))
        outputs.append(y.T.reshape(sample.shape) if len(shape) == 2 else y.movedim(-1, 0))
    return torch.stack(outputs)


EACH_MECHANISM = ("poly_nl", "tesa", "ba_transform_block", "pi_net_ncp", "e_nl_softmax", "bat_normalised")
"""A symmetric product, a sum of terms, split sizes, a polynomial of several degrees, two functions."""
