"""Costs against loops that count, and tiles that are chosen by time."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from polyattn.kernels import Cost, tuning
from polyattn.kernels.bilinear import cost as bilinear
from polyattn.kernels.cross_gram import cost as cross_gram
from polyattn.kernels.gram import cost as gram
from polyattn.kernels.hadamard_mean import cost as hadamard_mean
from polyattn.kernels.linear_attention import cost as linear_attention
from polyattn.kernels.project import cost as project
from polyattn.kernels.projected_attention import cost as projected_attention
from polyattn.kernels.tuning import SMALL, TORCH, Tile


def test_gram_multiplies_only_on_and_above_the_diagonal():
    count = sum(c <= d for _, _, c, d in product(range(2), range(7), range(5), range(5)))
    assert gram.forward(2, 7, 5, 4) == Cost(count, 4 * (2 * 7 * 5 + 2 * 5 * 5))


def test_cross_gram_multiplies_every_pair_of_columns_at_every_position_and_twice_as_often_in_its_gradients():
    count = sum(1 for _ in product(range(2), range(7), range(5), range(3)))
    assert cross_gram.forward(2, 7, 5, 3, 4) == Cost(count, 4 * (2 * 7 * 5 + 2 * 7 * 3 + 2 * 5 * 3))
    of_x, of_y = (2 * 7 * 3 + 2 * 5 * 3 + 2 * 7 * 5), (2 * 7 * 5 + 2 * 5 * 3 + 2 * 7 * 3)  # two read, one written
    assert cross_gram.backward(2, 7, 5, 3, 4) == Cost(2 * count, 4 * (of_x + of_y))


def test_projections_cost_a_multiply_accumulate_for_each_entry_of_each_matrix():
    assert project.project(2, 7, 5, 3, 2) == Cost(2 * 7 * 5 * 3, 2 * (2 * 7 * 5 + 5 * 3 + 2 * 5 + 2 * 7 * 3))
    pair = project.project_pair(2, 7, 5, 4, 3, 2)
    assert pair.macs == project.project(2, 7, 5, 3, 2).macs + project.project(2, 7, 4, 3, 2).macs


def test_the_two_projections_of_a_hadamard_mean_are_not_in_its_traffic():
    assert hadamard_mean.forward(1, 1000, 8, 8, 4).bytes == 4 * (1000 * 8 + 2 * 8 * 8 + 8)


def test_the_gram_form_of_a_backward_pass_is_the_cheaper_one_of_tall_inputs():
    tall, direct = hadamard_mean.backward(1, 4096, 64, 64, 2), 6 * 4096 * 64 * 64
    assert tall.macs < direct
    assert hadamard_mean.backward(1, 16, 64, 64, 2).macs == 6 * 16 * 64 * 64


def test_bilinear_reads_and_writes_its_input_once():
    cost = bilinear.forward(2, 14, 14, 8, 2, 7, 7, 2)
    assert cost.bytes == 2 * (2 * 2 * 14 * 14 * 8 + 2 * 2 * 49**2)
    assert cost.macs == sum(1 for _ in product(range(2), range(14 * 14), range(8))) * 49


def test_the_halves_of_linear_attention_add_up():
    whole = linear_attention.forward(2, 9, 4, 3, 2)
    assert whole.macs == 2 * (2 * 9 * 4 * 3)
    assert whole == linear_attention.context(2, 9, 4, 3, 2) + linear_attention.query(2, 9, 4, 3, 2)


def test_projected_halves_multiply_once_more_and_move_the_map_in_the_place_of_what_is_made_of_it():
    projected = sum(1 for _ in product(range(2), range(9), range(5), range(4)))
    query, half = projected_attention.query(2, 9, 5, 4, 3, 2), linear_attention.query(2, 9, 4, 3, 2)
    assert query.macs == half.macs + projected
    assert query.bytes == half.bytes + 2 * (2 * 9 * 5 + 5 * 4 - 2 * 9 * 4)
    context, half = projected_attention.context(2, 9, 5, 4, 5, 2), linear_attention.context(2, 9, 4, 5, 2)
    assert context.macs == half.macs + projected
    assert context.bytes == half.bytes + 2 * (2 * 9 * 5 + 5 * 4 - 2 * 9 * 4)
    assert projected_attention.context(2, 9, 5, 4, 5, 2, same=True).bytes == context.bytes - 2 * (2 * 9 * 5)


def test_keys_are_made_again_for_every_256_values():
    once, twice = (projected_attention.context(1, 9, 5, 4, values, 2).macs for values in (256, 257))
    assert twice - once == 9 * 4 * (5 + 1)


TILES = (Tile(64, 64, 64), Tile(128, 64, 64), Tile(32, 32, 32))


@pytest.fixture
def timed(monkeypatch, tmp_path):
    """A device that is none, on which a tile takes as long as it has rows; the tiles that were timed."""
    runs: list[Tile] = []

    def milliseconds(tile, run):
        runs.append(tile)
        run(tile)
        return float(tile.rows)

    monkeypatch.setenv("POLYATTN_CACHE", str(tmp_path))
    monkeypatch.setattr(tuning, "_milliseconds", milliseconds)
    monkeypatch.setattr(tuning, "_device", lambda device: "a device")
    monkeypatch.setattr(tuning, "_chosen", {})
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return runs


class OnDevice:
    """As much of a tensor on a GPU as the choice of a tile looks at."""

    device = torch.device("cuda")
    dtype = torch.bfloat16


def choose(problem=(3, 100)):
    return tuning.best("kernel", problem, OnDevice(), TILES, lambda tile: None)  # pyright: ignore[reportArgumentType]


def test_the_fastest_tile_is_chosen_once_for_lengths_of_one_power_of_two(timed):
    assert choose() == Tile(32, 32, 32)
    assert choose((4, 128)) == Tile(32, 32, 32)
    assert timed == list(TILES)
    choose((4, 129))
    assert len(timed) == 6


def test_a_choice_outlives_the_process(timed, monkeypatch):
    choose()
    monkeypatch.setattr(tuning, "_chosen", {})
    assert choose() == Tile(32, 32, 32)
    assert len(timed) == 3


def test_an_unreadable_cache_is_made_anew(timed):
    tuning.cache_file().write_text("not json")
    assert choose() == Tile(32, 32, 32)
    assert "a device kernel" in tuning.cache_file().read_text()


def test_where_no_tile_runs_the_error_of_one_is_raised(timed, monkeypatch):
    monkeypatch.setattr(tuning, "_milliseconds", lambda tile, run: float("inf"))

    def run(tile):
        raise RuntimeError("no such instruction")

    with pytest.raises(RuntimeError, match="no such instruction"):
        tuning.best("kernel", (3, 100), OnDevice(), TILES, run)  # pyright: ignore[reportArgumentType]
    assert not tuning.remembered()


def test_a_tile_that_does_not_compile_takes_forever(monkeypatch):
    testing = pytest.importorskip("triton.testing")
    from triton.runtime.errors import OutOfResources

    for error in (OutOfResources(9, 8, "shared memory"), RuntimeError("PassManager::run failed")):

        def do_bench(call, error=error, **options):
            raise error

        monkeypatch.setattr(testing, "do_bench", do_bench)
        assert tuning._milliseconds(TILES[0], lambda tile: None) == float("inf")


def test_nothing_is_timed_while_a_graph_is_captured(timed, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert choose() == TILES[0]
    assert not timed


def test_with_tuning_off_the_first_tile_runs(timed, monkeypatch):
    monkeypatch.setenv("POLYATTN_TUNING", "off")
    assert choose() == TILES[0]
    assert not timed


def test_with_a_number_the_tile_of_that_number_runs(timed, monkeypatch):
    for number in range(4):
        monkeypatch.setenv("POLYATTN_TUNING", str(number))
        assert choose() == TILES[number % len(TILES)]
    assert not timed


@pytest.mark.interpreted
@pytest.mark.parametrize("kernel", ["gram", "cross_gram", "project"])
def test_torch_s_products_are_candidates_only_where_they_are_as_precise_as_asked(monkeypatch, kernel):
    from importlib import import_module

    asked = []

    def best(name, problem, x, tiles, run):
        asked.append((problem, TORCH in tiles))
        return SMALL

    for module in ("gram", "project"):
        monkeypatch.setattr(import_module(f"polyattn.kernels.{module}.triton"), "best", best)
    function = getattr(import_module(f"polyattn.kernels.{kernel}.triton"), kernel)
    x, w = torch.randn(1, 20, 4), torch.randn(4, 4)
    arguments = {"gram": (x, 1.0), "cross_gram": (x, x + 1, 1.0), "project": (x, w, None)}[kernel]
    for precision in ("", "ieee", "tf32"):
        function(*arguments, precision)
    assert [torch_too for _, torch_too in asked] == [True, False, False]
    assert len({problem for problem, _ in asked}) == 3


def test_exact_float32_products_get_small_tiles(timed, monkeypatch):
    monkeypatch.setattr(OnDevice, "dtype", torch.float32)
    assert max(max(choose((3, 100, "ieee"))[:3]), *(t.rows for t in timed)) <= 64
    assert choose((3, 100, "tf32")) in TILES
