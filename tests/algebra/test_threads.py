"""The algebra in several threads."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from polyattn.algebra import canonical


def test_threads_that_make_the_first_canonical_forms_together_load_igraph_once(monkeypatch):
    calls = []

    @cache
    def slow() -> type:
        calls.append(1)
        time.sleep(0.05)
        return object

    monkeypatch.setattr(canonical, "_loaded_graph_class", slow)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: canonical._graph_class(), range(8)))
    assert found == [object] * 8
    assert len(calls) == 1
