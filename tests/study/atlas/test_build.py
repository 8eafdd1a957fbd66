"""The atlas as data: what is written is what was proved, and an independent checker accepts it."""

import json

import pytest

import polyattn as pa
from polyattn.proving import Verdict, recheck
from polyattn.study.atlas import build


def test_the_edges_of_a_small_atlas(atlas):
    assert atlas.classes == (("nl", "e_nl"), ("poly_nl",), ("cp_nl",), ("pi_net_ccp",))
    assert {(e.first, e.second) for e in atlas.edges} == {
        ("nl", "e_nl"), ("e_nl", "nl"), ("cp_nl", "poly_nl"), ("cp_nl", "e_nl"),
    }  # fmt: skip
    assert ("cp_nl", "nl") in atlas.found
    assert atlas.cut == ()


def test_the_file_has_layers_and_edges_with_proofs_that_hold(atlas, tmp_path):
    path = tmp_path / "atlas.json"
    atlas.write_json(path)
    data = json.loads(path.read_text(encoding="utf-8"))
    layers = {layer["name"]: layer for layer in data["layers"]}
    assert layers["poly_nl"]["year"] == 2021
    assert layers["poly_nl"]["degree"] == 3
    assert pa.Spec(layers["nl"]["equation"]) == pa.catalog.nl()
    assert layers["nl"]["invariants"] == pa.invariants("nl").data()
    assert layers["poly_nl"]["invariants"]["exponents"] == {"N": 1, "C": 2}
    assert len(data["edges"]) == len(atlas.edges)
    for edge in data["edges"]:
        text = (tmp_path / edge["certificate"]).read_text(encoding="utf-8")
        assert recheck(text)
        assert set(edge["given"]) | set(edge["sizes"]) == set(Verdict.from_json(text).given)
        assert pa.prove(edge["left"], edge["right"], given=[*edge["given"], *edge["sizes"]])


def test_a_layer_of_ones_own_is_placed():
    own = pa.Spec("x[N,C]; y[a,b] = x[a,d]*u[d,r]*x[e,f]*v[f,r]*x[e,b]; where r : R")
    placed = build(["nl", "poly_nl", "cp_nl"], {"mine": own}, only_own=True, processes=1)
    assert {pair for pair in placed.found if "mine" in pair} >= {("nl", "mine"), ("cp_nl", "mine")}
    assert ("mine", "nl") not in placed.found
    with pytest.raises(pa.PolyattnError, match="has the name 'nl' of the catalogue"):
        build(["nl"], {"nl": own})


def test_the_command_writes_the_data_and_says_where_a_layer_stands(tmp_path):
    from typer.testing import CliRunner

    from polyattn.cli import app

    path, own = tmp_path / "out.json", tmp_path / "my_layer.txt"
    own.write_text("x[N,C]; y[a,b] = x[a,d]*u[d,f]*x[e,f]*x[e,b]", encoding="utf-8")
    run = CliRunner().invoke(app, ["atlas", "nl", "poly_nl", "--json", str(path), "--processes", "1"])
    assert run.exit_code == 0, run.output
    assert {layer["name"] for layer in json.loads(path.read_text(encoding="utf-8"))["layers"]} == {"nl", "poly_nl"}
    run = CliRunner().invoke(app, ["atlas", "nl", "--place", str(own), "--processes", "1"])
    assert run.exit_code == 0, run.output
    assert "my_layer\n  is a case of nl: wf[c,c1] = u[c,c1]; wg[c,c1] = I[c,c1]" in run.output


def test_a_long_run_reports_its_progress_to_a_log(monkeypatch, capsys):
    from polyattn.cli import mapping

    def build(names, own, *, progress, **rest):
        for done in range(0, 5001, 24):
            progress(done, 5000)
        raise pa.PolyattnError("done")

    monkeypatch.setattr(mapping, "build", build)
    with pytest.raises(pa.PolyattnError):
        mapping.run_atlas([], [], None, None, 1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 9  # the last step is not quite the end
    assert lines[0] == "504 of 5,000 pairs"
