"""A text may subtract from an input what resembles its mean: values and gradients are those of plain torch."""

import pytest
import torch

import polyattn as pa

SUBTRACTED = {
    "mean": ("1/N*x[e,b]", "b", lambda x, z: x.mean(1, True)),
    "sum": ("x[e,b]", "b", lambda x, z: x.sum(1, True)),
    "twice the mean": ("2/N*x[e,b]", "b", lambda x, z: 2 * x.mean(1, True)),
    "divided by the other size": ("1/C*x[e,b]", "b", lambda x, z: x.sum(1, True) / x.shape[2]),
    "mean over channels": ("1/C*x[a,e]", "a", lambda x, z: x.mean(2, True)),
    "mean of another input": ("1/N*z[e,b]", "b", lambda x, z: z.mean(1, True)),
}
TEXTS = {
    "used before": "m[b] = s[{i}]*w[{i},b]; r[a,b] = relu(x[a,b] - s[{j}]); y[a,b] = r[a,b]*m[b]",
    "used after": "r[a,b] = relu(x[a,b] - s[{j}]); m[b] = s[{i}]*w[{i},b]; y[a,b] = r[a,b]*m[b]",
}


@pytest.mark.parametrize("limit", [None, 1], ids=["free", "least memory"])
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", SUBTRACTED)
def test_what_is_subtracted_is_what_the_text_says(kind, text, limit):
    right, left, reduced = SUBTRACTED[kind]
    sizes, generator = {"N": 6, "C": 4}, torch.Generator().manual_seed(1)
    body = TEXTS[text].format(i="cf"[left == "a"], j=left)
    spec = pa.Spec(f"x[N,C]; z[N,C]; s[{left}] = {right}; {body} + z[a,b]")
    plan = pa.plan(spec, sizes, "training")
    if limit is not None:
        with pytest.raises(pa.BudgetError) as refused:
            pa.plan(spec, sizes, "training", memory_limit=limit)
        plan = pa.plan(spec, sizes, "training", memory_limit=int(str(refused.value).rpartition("=")[2]))
    x, z = (torch.randn(2, 6, 4, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2))
    w = torch.randn(6 if left == "a" else 4, 4, dtype=torch.float64, generator=generator).requires_grad_()
    s = reduced(x, z)
    wanted = torch.relu(x - s) * (s.flatten(1) @ w)[:, None] + z
    seed = torch.randn(wanted.shape, dtype=torch.float64, generator=generator)
    expected = torch.autograd.grad(wanted, (x, z, w), seed)
    for planned in (plan, pa.plan(spec, sizes, "as_written")):
        torch.testing.assert_close(pa.lower(planned)(x, z, w=w), wanted)
    found = torch.autograd.grad(pa.training_function(plan)(x, z, w), (x, z, w), seed)
    for gradient, right_one in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, right_one)


@pytest.mark.parametrize(("right", "axis"), [("1/N*x[a,e]", 2), ("1/N*x[e,a]", 1)], ids=["rows", "columns"])
@pytest.mark.parametrize("left", ["a", "b"])
def test_a_mean_of_a_square_map_is_subtracted_along_the_axis_of_the_text(right, axis, left):
    text = f"x[N,N]; s[a] = {right}; r[a,b] = relu(x[a,b] - s[{left}]); m[b] = s[c]*w[c,b]; y[a,b] = r[a,b]*m[b]"
    x, w = torch.randn(2, 5, 5, dtype=torch.float64), torch.randn(5, 5, dtype=torch.float64)
    s = x.mean(axis)
    for objective in ("forward", "training", "as_written"):
        plan = pa.plan(text, {"N": 5}, objective)
        assert not plan.means or (axis, left) == (1, "b")
        y = pa.lower(plan)(x, w=w)
        torch.testing.assert_close(y, torch.relu(x - (s[:, None] if left == "b" else s[:, :, None])) * (s @ w)[:, None])
