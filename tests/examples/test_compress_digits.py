"""The example's claims: what its network passes through the layer, and what its table and record say."""

import json

import pytest
import torch

from examples import compress_digits as example


@pytest.fixture
def briefly(monkeypatch):
    """The example with a few channels and images, so that it takes seconds."""
    monkeypatch.setattr(example, "WIDTH", 6)
    monkeypatch.setattr(example, "FITTED", 16)
    x, labels, x_test, labels_test = example.digits()
    monkeypatch.setattr(example, "digits", lambda: (x[:64], labels[:64], x_test[:50], labels_test[:50]))


def test_the_split_keeps_every_image_once():
    x, _, x_test, labels_test = example.digits()
    assert (len(x), len(x_test)) == (1347, 450)
    assert len(torch.cat([x, x_test]).flatten(1).unique(dim=0)) == 1797
    assert sorted({*labels_test.tolist()}) == [*range(10)]


def test_all_of_the_image_passes_through_the_layer():
    """A layer of zeros leaves nothing to tell the images apart."""
    torch.manual_seed(0)
    model = example.network().eval()
    outputs = example.without(model)(torch.rand(5, 1, 8, 8))
    assert torch.equal(outputs, outputs[:1].expand(5, -1))
    assert not torch.equal(model(torch.rand(5, 1, 8, 8))[0], outputs[0])


def test_the_record_keeps_to_the_budget_and_an_interrupted_run_goes_on(briefly, tmp_path):
    record = tmp_path / "found.json"
    example.main(full=False, seeds=1, out=record, figure=tmp_path / "found.png")
    (run,) = json.loads(record.read_text())["runs"]
    assert [c["family"] for c in run["candidates"]] == ["cp_nl", "tt_nl", "truncation"]
    for candidate in run["candidates"]:
        assert candidate["share"] == candidate["macs"] / run["macs"] <= 1 / 3
    assert run["candidates"][2]["accuracy"] == run["candidates"][2]["accuracy before"]  # truncation is not tuned
    assert (tmp_path / "found.png").stat().st_size > 1000
    assert example.table([run]).row_count == 2 + 3  # NL and zeros, then what replaces them
    whole = json.loads(record.read_text())
    del whole["runs"][0]["candidates"][1]
    record.write_text(json.dumps(whole))
    example.main(full=False, seeds=1, out=record, figure=None)
    (again,) = json.loads(record.read_text())["runs"]
    assert {c["family"] for c in again["candidates"]} == {"cp_nl", "tt_nl", "truncation"}
    assert again["candidates"][0] == run["candidates"][0]
