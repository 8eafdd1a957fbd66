"""The commands of `polyattn`, one function each."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from polyattn.cli.arguments import check_folder, find_in_clone, name_specs, read_sizes, read_spec, read_sweep
from polyattn.errors import PolyattnError, ProofError
from polyattn.optional import command

ORDERS = "as written,opt_einsum,planned"

# Commands import their stages inside: the help should not wait for torch.
app = typer.Typer(
    name="polyattn",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes longer to import than the help takes to print
)


def print_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"polyattn {version('polyattn')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Show, prove, plan and study attention layers as equations; SPEC is a catalogue name, text, or a file."""


SpecArgument = Annotated[
    str, typer.Argument(metavar="SPEC", help="A catalogue name, equation text, a file, or code: file.py:Class.")
]


def reports_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Report errors of the library as a message on stderr and exit status 2, without a traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except PolyattnError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            # The shell's convention: 128 plus the number of the signal.
            raise typer.Exit(130) from None

    return wrapped


@app.command()
@reports_errors
def show(
    spec: SpecArgument,
    latex: Annotated[bool, typer.Option("--latex", help="Print the definitions as LaTeX instead.")] = False,
) -> None:
    """Print a specification with its degree and expanded form."""
    value = read_spec(spec)
    if latex:
        typer.echo(value.latex())
        return
    parameters = ", ".join(f"{n}[{','.join(s)}]" if s else n for n, s in value.parameters.items()) or "none"
    kind = "polynomial" if value.is_polynomial else "polynomial in the input and in functions of it,"
    typer.echo(f"{value}\n")
    typer.echo(f"parameters  {parameters}")
    typer.echo(f"degree      {value.degree}, {kind} of {len(value.polynomial().terms)} term(s)")
    typer.echo(f"expanded    {value.polynomial()}")


@app.command()
@reports_errors
def prove(
    first: SpecArgument,
    second: SpecArgument,
    given: Annotated[list[str] | None, typer.Option(help='Such as "wf[d,f] = wq[d,r]*wk[f,r]"; repeatable.')] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the verdict to this file.")] = None,
) -> None:
    """Decide whether two specifications are equal at every size. Exit status 0: equal; 1: not, or undecided."""
    from polyattn.proving import prove as decide

    check_folder(as_json, "--json")
    verdict = decide(read_spec(first), read_spec(second), given=given or [])
    typer.echo(str(verdict))
    if as_json is not None:
        try:
            as_json.write_text(verdict.to_json(indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ProofError(
                f"`--json`: cannot write to {str(as_json)!r}: {error.strerror}; name another file"
            ) from None
    # An open question counts as a failure: a script may rely on 0 as a proof.
    raise typer.Exit(0 if verdict else 1)


@app.command()
@reports_errors
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `polyattn prove --json FILE` wrote.")],
) -> None:
    """Check a verdict without trusting the prover. Exit status 0: it holds; 1: it does not."""
    from polyattn.proving import recheck

    try:
        # Undecodable bytes are a fault of the file, not of the program.
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ProofError(
            f"`FILE`: cannot read {str(file)!r}: {error}; give what `polyattn prove --json` wrote"
        ) from None
    answer = recheck(text)
    typer.echo(str(answer))
    raise typer.Exit(0 if answer else 1)


@app.command()
@reports_errors
def plan(
    spec: SpecArgument,
    sizes: Annotated[str, typer.Option(help="Such as N=784,C=512, with B for the batch.")],
    objective: Annotated[str, typer.Option(help='"forward", "training" or "as_written".')] = "forward",
    code: Annotated[bool, typer.Option("--code", help="Print the generated torch code as well.")] = False,
    cost: Annotated[str, typer.Option(help='"roofline", "macs", or "measured" here.')] = "roofline",
    device: Annotated[str, typer.Option(help='"cpu" or "cuda".')] = "cpu",
    memory_limit: Annotated[int | None, typer.Option(help="The most bytes of intermediates, in float32.")] = None,
    dtype: Annotated[str, typer.Option(help="In which products are computed, such as bfloat16.")] = "float32",
    kernels: Annotated[str, typer.Option(help='"auto", "off", or names with commas, such as gram,project.')] = "auto",
) -> None:
    """Print the cheapest order of contraction at given sizes."""
    from polyattn.lowering import whole_plan as make

    # One option stands for a list of names.
    taken = kernels if kernels in ("auto", "off") else kernels.split(",")
    known = read_sizes(sizes)
    options = {"memory_limit": memory_limit, "cost": cost, "device": device, "dtype": dtype, "kernels": taken}
    value = make(read_spec(spec), known, objective, **options)
    typer.echo(str(value))
    if code:
        from polyattn.lowering import lower

        typer.echo(lower(value, kernels=taken, device=device, dtype=dtype).code)


@app.command()
@reports_errors
def optimise(
    code: Annotated[str, typer.Argument(metavar="CODE", help="A module: file.py:Class, file.py:Class(64)@2x5x64.")],
    objective: Annotated[str, typer.Option(help='"forward" or "training".')] = "forward",
) -> None:
    """Print what planned forms would replace in a module.

    Exit status 0, also if nothing is replaced.
    """
    from polyattn.optimising import optimise as run
    from polyattn.reading.files import load_file

    module, example = load_file(code)
    typer.echo(str(run(module, example, objective=objective)))


@app.command()
@reports_errors
def study(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC...", help="Catalogue names, equation texts, or files.")],
    sizes: Annotated[str, typer.Option(help="Such as N=196:65536,C=64,R=C/8: a range doubles; B is the batch.")],
    objective: Annotated[str, typer.Option(help='"forward" or "training".')] = "forward",
    quantity: Annotated[str, typer.Option(help="What the figure shows, such as macs or peak_bytes.")] = "macs",
    picture: Annotated[str, typer.Option(help='"curves", "heat_map" or "roofline".')] = "curves",
    measure: Annotated[bool, typer.Option("--measure", help="Time every plan here as well.")] = False,
    formulas: Annotated[bool, typer.Option("--formulas", help="Print the formulas in the sizes as well.")] = False,
    orders: Annotated[str, typer.Option(help="Orders to count, separated by commas.")] = ORDERS,
    cost: Annotated[str, typer.Option(help='"roofline", "macs" or "measured".')] = "roofline",
    device: Annotated[str, typer.Option(help='"cpu" or "cuda": what predicts, and measures, times.')] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of predicted and measured times, such as bfloat16.")] = "float32",
    memory_limit: Annotated[int | None, typer.Option(help="Bytes for intermediates of the planned order.")] = None,
    form: Annotated[str, typer.Option("--format", help='"text", "markdown" or "latex".')] = "text",
    as_json: Annotated[Path | None, typer.Option("--json", help="Write all rows to this file as JSON.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A figure (.svg, .png, .pdf) or a table (.csv) of it all.")
    ] = None,
) -> None:
    """Print costs of layers over sweeps of sizes.

    SPEC may be "-", an equation on the standard input. Each is counted in the author's order, opt_einsum's and the
    planner's. Rows come on the error stream as they are counted; Ctrl-C ends the study, and the rows so far are printed
    and written.
    """
    from polyattn.cli.studying import run_study

    run_study(
        specs, read_sweep(sizes), objective, quantity, picture, formulas=formulas, form=form, as_json=as_json, out=out,
        measure=measure, orders=tuple(o.strip() for o in orders.split(",") if o.strip()), cost=cost, device=device,
        memory_limit=memory_limit, dtype=dtype,
    )  # fmt: skip


@app.command()
@reports_errors
def tables(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
    paper: Annotated[str | None, typer.Option(help='Only the tables of "bat" or of "poly_nl".')] = None,
    table: Annotated[str | None, typer.Option(help="Only the table of that number, such as 4 or 3a.")] = None,
) -> None:
    """Print the papers' tables beside counts made here.

    Accuracies are quoted as theirs.
    """
    from rich.console import Console

    sys.path.insert(0, str(find_in_clone("benchmarks", "the papers' tables come")))
    print_tables = import_module("papers").print_tables
    print_tables(Console(), as_json=as_json, paper=paper, number=table)


@app.command()
@reports_errors
def atlas(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Names of the catalogue; all of them by default.")
    ] = None,
    place: Annotated[
        list[str] | None, typer.Option(help="A layer of your own: a file, equation text, or code; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The page to write; atlas.html by default.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the atlas to this file as JSON.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="By default one for each core.")] = None,
) -> None:
    """Map which layer is a special case of which, with proofs.

    The proofs are written beside the page or the JSON file, one verdict for each edge. With --place, what the layer
    becomes and what becomes it is printed.
    """
    from polyattn.cli.mapping import run_atlas

    run_atlas(names or [], place or [], out, as_json, processes)


@app.command()
@reports_errors
def report(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC...", help="Catalogue names, equation texts, or files.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html"),
    sizes: Annotated[str, typer.Option(help="Such as N=784,C=512, with B for the batch.")] = "",
    given: Annotated[
        list[str] | None, typer.Option(help='For the proofs, such as "wf[d,f] = wq[d,r]*wk[f,r]".')
    ] = None,
    measurements: Annotated[list[Path] | None, typer.Option(help="A benchmark's JSON file; repeatable.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Time the author's and the planned orders here.")] = False,
    title: Annotated[str, typer.Option(help="Of the page.")] = "",
) -> None:
    """Write one page of diagrams, proofs, plans and curves.

    It is self-contained, and its curves have sliders for the sizes.
    """
    from polyattn.study.report import read_measurements, write_report

    check_folder(out, "--out")
    tables = [read_measurements(path) for path in measurements or []]
    named = name_specs(specs)
    write_report(out, named, read_sizes(sizes), given=given or [], measurements=tables, measured=measure, title=title)
    typer.echo(f"{out}: {', '.join(named)} ({out.stat().st_size:,} bytes)")


@app.command()
@reports_errors
def serve(
    port: Annotated[int, typer.Option(help="Of this machine's loopback address; 0 takes a free one.")] = 8642,
    seconds: Annotated[float, typer.Option(min=0.1, help="The most that one computation may take.")] = 10.0,
) -> None:
    """Serve the report's page live on this machine.

    Type an equation, see its plan, code, costs and proofs.
    """
    from polyattn.study.serve import Limits
    from polyattn.study.serve import serve as run

    run(port, Limits(seconds=seconds), started=lambda address: typer.echo(f"{address} (Ctrl-C ends it)"))


@app.command()
@reports_errors
def demo(
    out: Annotated[Path, typer.Option(help="The folder for tables and plots.")] = Path("demo-results"),
    quick: Annotated[bool, typer.Option("--quick", help="One seed and one epoch, to see that it works.")] = False,
) -> None:
    """Prove, plan, insert and train layers on real input."""
    folder = find_in_clone("examples", "the demo comes")
    # The demo's packages belong to an extra.
    try:
        from rich.console import Console

        sys.path.insert(0, str(folder))
        run = import_module("demo").run
    except ModuleNotFoundError as error:
        typer.echo(f"error: the demo needs {error.name}: {command('demo')}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(0 if run(out, Console(), quick=quick) else 1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
@reports_errors
def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Such as figure2; the rest of the line goes to it.")] = "",
) -> None:
    """Run a benchmark of the repository, or list them.

    Such as `polyattn bench figure2 --device cuda`; without a name, list them.
    """
    folder = find_in_clone("benchmarks", "the benchmarks come")
    names = sorted(path.stem for path in folder.glob("[!_]*.py"))
    if name not in names:
        asked = f"`NAME`: there is no benchmark {name!r}; " if name and not name.startswith("-") else ""
        typer.echo(f"{asked}there are {', '.join(names)}", err=bool(asked))
        raise typer.Exit(2 if asked else 0)
    script = folder / f"{name}.py"
    # The script reads its own command line, and imports the modules beside it.
    sys.argv = [str(script), *context.args]
    sys.path.insert(0, str(folder))
    runpy.run_path(str(script), run_name="__main__")


@app.command()
@reports_errors
def calibrate(
    device: Annotated[str, typer.Option(help='"cpu" or "cuda".')] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of what is measured, such as bfloat16.")] = "float32",
) -> None:
    """Measure this machine once, so that plans are chosen for it."""
    from polyattn.lowering.devices import calibration, path

    measured = calibration(device, dtype)
    found = measured.device
    typer.echo(f"{found.name}")
    typer.echo(f"  {found.macs_per_second / 1e9:,.1f} billion MACs a second in a large {dtype} matrix product")
    typer.echo(f"  {found.bytes_per_second / 1e9:,.1f} GB a second to and from memory")
    typer.echo(f"  {found.step_seconds * 1e6:,.1f} µs for an operation on almost nothing")
    typer.echo(f"  half of the rate at a side of {found.tile}")
    typer.echo(
        f"  {measured.rounds} rounds differ by {measured.noise:.0%}; threads waited {measured.waiting:.0%} of the time"
    )
    typer.echo(f"kept in {path()}")


@app.command()
@reports_errors
def scale(
    network: Annotated[str, typer.Argument(help="A network of polyattn.vision, such as resnet50.")],
    attention: Annotated[str, typer.Option(help="A block's name, such as poly_nl.")] = "poly_nl",
    image: Annotated[str, typer.Option(help="Its sides, such as 224 or 224x320; 8x224 for clips.")] = "224",
    batch: Annotated[int, typer.Option(help="Samples on each device.")] = 1,
    devices: Annotated[int, typer.Option(help="How many.")] = 8,
    link: Annotated[float, typer.Option(help="GB a second that a device sends.")] = 10.0,
    latency: Annotated[float, typer.Option(help="Microseconds of a message.")] = 20.0,
    device: Annotated[str, typer.Option(help='"cpu" or "cuda".')] = "cuda",
    states: Annotated[int, typer.Option(help="Numbers an optimizer keeps for each parameter.")] = 1,
    dtype: Annotated[str, typer.Option(help="Of the network, such as bfloat16.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Predict memory, communication and time of training."""
    from rich.console import Console

    from polyattn.parallel.show import print_scale

    print_scale(
        Console(),
        network,
        attention,
        image,
        batch=batch,
        devices=devices,
        gigabytes_per_second=link,
        microseconds=latency,
        device=device,
        states=states,
        as_json=as_json,
        dtype=dtype,
    )


def main() -> None:
    app()
