"""`polyattn optimise file.py:Class` prints the table of `pa.optimise`."""

from typer.testing import CliRunner

from polyattn.cli import app

SOURCE = """
from torch import nn

class Chain(nn.Module):
    def __init__(self, width=24):
        super().__init__()
        self.width = width

    def forward(self, x):
        return x @ x.mT @ x
"""


def test_a_class_in_a_file_is_optimised(tmp_path):
    path = tmp_path / "chain.py"
    path.write_text(SOURCE)
    result = CliRunner().invoke(app, ["optimise", f"{path}:Chain(width=24)@1x400x24"])
    assert result.exit_code == 0, result.output
    assert "equal at every size" in result.output
    wrong = CliRunner().invoke(app, ["optimise", f"{path}:Chain@1x400x24", "--objective", "speed"])
    assert wrong.exit_code == 2
    assert "`objective` is 'speed'" in wrong.output
