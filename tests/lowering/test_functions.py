"""Facts of generated functions: importing them is light, and a compiler sees the marks that torch's own word leaves."""

import subprocess
import sys

import torch

from polyattn.lowering.functions import constant_result


def test_the_mark_is_torchs_own():
    def ours(): ...

    def theirs(): ...

    assert constant_result(ours) is ours
    assert vars(ours) == vars(torch.compiler.assume_constant_result(theirs))


def test_importing_polyattn_does_not_import_the_compiler():
    code = "import sys, polyattn; polyattn.nn; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
