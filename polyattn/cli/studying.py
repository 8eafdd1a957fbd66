"""The work of `polyattn study`: rows as they come, tables and figures, and all of it after an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from polyattn.cli.arguments import check_folder, name_specs
from polyattn.errors import PolyattnError
from polyattn.lowering import calibrated
from polyattn.study import complexity, pictures
from polyattn.study.printing import streamed
from polyattn.study.sizes import points
from polyattn.study.study import QUANTITIES, Case, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS: dict[str, Callable[[Study], str]] = {"text": str, "markdown": Study.markdown, "latex": Study.latex}

PICTURES: dict[str, Callable[[Study, str], Figure]] = {
    "curves": pictures.cost_curves,
    "heat_map": pictures.heat_map,
    "roofline": lambda study, _: pictures.roofline(study),
}
"""Pictures of a study, drawn of a quantity."""


def run_study(
    specs: list[str],
    sizes: Mapping[str, Any],
    objective: str,
    quantity: str,
    picture: str,
    *,
    formulas: bool,
    form: str,
    as_json: Path | None,
    out: Path | None,
    **options: Any,
) -> None:
    """Count, print and write a study.

    Args:
        specs: the arguments of the command.
        sizes: the sweep.
        quantity: the quantity of the figure.
        picture: one of `PICTURES`.
        formulas: whether to print them.
        form: one of `FORMATS`.
        as_json, out: files to write.
        options: those of `complexity`.

    Raises:
        PolyattnError: an option is not one of the known, or a file cannot be written.
        KeyboardInterrupt: after all that was counted was printed and written.
    """
    # All options are checked before the study, which may take minutes.
    check_folder(out, "--out")
    check_folder(as_json, "--json")
    if out is not None and out.suffix != ".csv":
        pictures.check_path(out)
    for option, value, known in (
        ("--format", form, FORMATS),
        ("--quantity", quantity, tuple(QUANTITIES)),
        ("--picture", picture, PICTURES),
    ):
        if value not in known:
            raise PolyattnError(f"`{option}`: got {value!r}, expected one of {', '.join(known)}")
    if quantity == "measured_seconds" and not options["measure"]:
        raise PolyattnError("`--quantity measured_seconds` needs `--measure`, which times every plan")
    if picture == "heat_map" and out is not None and len(points(sizes)[1]) != 2:
        raise PolyattnError(
            f"`--picture heat_map` needs two sizes with several numbers; found {', '.join(points(sizes)[1]) or 'none'}"
        )
    wanted = name_specs(specs, "layer")
    cases: list[Case] = []

    def counted(case: Case) -> None:
        cases.append(case)
        typer.echo(streamed(case, head=len(cases) == 1), err=True)

    interrupted = False
    try:
        found = complexity(wanted, objective, each=counted, **options, **sizes)
    except KeyboardInterrupt:
        if not cases:
            raise
        interrupted = True
        places = [dict(c.point) for c in cases]
        varied = tuple(n for n in places[0] if len({p[n] for p in places}) > 1)
        found = Study(
            objective, tuple(wanted.items()), varied, tuple(cases), calibrated(options["device"], options["dtype"])
        )
    typer.echo(FORMATS[form](found))
    if formulas:
        typer.echo("\n" + "\n\n".join(str(f) for several in found.formulas.values() for f in several))
    try:
        if as_json is not None:
            as_json.write_text(json.dumps(found.rows(), indent=1) + "\n", encoding="utf-8")
        if out is not None and out.suffix == ".csv":
            found.table().to_csv(out, index=False)
    except OSError as error:
        raise PolyattnError(f"cannot write to {error.filename!r}: {error.strerror}; name another file") from None
    if out is not None and out.suffix != ".csv" and (not interrupted or found.varied or picture == "roofline"):
        pictures.save(PICTURES[picture](found, quantity), out)
    if interrupted:
        raise KeyboardInterrupt
