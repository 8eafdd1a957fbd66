"""Files that the command line reads: an error names the file and what is wrong with it."""

import pytest
from typer.testing import CliRunner

from polyattn.cli import app


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "the text is not UTF-8"),
        (b"", "spec.txt: "),
        (b"x[N,C]; y[a,b] = " + b"(" * 100_000, "spec.txt: "),
        (b"x[N,C]; y[a,b] = z[", "line 1: x[N,C]; y[a,b] = z["),
    ],
)
def test_a_specification_that_cannot_be_read_is_named_with_its_file(tmp_path, content, message):
    path = tmp_path / "spec.txt"
    path.write_bytes(content)
    result = CliRunner().invoke(app, ["show", str(path)])
    assert result.exit_code == 2
    assert result.output.startswith(f"error: {path}: ")
    assert message in result.output


@pytest.mark.parametrize("name", ["a" * 5000, "folder.d/" + "a" * 300, "/dev/zero"])
def test_a_name_that_is_no_file_is_an_error(name):
    result = CliRunner().invoke(app, ["show", name])
    assert result.exit_code == 2
    assert result.output.startswith("error: ")
