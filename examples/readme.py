"""The README's example, as it stands there."""

import torch
from torchvision.models import resnet18

import polyattn as pa

spec = pa.Spec("x[N,C]; y[a,b] = 1/N * x[e,h]*w1[h,d] * x[e,f]*w2[f,d] * x[a,d]*w3[d,b]")  # Poly-NL, Eq. 7
gram = "x[N,C]; g[h,f] = 1/N*x[e,h]*x[e,f]; s[d] = g[h,f]*w1[h,d]*w2[f,d]; y[a,b] = x[a,d]*(s[d]*w3[d,b])"

print(spec.parameters, "degree", spec.degree)
print("the two forms are equal at every size:", bool(pa.prove(spec, gram)))
for channels in (256, 1024):
    plan = pa.plan(spec, {"B": 8, "N": 784, "C": channels})
    print(f"C = {channels}: {plan.macs:,} MACs = {plan.complexity}")
model = pa.vision.insert(resnet18(), {"layer2.1": spec, "layer3.1": pa.catalog.nl()})
model(torch.randn(2, 3, 224, 224)).sum().backward()
print(pa.vision.cost(model))
