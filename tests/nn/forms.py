"""A module copied, pickled and stored, and its value with its gradients: what tests of forms have in common."""

import copy
import io
import pickle

import torch


def value_and_gradients(module, x, leaves=None):
    """The value, and the gradients of the leaves; of the input and all parameters, where not all need have one."""
    y, given = module(x), leaves is not None
    leaves = leaves if given else [x, *(p for p in module.parameters() if p.requires_grad)]
    return y, torch.autograd.grad(y.sin().sum(), leaves, allow_unused=not given)


def assert_twins_compute_the_same_and_share_nothing(module, x):
    """Of its deep copy, its pickle and its file."""
    y, file = module(x), io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(file, weights_only=False)):
        assert torch.equal(twin(x), y)
        assert twin.spec == module.spec
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.fill_(3)
        assert torch.equal(module(x), y)


def assert_state_carries_it(module, other, x):
    assert not torch.equal(module(x), other(x))
    other.load_state_dict(module.state_dict())
    assert torch.equal(module(x), other(x))
