"""Train a causal layer on whole sequences, read a prompt with it, and decode step by step: one equation.

The task is recall: a sequence has some pairs "key is value", then questions "key?". The layer is linear attention, so
that its memory while decoding is a state that does not grow.
"""

import torch
from torch import nn

import polyattn as pa

KEYS, VALUES, PAIRS, WIDTH = 8, 8, 4, 32

attention = pa.Spec("""
    x[N,C]; where d : D
    q[a,d] = elu(x[a,c]*wq[c,d]) + 1
    k[e,d] = elu(x[e,c]*wk[c,d]) + 1
    z[a] = q[a,d]*k[e,d]*[e <= a]
    y[a,b] = q[a,d]*k[e,d]*x[e,c]*wv[c,b]*[e <= a] / z[a]
""")


class Recall(nn.Module):
    """Embeddings, the layer, and a classifier; token `VALUES` in the place of a value is the question mark."""

    def __init__(self):
        super().__init__()
        self.key, self.value = nn.Embedding(KEYS, WIDTH), nn.Embedding(VALUES + 1, WIDTH)
        self.attention = pa.nn.Layer(attention, {"C": WIDTH, "D": WIDTH})
        self.read = nn.Linear(WIDTH, VALUES)

    def embed(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return self.key(keys) + self.value(values)

    def forward(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return self.read(self.attention(self.embed(keys, values)))


def batch(number: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw the keys and values of sequences, and the answers to their questions."""
    keys = torch.rand(number, KEYS, generator=generator).argsort(1)[:, :PAIRS]
    values = torch.randint(VALUES, (number, PAIRS), generator=generator)
    asked = torch.rand(number, PAIRS, generator=generator).argsort(1)
    marks = torch.full_like(values, VALUES)
    return torch.cat([keys, keys.gather(1, asked)], 1), torch.cat([values, marks], 1), values.gather(1, asked)


torch.manual_seed(0)
generator = torch.Generator().manual_seed(1)
model = Recall()
optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
for step in range(120):
    keys, values, answers = batch(64, generator)
    loss = nn.functional.cross_entropy(model(keys, values)[:, PAIRS:].flatten(0, 1), answers.flatten())
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if step % 40 == 39:
        print(f"step {step + 1}: loss {loss.item():.3f}")

with torch.no_grad():
    keys, values, answers = batch(500, generator)
    whole = model(keys, values)
    correct = (whole[:, PAIRS:].argmax(2) == answers).float().mean().item()
    print(f"{100 * correct:.0f} % of 2000 questions about new sequences answered (chance {100 / VALUES:.1f} %)")

    x = model.embed(keys, values)
    _, state = model.attention(x[:, :PAIRS], state=model.attention.initial_state(500))  # the prompt, in one piece
    for t in range(PAIRS, 2 * PAIRS):
        y, state = model.attention.step(x[:, t], state)
        torch.testing.assert_close(model.read(y), whole[:, t], rtol=1e-3, atol=1e-3)

plan = pa.plan(attention, {"C": WIDTH, "D": WIDTH}, "decoding")
print(f"decoding gives the same; state {dict(plan.state)}, {plan.macs:,} MACs a token at every length")
assert correct > 0.9
