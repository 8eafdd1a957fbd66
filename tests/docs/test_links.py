"""Links out of docs/ on the site, and text in code that looks like one."""

import runpy
from pathlib import Path
from types import SimpleNamespace

hook = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "docs" / "_site" / "repository.py")))


def on_a_page(text: str, source: str) -> str:
    page = SimpleNamespace(file=SimpleNamespace(src_uri=source))
    return hook.on_page_markdown(text, page, None, None)


def test_a_link_out_of_docs_leads_to_the_page_on_the_site():
    assert on_a_page("[proofs](../../proofs/README.md)", "howto/prove.md") == "[proofs](../proofs/README.md)"


def test_code_stays_as_it_is():
    code = "see `softmax[e](1/sqrt(D)*q[a,r])`\n\n```text\np[a,e] = softmax[e](1/sqrt(D) * q[a,d])\n```\n"
    assert on_a_page(code, "catalogue/softmax.md") == code
