"""The value of a reading by the planner and the lowered graph, which share no code with the reader's own check."""

import torch

import polyattn as pa


def value_of(reading, module, *inputs):
    """Return the reading's equation at inputs of any lengths, in the module's layout; its tensors are the module's."""
    held = dict(module.named_parameters()) | dict(module.named_buffers()) if module is not None else {}
    sizes, given = {**reading.sizes}, []
    batch = 1
    for (name, letters), x in zip(reading.spec.inputs.items(), inputs, strict=True):
        axis = reading.batch.get(name)
        if axis is not None:
            x, batch = x.movedim(axis, 0), x.shape[axis]
            given.append(x.reshape([x.shape[0], *(n for n in x.shape[1:] if n != 1)]))
        else:
            given.append(x.reshape([1, *(n for n in x.shape if n != 1)]))
        for letter, n in zip(letters, given[-1].shape[1:], strict=True):
            if not letter.isdigit():
                sizes[letter] = n
    given = [g.expand(batch, *g.shape[1:]) for g in given]
    parameters = {}
    for name, source in reading.parameters.items():
        tensor = held[source] if isinstance(source, str) else source
        parameters[name] = tensor.detach().double().reshape([n for n in tensor.shape if n != 1])
    graph = pa.lower(pa.plan(reading.spec, {**sizes, "B": batch}, "as_written"))
    found = graph(*given, **parameters)
    axis = reading.batch.get(reading.spec.output)
    return found.movedim(0, axis) if axis is not None else found[0]


def assert_reads(module, *examples, names=None, complete=True):
    """Check a reading at each example's sizes, the first of which it is read at, in float64."""
    module = module.double().eval()
    reading = pa.read(module, examples[0], names=names)
    assert reading.is_complete == complete, str(reading)
    for inputs in examples:
        found, wanted = value_of(reading, module, *inputs), module(*inputs)
        torch.testing.assert_close(found.reshape(wanted.shape), wanted, rtol=1e-10, atol=1e-10)
    return reading


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
