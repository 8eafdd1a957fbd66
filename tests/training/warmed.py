"""Imported by the process that others are forked from: the recipes with their imports, and the toy network's plans.

Plans are a function of their question, so a process that finds them made computes what it would have computed. The
programs of layers, which depend on the order of the shapes that a process met, are forgotten again.
"""

from importlib import import_module

import torch

from polyattn.runtime import plan_cache
from tests.training.toy import Toy

torch.set_num_threads(1)
for recipe in ("detection", "faces", "imagenet", "video"):
    import_module(f"examples.train_{recipe}")
network = Toy().network()
network.train()(torch.zeros(2, 3, 6, 6))  # not backward: autograd's threads would not outlive a fork
with torch.no_grad():
    for batch in (4, 3, 2):
        network.eval()(torch.zeros(batch, 3, 6, 6))
plan_cache.forget()
