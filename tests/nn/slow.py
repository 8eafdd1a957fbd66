"""The blocks once more, position by position, from the papers' formulas and their authors' layouts, in numpy.

Everything is float64 and of one sample x (positions, channels) or (H, W, channels); `state` is the block's state
dict, so a name that a checkpoint would not have fails here.
"""

import numpy as np


def weight(state, name):
    """The (outer, inner) matrix of a 1x1 convolution."""
    return state[f"{name}.weight"].reshape(state[f"{name}.weight"].shape[0], -1)


def convolved(state, name, x):
    y = x @ weight(state, name).T
    return y + state[f"{name}.bias"] if f"{name}.bias" in state else y


def normed(state, name, x, eps=1e-5):
    """Batch norm of an evaluated network, on its running statistics."""
    scale = state[f"{name}.weight"] / np.sqrt(state[f"{name}.running_var"] + eps)
    return (x - state[f"{name}.running_mean"]) * scale + state[f"{name}.bias"]


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def unit(x):
    norm = np.sqrt((x**2).sum())
    return x / norm if norm else x


def poly_nl(x, state):
    """Eq. 6 and 7: the sum over all positions e for each output position a."""
    w1, w2, w3 = state["w1"], state["w2"], state["w3"]
    w0 = state.get("w0", np.eye(len(w1)))
    average = sum((row @ w1) * (row @ w2) for row in x) / len(x)
    y = np.stack([(average * (row @ w0)) @ w3 for row in x])
    return state["alpha"] * x + state["beta"] * y


def efficient(x, state, heads, normalisation):
    query, key, value = (convolved(state, name, x) for name in ("queries", "keys", "values"))
    outputs = []
    for q, k, v in zip(*(np.split(t, heads, 1) for t in (query, key, value)), strict=True):
        if normalisation == "softmax":
            q = np.stack([softmax(row) for row in q])
            k = np.stack([softmax(column) for column in k.T]).T
        else:
            q, k = q / len(x) ** 0.5, k / len(x) ** 0.5
        similarity = np.array([[a @ e for e in k] for a in q])
        outputs.append(similarity @ v)
    return x + convolved(state, "reprojection", np.concatenate(outputs, 1))


def tesa(x, state, normalisation):
    """Similarities of the rows of each of the three matricisations of (H, W, C)."""
    y, (height, width, _) = x.copy(), x.shape
    for mode in (1, 2, 3):
        query, key, value = (x @ state[f"w{name}{mode}"] for name in "qkv")
        order = {1: (0, 1, 2), 2: (0, 1, 2), 3: (1, 0, 2)}[mode]
        rows = {1: height * width, 2: height, 3: width}[mode]

        def unfold(t, order=order, rows=rows):
            return t.transpose(order).reshape(rows, -1)

        similarity = np.array([[a @ e for e in unfold(key)] for a in unfold(query)])
        if normalisation == "softmax":
            similarity = np.stack([softmax(row) for row in similarity])
        else:
            similarity = similarity / (height * width)
        folded = (similarity @ unfold(value)).reshape([x.shape[axis] for axis in order])
        y += state[f"alpha{mode}"] * folded.transpose(order)
    return y


def latent_gnn(x, state, mode, graph_conv, kernels):
    def down(name):
        return np.stack([unit(row) for row in normed(state, f"{name}.1", convolved(state, f"{name}.0", x))])

    def relu(name, rows):
        return np.maximum(normed(state, f"{name}.1", convolved(state, f"{name}.0", rows)), 0)

    asymmetric = mode == "asymmetric"
    value = down("down_channel_v2l" if asymmetric else "down_channel")
    outputs = []
    for k in range(kernels):
        if asymmetric:
            phi = np.stack([unit(column) for column in relu(f"kernels.{k}.psi_v2l", value).T]).T
            psi = np.stack([unit(row) for row in relu(f"kernels.{k}.psi_l2v", down("down_channel_l2v"))])
        else:
            phi = psi = np.stack([unit(row) for row in relu(f"kernels.{k}.psi", value)])
        nodes = sum(np.outer(phi[e], value[e]) for e in range(len(x)))
        cosines = np.array([[unit(a) @ unit(b) for b in nodes] for a in nodes])
        nodes = np.stack([softmax(row) for row in cosines]) @ nodes
        y = psi @ nodes
        outputs.append(relu(f"kernels.{k}.GraphConvWeight", y) if graph_conv else y)
    y = np.concatenate(outputs, 1)
    return x + state["gamma"] * normed(state, "up_channel.1", convolved(state, "up_channel.0", y))


def a2(x, state, normalisation):
    features, maps, vectors = (convolved(state, name, x) for name in ("phi", "theta", "rho"))
    if normalisation == "softmax":
        maps = np.stack([softmax(column) for column in maps.T]).T
        vectors = np.stack([softmax(row) for row in vectors])
    else:
        maps = maps / len(x)
    descriptors = [sum(maps[e, r] * features[e] for e in range(len(x))) for r in range(maps.shape[1])]
    z = np.stack([sum(v * g for v, g in zip(row, descriptors, strict=True)) for row in vectors])
    return x + normed(state, "bn", convolved(state, "extend", z))


def glore(x, state, mean):
    reduced, projection = convolved(state, "conv_state", x), convolved(state, "conv_proj", x)
    nodes = sum(np.outer(b, s) for b, s in zip(projection, reduced, strict=True)) / (len(x) if mean else 1)
    nodes = np.maximum(nodes + weight(state, "gcn.conv1") @ nodes + state["gcn.conv1.bias"][:, None], 0)
    nodes = nodes @ weight(state, "gcn.conv2").T
    back = np.stack([row @ nodes for row in projection])
    return x + normed(state, "blocker", convolved(state, "conv_extend", back), 1e-4)


def cgnl(x, state, groups, scale):
    theta, phi, value = (convolved(state, name, x) for name in "tpg")
    rows = []
    for t, p, g, z in zip(*(np.split(m, groups, 1) for m in (theta, phi, value)), np.split(weight(state, "z"), groups),
                          strict=True):  # fmt: skip
        context = (p.ravel() @ g.ravel()) / (p.size**0.5 if scale else 1)
        y = (t * context) @ z.T
        rows.append((y - y.mean()) / np.sqrt(y.var() + 1e-5))
    return x + np.concatenate(rows, 1) * state["gn.weight"] + state["gn.bias"]


def criss_cross(x, state, recurrence, normalisation):
    height, width, _ = x.shape
    for _ in range(recurrence):
        query, key, value = (convolved(state, f"{name}_conv", x) for name in ("query", "key", "value"))
        y = np.zeros_like(x)
        for i in range(height):
            for j in range(width):
                column, row = [(k, j) for k in range(height)], [(i, l) for l in range(width)]
                if normalisation == "softmax":
                    path = [*[p for p in column if p != (i, j)], *row]
                    weights = softmax(np.array([query[i, j] @ key[p] for p in path]))
                    y[i, j] = sum(w * value[p] for w, p in zip(weights, path, strict=True))
                else:
                    y[i, j] = sum((query[i, j] @ key[p]) * value[p] for p in column) / height
                    y[i, j] += sum((query[i, j] @ key[p]) * value[p] for p in row) / width
        x = x + state["gamma"] * y
    return x


def axial(x, state, normalisation):
    """x with any number of axes before its channels."""
    for axis in range(x.ndim - 1):
        query, key, value = (convolved(state, f"axes.{axis}.{name}", x) for name in ("query", "key", "value"))
        y = np.zeros_like(x)
        for place in np.ndindex(x.shape[:-1]):
            line = [(*place[:axis], k, *place[axis + 1 :]) for k in range(x.shape[axis])]
            similarity = np.array([query[place] @ key[p] for p in line])
            scaled = similarity / query.shape[-1] ** 0.5
            weights = softmax(scaled) if normalisation == "softmax" else similarity / len(line)
            y[place] = sum(w * value[p] for w, p in zip(weights, line, strict=True))
        x = x + state["gamma"][axis] * y
    return x
