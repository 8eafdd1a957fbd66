"""Tables of measurements in a page."""

import json

import pytest

import polyattn as pa
from polyattn import catalog
from polyattn.study.report import read_measurements
from polyattn.study.report.measurements import measure

ROWS = [{"key": "a", "layer": "NL", "N": 4096, "seconds": 0.00123456}, {"key": "b", "layer": "TESA", "bytes": 7}]


@pytest.mark.parametrize("data", [ROWS, {"machine": {"cores": 2}, "cells": ROWS}], ids=["list", "benchmark"])
def test_rows_of_a_file(tmp_path, data):
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(data))
    table = read_measurements(file)
    assert table.columns == ("layer", "N", "seconds", "bytes")
    assert table.rows == (("NL", "4,096", "0.001235", ""), ("TESA", "", "", "7"))
    assert table.machine == ("cores 2" if isinstance(data, dict) else "")


@pytest.mark.parametrize("text", ["{", "[]", "3", "[[1]]", '{"a": [{"b": [1]}]}', "[" * 100_000])
def test_what_holds_no_rows_is_refused(tmp_path, text):
    file = tmp_path / "rows.json"
    file.write_text(text)
    with pytest.raises(pa.PolyattnError, match=r"cannot be read|holds no measurements"):
        read_measurements(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(pa.PolyattnError, match=r"none\.json"):
        read_measurements(tmp_path / "none.json")


def test_measured_here():
    plan = pa.plan(catalog.ba_transform(), {"H": 4, "W": 4, "C": 4, "G": 2, "K": 2})
    large = pa.plan(catalog.nl(), {"N": 10**6, "C": 4}, "as_written")
    table = measure({"small": [("planned", plan)], "large": [("as written", large)]})
    assert float(table.rows[0][4]) > 0
    assert table.rows[1][4].startswith("not run: 4,000")
