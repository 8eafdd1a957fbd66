"""What layers and networks take of several devices, counted before anything runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import polyattn as pa
from polyattn.cli import app
from polyattn.lowering.sharded import lower_sharded
from polyattn.nn.shard_module import piecewise
from polyattn.parallel.communication import Communication, Traffic, even_counts
from polyattn.planning import Device, question, ranked_plans, shard
from polyattn.runtime.communicator import Pieces


def test_at_a_million_positions_less_than_a_hundredth_of_the_map_crosses():
    for layer in (pa.nn.PolyNL(64), pa.nn.EfficientNL(64), pa.nn.NonLocal(64, similarity="dot_product")):
        found = pa.parallel.communication(layer, (1, 64, 1000, 1000), 8)
        assert 0 < found.sent < 0.01 * found.gathering


def test_poly_nl_exchanges_c_numbers_a_sample_forward():
    found = pa.parallel.communication(pa.nn.PolyNL(64), (2, 64, 100, 100), 4)
    assert found.forward == 4 * 2 * 64
    assert found.parameters == 4 * (3 * 64 * 64 + 2)
    assert found.backward == found.forward + found.parameters


def test_of_poly_nls_orders_that_exchange_c_or_c_squared_numbers_the_plan_takes_c_at_any_speed():
    spec = pa.catalog.poly_nl()
    plans = ranked_plans(question(spec, {"N": 4096, "C": 64, "B": 2}), 12)
    entries = {shard(p.graph, p.names, "N", 1024, ("x",)).entries for p in plans}
    assert {2 * 64, 2 * 64 * 64} <= entries
    for speed in (1e3, 1e12):
        link = pa.parallel.Link(bytes_per_second=speed, latency=0.0)
        assert pa.parallel.communication(pa.nn.PolyNL(64), (2, 64, 64, 64), 4, link=link).forward == 4 * 2 * 64


def test_each_layer_of_a_network_is_counted_by_its_name():
    network = nn.Sequential(pa.nn.PolyNL(8), nn.ReLU(), pa.nn.CGNL(8, groups=2))
    found = pa.parallel.communication(network, (1, 8, 6, 6), 3)
    assert [t.layer for t in found.layers] == ["0", "2"]
    assert "0: 32 bytes forward" in str(found)


def test_a_bilinear_transform_by_channels_exchanges_pooled_rows_and_columns_only():
    layer = pa.nn.Attention(pa.catalog.ba_transform(), 16, sizes={"H": 9, "W": 12, "G": 4, "K": 3})
    found = pa.parallel.communication(layer, (2, 16, 9, 12), 3, dim=1)
    assert found.forward == 4 * 2 * (9 + 12) * 3
    assert pa.parallel.communication(layer, (2, 16, 9, 12), 3).forward >= 4 * 2 * 16 * 9 * 12


def test_a_bat_block_deals_its_inner_map_out_and_back_and_with_downsample_not_at_all():
    found = pa.parallel.communication(pa.nn.BATBlock(64), (1, 64, 56, 48), 4)
    assert found.dealt == (2 * 4 * 32 * 56 * 48,) * 2
    pooled = 4 * 4 * (56 + 3 * 48)  # the maxima of columns, how many there are, and their gradient's share
    assert pooled <= found.forward <= pooled + 4 * (4 * 64 + 2 * 32 + 2 * 4 + 64)  # and norms, and dropout
    small = pa.parallel.communication(pa.nn.BATBlock(64, downsample=True), (1, 64, 56, 48), 4)
    assert small.dealt == (0, 0)
    assert small.forward < 0.05 * sum(found.dealt)


def test_dealing_a_map_out_sends_all_but_the_own_share():
    link = pa.parallel.Link(bytes_per_second=1000.0, latency=0.5)
    assert link.dealing(16_000, 4) == pytest.approx(3 * (1.0 + 0.5))


def test_times_are_those_of_messages_sent_one_by_one():
    """A ring all-reduce passes each P-th of the payload round twice, less once; an all-to-all sends P - 1 shares."""
    speed, latency, payload, devices = 1000.0, 0.25, 24_000, 4
    link = pa.parallel.Link(speed, latency)
    message = payload / devices / speed
    ring = sum(message + 3 * latency for _ in (*range(devices - 1), *range(devices - 1)))  # three all-reduces
    assert link.seconds(payload, devices, 3) == pytest.approx(ring)
    share = payload / devices / devices / speed
    assert link.dealing(payload, devices, 2) == pytest.approx(sum(share + 2 * latency for _ in range(devices - 1)))
    assert link.seconds(payload, 1) == link.dealing(payload, 1) == 0


def test_a_call_s_traffic_is_added_up_by_hand():
    layer = Traffic("a").plus(100, True).plus(20, False).dealt(3200, True)
    found = Communication((layer, Traffic("b").plus(8, True)), parameters=50, devices=4, kept=0, map_bytes=4000)
    assert (found.forward, found.backward, found.dealt) == (128, 108 + 50, (3200, 3200))
    # Of what is reduced each device sends 3 quarters twice; of its own quarter of a map, 3 quarters.
    assert found.sent == pytest.approx(2 * 0.75 * (128 + 158) + 0.75 * 6400 / 4)
    assert found.gathering == pytest.approx(3000)
    link = pa.parallel.Link(bytes_per_second=10.0, latency=1.0)
    reductions, deals = 3 + 2 + 1, 2
    assert found.seconds(link) == pytest.approx(6 * ((128 + 158) / 4 / 10 + reductions) + 3 * (6400 / 16 / 10 + deals))


def test_each_device_keeps_its_own_rows():
    """A 1x1 convolution keeps its input for the gradient of its weights: 2 of 7 rows on the longest of 4 devices."""
    found = pa.parallel.communication(nn.Conv2d(8, 8, 1, bias=False), (3, 8, 7, 5), 4)
    assert found.kept == 4 * 3 * 8 * 2 * 5
    assert found.map_bytes == 4 * 3 * 8 * 7 * 5


def test_a_step_s_memory_and_time_by_hand():
    """Two 1x1 convolutions on maps of 3 x 5 multiply each position with each weight once."""
    device = Device("by hand", macs_per_second=100.0, bytes_per_second=10.0, step_seconds=0.0)
    link = pa.parallel.Link(bytes_per_second=1000.0, latency=0.5)
    network = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 6, 1, bias=False))
    found = pa.parallel.scale(network, (2, 4, 3, 5), 4, link=link, device=device, states=2)
    weights, macs = 4 * (16 + 24), 2 * 15 * (16 + 24)
    kept = 4 * 2 * 4 * 15  # what the second one reads, and the input
    assert (found.parameters, found.gradients, found.optimizer) == (weights, weights, 2 * weights)
    assert found.macs == macs
    assert found.activations in (kept, 2 * kept)
    assert found.memory == 4 * weights + found.activations
    assert found.sharded_memory == weights + found.activations
    assert found.computing == pytest.approx(3 * macs / 100 + 4 * found.activations / 10)
    assert found.exchanging == pytest.approx(6 * (weights / 4 / 1000 + 0.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x[N,C]; s[a,e] = x[a,d]*x[e,d]; y[a,b] = s[a,e]*x[e,b]", "pairs every position with every other along N"),
        ("x[N,C]; where e : N; s[a,e] = x[a,d]*p[d,e]; y[a,b] = s[a,a]*x[a,b]", "a diagonal"),
    ],
)
def test_what_pairs_positions_of_different_devices_is_refused(text: str, message: str):
    made = pa.plan(text, {"N": 6, "C": 4}, "as_written")
    with pytest.raises(pa.ShardingError, match=message):
        shard(made.graph, made.names, "N", 3, ("x",))


def test_a_softmax_over_positions_exchanges_its_maximum_and_its_sum():
    made = pa.plan(
        "x[N,C]; s[e,d] = softmax[e](x[e,d]); y[a,b] = x[a,b]*s[a,b]", {"B": 3, "N": 6, "C": 4}, "as_written"
    )
    assert shard(made.graph, made.names, "N", 2, ("x",)).entries == 2 * 3 * 4


@pytest.mark.parametrize(
    ("text", "equation", "factor"),
    [
        ("m[c,d] = 1/N*x[e,c]*x[e,d]; y[a,b] = x[a,d]*m[d,b]", "bad,bed,bec->bac", 1 / 6),
        ("m[c] = 1/N*x[e,c]; y[a,b] = x[a,b]*m[b]", "bac,bec->bac", 1 / 6),
        ("m[c] = 5*x[e,c]; y[a,b] = x[a,b]*m[b]", "bac,bec->bac", 5),
        ("m[c] = 2/N*x[e,c]*x[e,c]; y[a,b] = x[a,b]*m[b]", "bac,bec,bec->bac", 1 / 3),
    ],
)
def test_pieces_of_a_map_add_up_to_the_layer(text: str, equation: str, factor: float):
    """The whole layer in numpy, against pieces of 1, 4 and 1 positions whose partial sums are added up by hand."""
    made = pa.plan(f"x[N,C]; {text}", {"N": 6, "C": 3}, "as_written")
    sharded = shard(made.graph, made.names, "N", 2, ("x",))
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    pieces = [(0, 1), (1, 4), (5, 1)]
    partial: list[torch.Tensor] = []

    class First(Alone):
        def sum(self, value: torch.Tensor) -> torch.Tensor:
            partial.append(value)
            return value

    class Second(Alone):
        def sum(self, value: torch.Tensor) -> torch.Tensor:
            return torch.stack(partial).sum(0)

    graphs = [lower_sharded(made, sharded, piece, channels_first=False) for piece in pieces]
    parts = [x[:, start : start + length] for start, length in pieces]
    for graph, part in zip(graphs, parts, strict=True):
        graph(First(2), part)
    y = torch.cat([graph(Second(2), part) for graph, part in zip(graphs, parts, strict=True)], 1)
    array = x.numpy()
    expected = factor * np.einsum(equation, *[array] * (equation.count(",") + 1))
    torch.testing.assert_close(y, torch.from_numpy(expected))


def test_blocks_are_not_cut_along_channels():
    with pytest.raises(pa.ShardingError, match="along channels, only an Attention"):
        pa.parallel.communication(pa.nn.CGNL(8, groups=2), (1, 8, 4, 4), 2, dim=1)


class Alone(Pieces):
    """A piece that meets no other."""

    def sum(self, value: Tensor) -> Tensor:
        return value

    def maximum(self, value: Tensor) -> Tensor:
        return value


def test_groups_of_channels_stay_together():
    exchange = Alone(1, (6, 2))
    layer = piecewise(pa.nn.Attention(pa.catalog.ba_transform_block(), 8, sizes={"S": 1, "G": 2, "K": 3}), exchange)
    with pytest.raises(pa.SizeError, match="groups of 4 channels"):
        layer(torch.ones(1, 6, 3, 3))


def test_rows_are_cut_as_torch_chunks_them():
    assert even_counts(5, 4) == (2, 2, 1, 0)


def test_two_axes_of_one_size_are_no_positions():
    plan = pa.plan("x[N,N]; y[a,b] = x[a,d]*w[d,b]", {"N": 4})
    with pytest.raises(pa.ShardingError, match="two axes of size N"):
        shard(plan.graph, plan.names, "N", 2, ("x",))


def test_the_command_prints_memory_communication_and_time():
    line = ["scale", "resnet18", "--image", "64", "--devices", "4", "--batch", "2", "--device", "cpu"]
    result = CliRunner().invoke(app, [*line, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["exchanged"] == found["gradients"]
    assert found["memory"] == sum(found[k] for k in ("parameters", "gradients", "optimizer", "activations"))
    assert found["layers"][0]["communication"]["layers"][0]["forward"] == 4 * 8 * 256


def test_the_command_s_tables_cut_nothing_off_and_say_what_cannot_be_cut():
    line = ["scale", "resnet50", "--image", "64", "--devices", "4", "--batch", "1", "--device", "cpu"]
    result = CliRunner().invoke(app, [*line, "--attention", "bat"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert "…" not in result.output
    assert all(f"layer{place}.attention" in result.output for place in ("2.1", "2.3", "3.1", "3.3", "3.5"))
    line[1] = "resnet18"
    refused = CliRunner().invoke(app, [*line, "--attention", "nl"], env={"COLUMNS": "80"})
    assert refused.exit_code == 0, refused.output
    assert "cannot be cut: layer2.1.attention, " in refused.output


def test_the_command_names_the_networks_that_there_are():
    result = CliRunner().invoke(app, ["scale", "resnet19"])
    assert result.exit_code == 2
    assert "resnet18" in result.output


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--link", "inf"), "`--link`: got inf"),
        (("--latency", "-1"), "`--latency`: got -1.0"),
        (("--states", "-1"), "`--states`: got -1"),
        (("--dtype", "int8"), "`--dtype`: got 'int8'"),
        (("--image", "8"), "does not train on an input of shape (1, 3, 8, 8)"),
    ],
)
def test_numbers_and_images_out_of_range_are_refused_by_their_option(option: tuple[str, ...], message: str):
    result = CliRunner().invoke(app, ["scale", "resnet18", *option])
    assert (result.exit_code, message in result.output) == (2, True), result.output


def test_a_network_of_16_bits_is_timed_at_their_rates():
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1))
    wide = pa.parallel.scale(model, (8, 3, 64, 64), 2, device="cuda")
    narrow = pa.parallel.scale(model.bfloat16(), (8, 3, 64, 64), 2, device="cuda")
    assert (narrow.macs, narrow.parameters) == (wide.macs, wide.parameters // 2)
    assert narrow.computing < 0.6 * wide.computing
    with pytest.raises(pa.SizeError, match="`states`"):
        pa.parallel.scale(model, (1, 3, 8, 8), 2, states=-1)
