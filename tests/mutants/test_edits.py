"""Every edit of the lists fits the sources, so that `make mutants` runs them all."""

import pytest

from tests.mutants.edits import Edit, read, stale


def test_every_edit_fits_one_place_of_its_file_and_names_tests_that_exist():
    edits = read()
    assert [f"{edit.stage}: {reason}" for edit in edits if (reason := stale(edit))] == []
    assert len(edits) == len({(edit.file, edit.old, edit.new) for edit in edits})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"old": "THREE"}, "'THREE' occurs 0 times in source.py, not once"),
        ({"old": "1"}, "'1' occurs 2 times in source.py, not once"),
        ({"new": "ONE = 1"}, "'ONE = 1' changes nothing"),
        ({"new": "ONE = ("}, "source.py with 'ONE = (' in it does not parse"),
        ({"file": "none.py"}, "none.py does not exist"),
        ({"tests": ("test_source.py::test_other",)}, "there is no test test_source.py::test_other"),
        ({"tests": ("test_none.py",)}, "there is no test test_none.py"),
        ({"tests": ()}, "no test is named"),
        ({}, ""),
    ],
)
def test_an_edit_that_does_not_fit_is_stale(tmp_path, change, reason):
    (tmp_path / "source.py").write_text("ONE = 1\nTWO = ONE + 1\n")
    (tmp_path / "test_source.py").write_text("def test_one():\n    pass\n")
    tests = ("test_source.py::test_one[case]", "test_source.py")
    table = {"stage": "any", "breaks": "", "file": "source.py", "old": "ONE = 1", "new": "ONE = 2", "tests": tests}
    found = stale(Edit(**(table | change)), tmp_path)
    assert found.startswith(reason)
    assert bool(found) == bool(reason)
