"""The list of slow files, which is made by hand."""

from pathlib import Path

LIST = Path(__file__).with_name("slow.txt")


def test_every_slow_file_exists_and_is_named_once():
    names = LIST.read_text().split()
    assert len(set(names)) == len(names)
    assert [name for name in names if not (LIST.parents[1] / name).is_file()] == []
