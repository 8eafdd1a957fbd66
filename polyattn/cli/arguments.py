"""Values of the arguments of the `polyattn` command: specifications, sizes, and files to write."""

from __future__ import annotations

import re
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyattn.errors import PolyattnError, SizeError, SpecError

if TYPE_CHECKING:
    from polyattn.algebra import Spec


def read_spec(source: str) -> Spec:
    """Return the specification meant by a command-line argument."""
    from polyattn import catalog
    from polyattn.algebra import Spec

    if source in catalog.names():
        return catalog.get(source)
    if source == "-":
        return Spec(sys.stdin.read())
    if ".py:" in source:
        from polyattn.reading.files import is_reference, read_file

        if is_reference(source):
            return read_file(source).spec
    # Only an equation has a bracket: names and paths hardly ever do.
    if "[" in source:
        return Spec(source)
    path = Path(source)
    try:
        text = path.read_bytes() if path.is_file() else None
    except OSError as error:  # a name that is too long, or a file that may not be read
        raise SpecError(
            f"`SPEC`: cannot read the file {source[:200]!r}: {error.strerror}; give a readable file"
        ) from None
    if text is not None:
        try:
            return Spec(text)
        except SpecError as error:
            raise SpecError(f"{source}: {error.reason}", error.source, error.line, error.column) from None
    # A path that does not exist; anything else is taken for a misspelt catalogue name.
    if path.suffix or "/" in source:
        raise SpecError(f"`SPEC`: there is no file {source!r}; give a file, a catalogue name or an equation")
    return catalog.get(source)


def check_folder(path: Path | None, option: str) -> None:
    """Check that a file can be created at `path`, before its content is computed.

    Raises:
        PolyattnError: its folder does not exist, or the path is a folder itself.
    """
    if path is not None and not path.parent.is_dir():
        raise PolyattnError(f"`{option} {path}`: the folder {str(path.parent)!r} does not exist; make it first")
    if path is not None and path.is_dir():
        raise PolyattnError(f"`{option} {path}` is a folder; name a file in it")


def find_in_clone(folder: str, subject: str) -> Path:
    """Return a folder of the repository, which a wheel does not contain.

    Raises:
        PolyattnError: polyattn does not run from a clone.
    """
    path = Path(__file__).parents[2] / folder
    if not any(path.glob("[!_]*.py")):
        raise PolyattnError(f"{subject} with the repository, not with the package: run this in a clone of it")
    return path


def name_specs(sources: list[str], own: str = "own") -> dict[str, Spec]:
    """Return the specifications meant by arguments, by title: catalogue names, names of files, `own` for equations."""
    from polyattn import catalog

    found: dict[str, Spec] = {}
    for source in sources:
        spec = read_spec(source)
        code = re.search(r"\.py:([A-Za-z_]\w*)", source)
        stem = source if source in catalog.names() else own if "[" in source or source == "-" else Path(source).stem
        stem = code[1] if code else stem
        # Numbered, so that two equations on one command line keep their places.
        name = next(n for k in count(1) if (n := stem if k == 1 else f"{stem} {k}") not in found)
        found[name] = spec
    return found


def read_sizes(text: str) -> dict[str, int]:
    """Read sizes from text such as "N=784,C=512"."""
    sizes: dict[str, int] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, number = (p.strip() for p in part.partition("="))
        # `isdecimal` refuses signs and points: sizes are counts.
        if not equals or not name or not number.isdecimal():
            raise SizeError(
                f"`--sizes`: got {part!r}, expected a size and a number such as N=784; separate several with commas"
            )
        if name in sizes:
            raise SizeError(f"`--sizes` gives {name} twice; give each size once")
        sizes[name] = int(number)
    return sizes


def read_sweep(text: str) -> dict[str, Any]:
    """Read sizes, ranges and products of sizes from text such as "N=196:65536,C=64,R=C/8"."""
    sizes: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, value = (p.strip() for p in part.partition("="))
        if not equals or not (name.isidentifier() and name[0].isupper()) or not value:
            raise SizeError(f"`--sizes`: got {part!r}, expected sizes, ranges or products such as N=196:65536,R=C/8")
        if name in sizes:
            raise SizeError(f"`--sizes` gives {name} twice; give each size once")
        # Ranges and products stay text here; `complexity` reads them.
        sizes[name] = value
    return sizes
