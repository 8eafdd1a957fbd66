"""Work of `polyattn atlas`: builds the atlas, places layers of one's own in it, writes the page and the data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from polyattn.cli.arguments import check_folder, name_specs
from polyattn.study.atlas import Atlas, build, write_page
from polyattn.study.atlas.build import proofs_beside, write_proofs

PAGE = Path("atlas.html")
LONG = 1000
"""Least number of pairs of a run that reports its progress to a log."""


def run_atlas(
    names: Sequence[str], place: Sequence[str], out: Path | None, as_json: Path | None, processes: int | None
) -> None:
    """Build the atlas, and write and print the parts asked for.

    Args:
        names: names of the catalogue; all of them if empty.
        place: layers of one's own, as the command line names specifications.
        out, as_json: the files to write. Without any and without a placed layer, the page is `atlas.html`.
        processes: number of processes; None for one for each core.
    """
    check_folder(out, "--out")
    check_folder(as_json, "--json")
    own = name_specs(list(place))
    if not own and as_json is None and out is None:
        out = PAGE
    # A terminal shows each step in one line; a log gets a line for each tenth of a run that takes minutes.
    shown, tenth = sys.stderr.isatty(), 0

    def progress(done: int, count: int) -> None:
        nonlocal tenth
        if shown:
            typer.echo(f"\r{done:,} of {count:,} pairs", err=True, nl=done == count)
        elif count >= LONG and 10 * done // count > tenth:
            tenth = 10 * done // count
            typer.echo(f"{done:,} of {count:,} pairs", err=True)

    only_own = bool(own) and as_json is None and out is None
    atlas = build(names or None, own, only_own=only_own, processes=processes, progress=progress)
    for name in own:
        typer.echo(placed_text(atlas, name))
    if as_json is not None:
        folder = atlas.write_json(as_json)
        typer.echo(f"{as_json}: {summary(atlas)}; proofs in {folder}")
    if out is not None:
        write_page(atlas, out)
        folder = proofs_beside(as_json or out)
        if as_json is None:
            write_proofs(atlas, folder)
        typer.echo(f"{out}: {summary(atlas)} ({out.stat().st_size:,} bytes); proofs in {folder}")


def summary(atlas: Atlas) -> str:
    """Return the numbers of an atlas in one line."""
    return f"{len(atlas.layers)} layers, {len(atlas.found)} proved relations, {len(atlas.edges)} edges"


def placed_text(atlas: Atlas, name: str) -> str:
    """Return the place of a layer: its special cases and the layers that it is one of, with the conditions."""
    lines = [name]
    for title, mine in (("becomes", 0), ("is a case of", 1)):
        for pair, relation in sorted(atlas.found.items()):
            if pair[mine] == name:
                lines.append(f"  {title} {pair[1 - mine]}: {relation.condition}")
    cut = sum(name in pair for pair in atlas.cut)
    if len(lines) == 1:
        lines.append(f"  no relation within this search: {atlas.searched:,} candidates")
    if cut:
        lines.append(f"  ({cut} searches ended because their effort was spent)")
    return "\n".join(lines)
