"""Equations written by hand for layers of timm that `pa.read` cuts, and their parameters from the module's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Written:
    """An equation beside a module.

    Args:
        text: the equation.
        weights: the equation's parameters, from the module's.
        sizes: numbers for the sizes, from the module and the shape of its input.
        leave: the module's output from the equation's and the module's input.
    """

    text: str
    weights: Callable[[Any], Weights]
    sizes: Callable[[Any, Tensor], dict[str, int]]
    leave: Callable[[Tensor, Tensor], Tensor] = lambda y, x: y


def folded(conv: nn.Conv2d, norm: Any) -> tuple[Tensor, Tensor]:
    """Return the weight and the bias of a convolution with the batch norm behind it, in evaluation mode."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = (0 if conv.bias is None else conv.bias) - norm.running_mean
    return conv.weight * scale[:, None, None, None], bias * scale + norm.bias


def first_query(q: str, k: str, v: str) -> Callable[[Any], Weights]:
    def weights(m: Any) -> Weights:
        return {"wq": getattr(m, q).weight, "wk": getattr(m, k).weight, "wv": getattr(m, v).weight} | {
            "wo": m.proj.weight,
            "bo": m.proj.bias,
        }

    return weights


CLASS = """
x[N,C]; where C = H*D; where b : C; where h : H; where d : D
p[h,e] = softmax[e](1/sqrt(D) * x[0,c]*wq[(h d),c]*x[e,f]*wk[(h d),f])
y[b] = p[h,e]*x[e,c]*wv[(h d),c]*wo[b,(h d)] + bo[b]
"""


def _heads(m: Any, x: Tensor) -> dict[str, int]:
    return {"N": x.shape[1], "C": x.shape[2], "H": m.num_heads}


def _volo_class(m: Any) -> Weights:
    k, v = m.kv.weight.chunk(2)
    return {"wq": m.q.weight, "wk": k, "wv": v, "wo": m.proj.weight, "bo": m.proj.bias}


def _bottleneck(m: Any) -> Weights:
    q, k, v = m.qkv.weight[:, :, 0, 0].split((m.dim_out_qk, m.dim_out_qk, m.dim_out_v))
    return {"wq": q, "wk": k, "wv": v, "rh": m.pos_embed.height_rel.flip(0), "rw": m.pos_embed.width_rel.flip(0)}


def _coord(m: Any) -> Weights:
    w1, b1 = folded(m.conv1, m.bn1)
    return {"w1": w1[:, :, 0, 0], "b1": b1, "wh": m.conv_h.weight[:, :, 0, 0], "ww": m.conv_w.weight[:, :, 0, 0]}


def _outlook(m: Any) -> Weights:
    k = m.kernel_size
    wa = m.attn.weight.unflatten(0, (m.num_heads, k, k, k, k))
    ba = m.attn.bias.unflatten(0, (m.num_heads, k, k, k, k))
    return {"wv": m.v.weight, "wa": wa, "ba": ba, "wo": m.proj.weight, "bo": m.proj.bias}


def _halo(m: Any) -> Weights:
    qk, v = m.dim_head_qk, m.dim_head_v
    kv = m.kv.weight[:, :, 0, 0].unflatten(0, (m.num_heads, qk + v))
    q = m.q.weight[:, :, 0, 0].unflatten(0, (m.num_heads, qk))
    # timm's tables are read at the key's place less the query's, from 1 - window on; only these are reached
    reached = slice(m.win_size - m.block_size, 2 * m.win_size - 1)
    flip = {n: t[reached].flip(0) for n, t in (("rh", m.pos_embed.height_rel), ("rw", m.pos_embed.width_rel))}
    return {"wq": q, "wk": kv[:, :qk], "wv": kv[:, qk:], **flip}


def _bat(m: Any) -> Weights:
    s, g = m.block_size, m.groups
    w1, b1 = folded(m.conv1.conv, m.conv1.bn)
    wp, bp = folded(m.conv_p, _Plain)
    wq, bq = folded(m.conv_q, _Plain)
    w2, b2 = folded(m.conv2.conv, m.conv2.bn)
    return {
        "w1": w1[:, :, 0, 0],
        "b1": b1,
        "w2": w2[:, :, 0, 0],
        "b2": b2,
        "wp": wp[..., 0].unflatten(0, (g, s, s)),
        "bp": bp.unflatten(0, (g, s, s)),
        "wq": wq[:, :, 0].unflatten(0, (g, s, s)),
        "bq": bq.unflatten(0, (g, s, s)),
    }


class _Plain:
    """A norm that changes nothing."""

    weight, bias, eps = torch.ones(1), torch.zeros(1), 0.0
    running_mean, running_var = torch.zeros(1), torch.ones(1)


BAT = """
x[C,H,W]; where H = S*U; where W = S*V; where C = G*M; where m : E
o[m,i,j] = relu(x[c,i,j]*w1[m,c] + b1[m])
r[m,s] = max[u,j](o[m,(s u),j])
t[m,s] = max[i,v](o[m,i,(s v)])
p[g,i,k] = normalize[k](sigmoid(r[m,s]*wp[g,i,k,m,s] + bp[g,i,k]))
q[g,l,j] = normalize[l](sigmoid(t[m,s]*wq[g,l,j,m,s] + bq[g,l,j]))
z[(g n),(i u),(j v)] = p[g,i,k] * x[(g n),(k u),(l v)] * q[g,l,j]
y[b,i,j] = relu(z[c,i,j]*w2[b,c] + b2[b])
"""


BAT_BLOCK = """
x[C,H,W]; where H = S*U; where W = S*V; where R = G*M; where m : E; where b, d : R
a[b,i,j] = relu(x[c,i,j]*wi[b,c] + bi[b])
o[m,i,j] = relu(a[b,i,j]*w1[m,b] + b1[m])
r[m,s] = max[u,j](o[m,(s u),j])
t[m,s] = max[i,v](o[m,i,(s v)])
p[g,i,k] = normalize[k](sigmoid(r[m,s]*wp[g,i,k,m,s] + bp[g,i,k]))
q[g,l,j] = normalize[l](sigmoid(t[m,s]*wq[g,l,j,m,s] + bq[g,l,j]))
z[(g n),(i u),(j v)] = p[g,i,k] * a[(g n),(k u),(l v)] * q[g,l,j]
e[d,i,j] = relu(z[b,i,j]*w2[d,b] + b2[d])
y[f,i,j] = x[f,i,j] + relu(e[d,i,j]*wo[f,d] + bo[f])
"""


def _bat_block(m: Any) -> Weights:
    (wi, bi), (wo, bo) = folded(m.conv1.conv, m.conv1.bn), folded(m.conv2.conv, m.conv2.bn)
    return {**_bat(m.ba), "wi": wi[:, :, 0, 0], "bi": bi, "wo": wo[:, :, 0, 0], "bo": bo}


def cascade(heads: int, windows: bool) -> str:
    """Return the attention whose heads each add the one before to their part of the channels."""

    # Positions are i, j, in windows a, z; s and t are those of the keys, in the same window.
    def at(i: str, j: str) -> str:
        return f"a,{i},z,{j}" if windows else f"{i},{j}"

    place = "(a i),(z j)" if windows else "i,j"
    split = (
        "where H = S*P; where W = T*Q; where a : S; where z : T; where i, s : P; where j, t : Q; " if windows else ""
    )
    lines = [f"x[C,H,W]; where C = {heads}*M; {split}where m : M; where d : D; where u, v : -1..1; where n : M"]
    here, there, pair = at("i", "j"), at("s", "t"), "a,z,i,j,s,t" if windows else "i,j,s,t"
    for k in range(heads):
        before = f" + o{k - 1}[m,{here}]" if k else ""
        lines += [
            f"f{k}[m,{here}] = x[({k} m),{place}]{before}",
            f"q{k}[d,{here}] = f{k}[m,{here}]*wq{k}[d,m] + bq{k}[d]",
            f"l{k}[d,{here}] = q{k}[d,{at('i+u', 'j+v')}]*wd{k}[d,u,v] + bd{k}[d]",
            f"k{k}[d,{there}] = f{k}[m,{there}]*wk{k}[d,m] + bk{k}[d]",
            f"v{k}[n,{there}] = f{k}[m,{there}]*wv{k}[n,m] + bv{k}[n]",
            f"p{k}[{pair}] = softmax[s,t](1/sqrt(D)*l{k}[d,{here}]*k{k}[d,{there}] + bias{k}[i,j,s,t])",
            f"o{k}[m,{here}] = p{k}[{pair}]*v{k}[m,{there}]",
        ]
    parts = " + ".join(f"relu(o{k}[m,{here}])*wp{k}[b,m]" for k in range(heads))
    return "\n".join([*lines, f"where b : C; y[b,{place}] = {parts} + bp[b]"])


def _cascade(m: Any) -> Weights:
    m = getattr(m, "attn", m)
    found: Weights = {}
    n, key = m.resolution, m.key_dim
    for k, (qkv, dw) in enumerate(zip(m.qkvs, m.dws, strict=True)):
        w, b = folded(qkv.conv, qkv.bn)
        for name, weight, bias in zip(
            "qkv", w[:, :, 0, 0].split((key, key, m.val_dim)), b.split((key, key, m.val_dim)), strict=True
        ):
            found |= {f"w{name}{k}": weight, f"b{name}{k}": bias}
        w, b = folded(dw.conv, dw.bn)
        found |= {f"wd{k}": w[:, 0], f"bd{k}": b, f"bias{k}": m.get_attention_biases(None)[k].reshape(n, n, n, n)}
    w, b = folded(m.proj[1].conv, m.proj[1].bn)
    parts = w[:, :, 0, 0].split(m.val_dim, 1)
    return {**found, **{f"wp{k}": part for k, part in enumerate(parts)}, "bp": b}


def _downsample(m: Any) -> Weights:
    (wq, bq), (wk, bk), (wv, bv) = (folded(c.conv, c.bn) for c in (m.q.proj, m.k, m.v))
    (wl, bl), (wp, bp) = folded(m.v_local.conv, m.v_local.bn), folded(m.proj.conv, m.proj.bn)
    (h, w), (i, j) = m.resolution, m.resolution2
    return {
        "wl": m.q.local.weight[:, 0],
        "bl": m.q.local.bias,
        "wvl": wl[:, 0],
        "bvl": bl,
        "wq": wq[:, :, 0, 0],
        "bq": bq,
        "wk": wk[:, :, 0, 0],
        "bk": bk,
        "wv": wv[:, :, 0, 0],
        "bv": bv,
        "bias": m.get_attention_biases(None).reshape(-1, i, j, h, w),
        "wp": wp[:, :, 0, 0],
        "bp": bp,
    }


def _conv_attention(m: Any) -> Weights:
    w, b = folded(m.conv_proj.conv, m.conv_proj.norm)
    parts = m.pwise.weight[:, :, 0, 0].unflatten(0, (m.num_heads, 3, m.head_dim)).unbind(1)
    return {
        "wd": w[:, 0],
        "bd": b,
        **dict(zip(("wq", "wk", "wv"), parts, strict=True)),
        "wo": m.o_proj.weight[:, :, 0, 0],
        "bo": m.o_proj.bias,
        "wu": m.upsampling.weight[:, 0],
        "bu": m.upsampling.bias,
    }


def _map(x: Tensor, **sizes: int) -> dict[str, int]:
    return {"C": x.shape[1], "H": x.shape[2], "W": x.shape[3], **sizes}


WRITTEN = {
    "ClassAttn": Written(CLASS, first_query("q", "k", "v"), _heads, leave=lambda y, x: y[:, None]),
    "CrossAttention": Written(CLASS, first_query("wq", "wk", "wv"), _heads, leave=lambda y, x: y[:, None]),
    "ClassAttention": Written(CLASS, _volo_class, _heads, leave=lambda y, x: y[:, None]),
    "CecaModule": Written(
        """
        x[C,H,W]
        m[c] = mean[i,j](x[c,i,j])
        y[b,i,j] = x[b,i,j] * sigmoid(w[1]*m[b] + w[0]*m[c]*[c == b-1] + w[0]*m[c]*[c == b-1+C]
                                      + w[2]*m[c]*[c == b+1] + w[2]*m[c]*[c == b+1-C])
        """,
        lambda m: {"w": m.conv.weight.flatten()},
        lambda m, x: _map(x),
    ),
    "CoordAttn": Written(
        """
        x[C,H,W]; where r, s : R
        u[r,i] = mean[j](x[c,i,j])*w1[r,c] + b1[r]
        v[s,j] = mean[i](x[c,i,j])*w1[s,c] + b1[s]
        f[r,i] = 1/6*u[r,i]*relu(u[r,i] + 3) - 1/6*u[r,i]*relu(u[r,i] - 3)
        g[s,j] = 1/6*v[s,j]*relu(v[s,j] + 3) - 1/6*v[s,j]*relu(v[s,j] - 3)
        y[b,i,j] = x[b,i,j] * sigmoid(f[r,i]*wh[b,r]) * sigmoid(g[s,j]*ww[b,s])
        """,
        _coord,
        lambda m, x: _map(x, R=m.conv1.out_channels),
    ),
    "BottleneckAttn": Written(
        """
        x[C,H,W]; where C = E*D; where e : E; where d : D
        q[e,d,i,j] = x[c,i,j]*wq[(e d),c]
        k[e,d,i,j] = x[c,i,j]*wk[(e d),c]
        p[e,i,j,s,t] = softmax[s,t](1/sqrt(D)*q[e,d,i,j]*k[e,d,s,t] + q[e,d,i,j]*rh[i-s,d] + q[e,d,i,j]*rw[j-t,d])
        y[(e d),i,j] = p[e,i,j,s,t]*x[c,s,t]*wv[(e d),c]
        """,
        _bottleneck,
        lambda m, x: _map(x, E=m.num_heads),
    ),
    "HaloAttn": Written(
        """
        x[C,H,W]; where e : E; where d : D; where i : S; where j : T; where u, v : 0..3; where s, t : -1..4; where f : F
        q[e,d,i,u,j,v] = x[c,4*i+u,4*j+v]*wq[e,d,c]
        k[e,d,i,s,j,t] = x[c,4*i+s,4*j+t]*wk[e,d,c]
        g[e,f,i,s,j,t] = x[c,4*i+s,4*j+t]*wv[e,f,c]
        r[e,i,u,j,v,s] = q[e,d,i,u,j,v]*rh[u-s,d]
        l[e,i,u,j,v,t] = q[e,d,i,u,j,v]*rw[v-t,d]
        p[e,i,u,j,v,s,t] = softmax[s,t](1/sqrt(D)*q[e,d,i,u,j,v]*k[e,d,i,s,j,t] + r[e,i,u,j,v,s] + l[e,i,u,j,v,t])
        y[e,f,i,u,j,v] = p[e,i,u,j,v,s,t]*g[e,f,i,s,j,t]
        """,
        _halo,
        lambda m, x: _map(x, E=m.num_heads, D=m.dim_head_qk, F=m.dim_head_v, S=x.shape[2] // 4, T=x.shape[3] // 4),
        leave=lambda y, x: y.reshape(x.shape),
    ),
    "OutlookAttention": Written(
        """
        x[H,W,C]; where C = E*D; where e : E; where d : D; where u, v, s, t : -1..1
        g[i,j,e,d] = x[i,j,c]*wv[(e d),c]
        p[i,j,e,u,v,s,t] = softmax[s,t](1/sqrt(D)*x[i,j,c]*wa[e,u,v,s,t,c] + 1/sqrt(D)*ba[e,u,v,s,t])
        o[i,j,e,d,u,v] = p[i,j,e,u,v,s,t]*g[i+s,j+t,e,d]
        z[i,j,e,d] = o[i-u,j-v,e,d,u,v]
        y[i,j,b] = z[i,j,e,d]*wo[b,(e d)] + bo[b]
        """,
        _outlook,
        lambda m, x: {"H": x.shape[1], "W": x.shape[2], "C": x.shape[3], "E": m.num_heads},
    ),
    "BatNonLocalAttn": Written(
        BAT_BLOCK,
        _bat_block,
        lambda m, x: _map(
            x, S=m.ba.block_size, G=m.ba.groups, E=m.ba.conv1.conv.out_channels, R=m.conv1.conv.out_channels
        ),
    ),
    "CascadedGroupAttention": Written(cascade(4, False), _cascade, lambda m, x: _map(x, D=m.key_dim)),
    "LocalWindowAttention": Written(
        cascade(4, True),
        _cascade,
        lambda m, x: _map(x, D=m.attn.key_dim, P=m.attn.resolution, Q=m.attn.resolution),
    ),
    "Attention2dDownsample": Written(
        """
        x[C,H,W]; where i : S; where j : T; where s : H; where t : W; where u, v : -1..1
        where e : E; where d : D; where V = E*F; where f : F; where g : V; where o : O; where K = E*D
        z[c,i,j] = x[c,2*i,2*j] + x[c,2*i+u,2*j+v]*wl[c,u,v] + bl[c]
        q[e,d,i,j] = z[c,i,j]*wq[(e d),c] + bq[(e d)]
        k[e,d,s,t] = x[c,s,t]*wk[(e d),c] + bk[(e d)]
        r[g,s,t] = x[c,s,t]*wv[g,c] + bv[g]
        p[e,i,j,s,t] = softmax[s,t](1/sqrt(D)*q[e,d,i,j]*k[e,d,s,t] + bias[e,i,j,s,t])
        l[g,i,j] = r[g,2*i+u,2*j+v]*wvl[g,u,v] + bvl[g]
        y[o,i,j] = gelu(p[e,i,j,s,t]*r[(e f),s,t] + l[(e f),i,j])*wp[o,(e f)] + bp[o]
        """,
        _downsample,
        lambda m, x: _map(x, S=m.resolution2[0], T=m.resolution2[1], E=m.num_heads, D=m.key_dim, F=m.d, O=m.out_dim),
    ),
    "ConvAttention": Written(
        """
        x[C,H,W]; where u, v : -1..1; where e : E; where d : D; where K = E*D; where b : C
        z[c,i,j] = x[c,i+u,j+v]*wd[c,u,v] + bd[c]
        p[e,i,j,s,t] = softmax[s,t](1/sqrt(D)*z[c,i,j]*wq[e,d,c]*z[b,s,t]*wk[e,d,b])
        o[b,i,j] = p[e,i,j,s,t]*z[c,s,t]*wv[e,d,c]*wo[b,(e d)] + bo[b]
        y[b,i,j] = o[b,i-u,j-v]*wu[b,u,v] + bu[b]
        """,
        _conv_attention,
        lambda m, x: _map(x, E=m.num_heads, D=m.head_dim),
    ),
    "BilinearAttnTransform": Written(
        BAT, _bat, lambda m, x: _map(x, S=m.block_size, G=m.groups, E=m.conv1.conv.out_channels)
    ),
}
"""By the name of the class."""
