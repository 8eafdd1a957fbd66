"""Write Swin's window attention as an equation, and run it with the weights of timm's module.

timm makes windows, runs its module on them, and puts them together again. In the equation the windows are split sizes:
H = S*U says S windows of height U, and `(i u)` is row u of window i.
"""

import timm.models.swin_transformer as swin
import torch

import polyattn as pa

SIDE, WINDOW, CHANNELS, HEADS = 28, 7, 48, 3

spec = pa.Spec("""
    x[H,W,C]; where H = S*U; where W = T*U; where C = E*D
    where i : S; where j : T; where u, v, s, t : U; where h : E; where d : D
    q[i,j,u,v,h,d] = x[(i u),(j v),c]*wqkv[(0 h d),c] + bqkv[(0 h d)]
    k[i,j,u,v,h,d] = x[(i u),(j v),c]*wqkv[(1 h d),c] + bqkv[(1 h d)]
    g[i,j,u,v,h,d] = x[(i u),(j v),c]*wqkv[(2 h d),c] + bqkv[(2 h d)]
    p[h,i,j,u,v,s,t] = softmax[s,t](1/sqrt(D) * q[i,j,u,v,h,d]*k[i,j,s,t,h,d] + bias[u-s,v-t,h])
    y[(i u),(j v),b] = p[h,i,j,u,v,s,t]*g[i,j,s,t,h,d]*wo[b,(h d)] + bo[b]
""")
plan = pa.plan(spec, {"H": SIDE, "W": SIDE, "U": WINDOW, "C": CHANNELS, "E": HEADS})
whole = pa.plan(pa.catalog.multi_head(), {"N": SIDE**2, "C": CHANNELS, "H": HEADS})
print(f"windows of {WINDOW} x {WINDOW}: {plan.macs:,} MACs; the whole map: {whole.macs:,} MACs")

torch.manual_seed(0)
theirs = swin.WindowAttention(CHANNELS, num_heads=HEADS, window_size=WINDOW).eval()
layer = pa.nn.Layer(spec, {"C": CHANNELS, "E": HEADS, "U": WINDOW})
side = 2 * WINDOW - 1  # a difference of places is between -(WINDOW - 1) and WINDOW - 1
layer.load_state_dict({
    "wqkv": theirs.qkv.weight,
    "bqkv": theirs.qkv.bias,
    "bias": theirs.relative_position_bias_table.view(side, side, HEADS),
    "wo": theirs.proj.weight,
    "bo": theirs.proj.bias,
})  # fmt: skip

x = torch.randn(2, SIDE, SIDE, CHANNELS)
with torch.no_grad():
    windows = swin.window_partition(x, (WINDOW, WINDOW)).flatten(1, 2)
    expected = swin.window_reverse(theirs(windows).unflatten(1, (WINDOW, WINDOW)), (WINDOW, WINDOW), SIDE, SIDE)
    torch.testing.assert_close(layer(x), expected)
print("the equation and timm's window attention give the same output")

shifted = torch.roll(layer(torch.roll(x, (-3, -3), (1, 2))), (3, 3), (1, 2))
print("shifted windows are the same layer on a rolled map:", tuple(shifted.shape))
