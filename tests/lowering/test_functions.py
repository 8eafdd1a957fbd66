"""Facts of generated functions: a compiler sees the marks that torch's own word leaves."""

import torch

from polyattn.lowering.functions import constant_result


def test_the_mark_is_torchs_own():
    def ours(): ...

    def theirs(): ...

    assert constant_result(ours) is ours
    assert vars(ours) == vars(torch.compiler.assume_constant_result(theirs))
