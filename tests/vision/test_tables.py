"""Facts of the papers' tables beside what is counted here."""

import json
from decimal import Decimal
from functools import cache

import pytest
import torch
from typer.testing import CliRunner

import polyattn as pa
from benchmarks.papers import Compared, Count, Row, compare, count, paper_tables
from benchmarks.papers.rules import block_operations
from polyattn.cli import app

COUNTED_MILLIONS = {
    "2 ResNet-50": "25.557",
    "4 BAT, k = 1": "30.175",
    "4 BAT, k = 2": "30.188",
    "4 BAT, k = 4": "30.234",
    "4 BAT, k = 16": "31.088",
    "5 ResNet-18": "11.690",
}
"""Counted elsewhere, from the authors' own code."""

DIFFERENT = {"6 ResNet-101", "6 SE-ResNet-50 + BAT", "8 I3D"}
"""Rows whose printed parameters are not those of the network, each with its reason in the table."""


@cache
def compared() -> dict[str, Compared]:
    return {f"{table.number} {row.row.label}": row for table, rows in compare() for row in rows if table.paper == "bat"}


def printed(what: str) -> list[str]:
    rows = [(table.number, row) for table in paper_tables() for row in table.rows]
    return [f"{number} {row.label}" for number, row in rows if getattr(row, what) is not None]


@pytest.mark.parametrize("name", [n for n in printed("params") if n not in DIFFERENT])
def test_parameters_are_the_printed_ones_to_the_last_digit(name: str):
    assert compared()[name].params_agree


@pytest.mark.parametrize("name", sorted(DIFFERENT))
def test_printed_parameters_that_cannot_be_right_have_a_reason(name: str):
    assert not compared()[name].params_agree
    assert compared()[name].row.why.startswith("parameters:")


@pytest.mark.parametrize(("name", "millions"), COUNTED_MILLIONS.items())
def test_parameters_are_those_counted_in_the_authors_code(name: str, millions: str):
    row = compared()[name]
    assert (Decimal(row.counted.parameters) / 10**6).quantize(Decimal("0.001")) == Decimal(millions)


@pytest.mark.parametrize("name", printed("macs"))
def test_the_papers_rules_give_its_multiply_accumulates_within_rounding_or_0_3_percent(name: str):
    row = compared()[name]
    assert row.row.macs is not None
    assert row.counted.by_the_papers_rules is not None
    off = abs(row.counted.by_the_papers_rules / 1e9 - float(row.row.macs))
    half_a_digit = 0.5 * 10.0 ** int(row.row.macs.as_tuple().exponent)
    if "multiply-accumulates:" in row.row.why:
        assert off < 0.02 * float(row.row.macs)
    else:
        assert off <= max(half_a_digit, 0.003 * float(row.row.macs))


def test_what_the_paper_counts_twice_is_the_products_of_the_non_local_block():
    """One product of 784 x 784 x 256 and its like on Res4, each twice, five blocks: 747 M more than they are."""
    row = compared()["5 ResNet-50 + NL"].counted
    assert row.macs is not None
    assert row.by_the_papers_rules is not None
    products = 2 * 2 * 784**2 * 256 + 3 * 2 * 196**2 * 512
    assert 0 < row.by_the_papers_rules - row.macs - products < 0.01e9  # biases and batch norms


def test_the_rules_are_those_of_a_hand_counted_network():
    """ResNet-18: 1,814,073,344 MACs of which 512,000 are the classifier's; 2,483,712 elements in batch norms."""
    counted = count("resnet18", {}, (3, 224, 224))
    assert counted.macs == 1_814_073_344
    assert counted.by_the_papers_rules == 1_814_073_344 - 512_000 + 1000 * (2 * 512 - 1) + 4 * 2_483_712


def test_predictors_that_slide_are_counted_once_for_each_window():
    """On 32 x 32 positions 7 blocks become 8, and each predictor gives 2 matrices in the place of 1."""
    whole, slid = (pa.nn.BATBlock(64, block_size=7, groups=4, larger_maps=rule) for rule in ("blocks", "slide"))
    shape = torch.Size((1, 64, 32, 32))
    found, more = block_operations(whole, shape), block_operations(slid, shape)
    assert found is not None
    assert more is not None
    weights = sum(c.weight.numel() + c.out_channels for c in (whole.transform.conv_p, whole.transform.conv_q))
    bias = whole.transform.conv_p.bias is not None
    assert more - found == weights - (0 if bias else 2 * whole.transform.conv_p.out_channels)


def test_the_rules_know_no_blocks_of_other_papers():
    counted = count("resnet18", {"attention": pa.catalog.poly_nl()}, (3, 64, 64))
    assert counted.by_the_papers_rules is None
    assert counted.macs


def test_counting_without_memory_gives_what_real_weights_give():
    model = pa.vision.resnet18("nl", image_size=64)
    import torch

    price = pa.vision.cost(model, torch.zeros(1, 3, 64, 64))
    counted = count("resnet18", {"attention": "nl"}, (3, 64, 64))
    assert (counted.parameters, counted.macs) == (price.parameters, price.macs)


def test_differences_are_to_the_named_row_and_may_be_off_by_a_digit():
    row = Row("a", "resnet18", params=Decimal("0.17"), delta="b")
    assert Compared(row, Count(165_700)).params_agree
    assert Compared(row, Count(184_900)).params_agree
    assert not Compared(row, Count(186_000)).params_agree


def test_every_row_names_a_builder_and_every_difference_a_row():
    for table in paper_tables():
        labels = [row.label for row in table.rows]
        assert len(set(labels)) == len(labels)
        for row in table.rows:
            assert hasattr(pa.vision, row.build) or row.build == "resnet50_bat_full_resolution"
            assert row.delta is None or row.delta in labels
            assert len(row.accuracy) == len(table.accuracy)


def test_the_command_prints_one_table_with_its_reasons():
    result = CliRunner().invoke(app, ["tables", "--paper", "bat", "--table", "5"], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert "+7.36 =" in result.output
    assert "top-1 (theirs)" in result.output


@pytest.mark.parametrize("columns", ["60", "80"])
def test_on_a_narrow_screen_no_figure_is_cut_or_broken(columns):
    result = CliRunner().invoke(app, ["tables", "--paper", "bat", "--table", "1"], env={"COLUMNS": columns})
    assert result.exit_code == 0, result.output
    assert "…" not in result.output
    assert {"2,097,152", "2,097,152=", "2,101,760"} <= set(result.output.split())


def test_the_command_prints_json():
    result = CliRunner().invoke(app, ["tables", "--json", "--paper", "bat", "--table", "5"])
    assert result.exit_code == 0, result.output
    (table,) = json.loads(result.output)
    row = next(row for row in table["rows"] if row["network"] == "ResNet-50 + NL")
    assert row["printed_params_millions"] == "7.36"
    assert row["params_agree"] is True
    assert row["printed_accuracy"] == {"top-1": "77.5"}


def test_a_table_that_does_not_exist_is_refused():
    result = CliRunner().invoke(app, ["tables", "--table", "77"])
    assert result.exit_code == 2
    assert "bat 2, bat 3" in result.output
