"""The table of constructs on the language's page: each text is a whole specification that can be written out again."""

import re
from pathlib import Path

import pytest

import polyattn as pa

PAGE = Path(__file__).parents[2] / "docs" / "language.md"
TABLE = (
    PAGE.read_text(encoding="utf-8").partition("## A whole specification for each construct")[2].partition("\n## ")[0]
)
TEXTS = dict(re.findall(r"^\| ([^|`]+?) \| `(.+?)` \|$", TABLE, re.MULTILINE))


@pytest.mark.parametrize("construct", TEXTS)
def test_a_construct_has_a_whole_specification(construct: str):
    spec = pa.Spec(TEXTS[construct])
    assert pa.Spec(str(spec)) == spec
    assert spec.output == "y"


def test_the_table_is_found():
    assert len(TEXTS) > 25
