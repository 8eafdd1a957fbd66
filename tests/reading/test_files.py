"""Code in files, as the command line names it."""

import pytest
from typer.testing import CliRunner

import polyattn as pa
from polyattn.cli import app

FILE = """
import torch
from torch import nn

class Gate(nn.Module):
    def __init__(self, dim=6):
        super().__init__()
        self.lin = nn.Linear(dim, dim, bias=False)
    def forward(self, x):
        return x * torch.sigmoid(self.lin(x))

def gram(x):
    return x @ (x.mT @ x)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "blocks.py"
    path.write_text(FILE)
    return path


def test_show_and_prove_take_a_class_or_a_function_of_a_file(file):
    shown = CliRunner().invoke(app, ["show", f"{file}:Gate"])
    assert shown.exit_code == 0, shown.output
    assert "sigmoid(x[c]*lin_weight[b,c])" in shown.output or "lin_weight" in shown.output
    proved = CliRunner().invoke(app, ["prove", f"{file}:gram@2x5x3", "x[N,C]; y[a,b] = x[a,c]*x[e,c]*x[e,b]"])
    assert proved.exit_code == 0, proved.output


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{file}:Nothing", "has no 'Nothing'"),
        ("{file}:gram", "the shape of the input is not known"),
        ("{file}:Gate(open('x'))", "expected literals"),
        ("{file}:Gate(dim='a')", "cannot be made"),
        ("nowhere.py:Gate", "there is no file"),
    ],
)
def test_what_cannot_be_read_from_a_file_is_named(file, source, says):
    from polyattn.cli.arguments import read_spec

    with pytest.raises(pa.ReadingError, match="`SPEC`") as raised:
        read_spec(source.format(file=file))
    assert says in str(raised.value)
