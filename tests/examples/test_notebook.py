"""The example notebook is executed as it is committed."""

import nbformat
import pytest

from tests.examples.notebook import PATH, executed_here, made, texts


def test_the_committed_notebook_has_the_cells_that_are_tested():
    committed = nbformat.read(PATH, as_version=4)
    nbformat.validate(committed)
    assert [(c.cell_type, c.source) for c in committed.cells] == [(c.cell_type, c.source) for c in made().cells]


@pytest.mark.slow
def test_executed_again_the_notebook_shows_the_same():
    committed = nbformat.read(PATH, as_version=4)
    assert any("equal at every size" in text for text in texts(committed))
    assert texts(executed_here()) == texts(committed)
    pictures = [o for c in committed.cells for o in c.get("outputs", ()) if "image/svg+xml" in o.get("data", {})]
    assert len(pictures) >= 4
