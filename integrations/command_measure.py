"""``uniformity measure``: the metrics of embeddings on disk, and what they say of collapse."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from uniformity_callbacks.glossary import GLOSSARY
from uniformity_callbacks.integrations.terminal import Failed, Progress, count, line, printable

if TYPE_CHECKING:
    from uniformity_callbacks.integrations.measuring import Measured

_WIDTH = 80
_BESIDE = 3
"""Files that a table has beside the ideal in 80 columns."""

_PUBLISHED = (
    "Published W2 in eval mode (d 256, 10,000 images): MoCo v2 1.06, BYOL 1.21, Barlow Twins 0.22, Zero-CL 0.15 "
    "(arXiv 2403.00642)."
)


@click.command("measure", short_help="Measure embeddings on disk, and say whether they are collapsed.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--views",
    type=click.IntRange(1, 2),
    default=1,
    show_default=True,
    help="2: two FILEs are two views of the same images, row i of each; measured together, with their alignment.",
)
@click.option("--metrics", metavar="NAME,...", help="Which numbers.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each FILE; NaN is null.")
def measure_command(files: tuple[str, ...], views: int, metrics: str | None, as_json: bool) -> None:
    """Measure the embeddings in each FILE, and say in words whether they are collapsed.

    A FILE is a .npy, .npz, .safetensors, .pt or .pth that holds a floating-point array (n, d), a row a sample; one of
    several is named as FILE:name. It is read in blocks, in memory that does not grow with the number of rows, and
    nothing in it is unpickled. All rows count, but for lu, which is of a random sample of 2,048 where there are more.

    \b
    Examples:
      uniformity measure features.npy
      uniformity measure before.pt after.pt
      uniformity measure features.npz:a features.npz:b --metrics w2,rankme
      uniformity measure --views 2 view0.safetensors view1.safetensors
      uniformity measure features.npy --json | python -m json.tool

    The verdict has the thresholds of the alerts. The exit code is 0 whatever it is, and 2 if a FILE could not be
    measured; the others are measured all the same.
    """  # noqa: D301 - the backspace keeps click from filling the lines that follow
    if views == 2 and len(files) != 2:
        raise click.UsageError(f"--views 2 is for two FILEs, row i of each of one image, got {len(files)}")
    from uniformity_callbacks.integrations.measuring import measure

    names = _names(metrics, views)
    found, failed = [], False
    for group in [files] if views == 2 else [(file,) for file in files]:
        try:
            measured = _measured(measure, group, names)
        except Failed as error:
            error.show()
            failed = True
            continue
        found.append(measured)
        if as_json:
            click.echo(json.dumps(_plain(measured, names), allow_nan=False))
    if found and not as_json:
        click.echo(_report(found, names))
    if failed:
        raise click.exceptions.Exit(Failed.exit_code)


def _names(metrics: str | None, views: int) -> tuple[str, ...]:
    from uniformity_callbacks.panel import METRICS, check_metrics

    if metrics is None:
        return tuple(name for name in METRICS if name != "alignment" or views > 1)
    try:
        names = check_metrics([name.strip() for name in metrics.split(",")])
    except ValueError as error:
        raise click.UsageError(f"--{line(str(error))}") from error
    if "alignment" in names and views == 1:
        raise click.UsageError("--metrics has alignment, which is between two views; give two FILEs with --views 2")
    return tuple(dict.fromkeys(names))


def _measured(measure: Any, files: Sequence[str], names: Sequence[str]) -> Measured:
    from uniformity_callbacks.integrations.arrays import ArrayError, find

    try:
        arrays = [find(file) for file in files]
        with Progress("rows") as progress:
            measured: Measured = measure(arrays, names, progress)
            return measured
    except ArrayError as error:
        raise Failed(line(str(error))) from error
    except Exception as error:  # such as no memory for an array of very many features
        what = line(f"{type(error).__name__}: {error}")
        raise Failed(f"{' and '.join(files)} could not be measured: {what}") from error


def _plain(measured: Measured, names: Sequence[str]) -> dict[str, Any]:
    """Return it as it goes into JSON."""
    first, values = measured.arrays[0], measured.reading.values
    numbers = {name: values.get(name, math.nan) for name in (*names, "samples", "nonfinite")}
    verdict = measured.verdict
    return {
        "file": str(first.path),
        "array": first.name or None,
        "views": [{"file": str(array.path), "array": array.name or None} for array in measured.arrays],
        "rows": measured.rows,
        "dims": measured.reading.dims,
        "dtype": first.dtype,
        "metrics": {name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "lu_rows": measured.rows if measured.sampled is None else measured.sampled,
        "zero_rows": measured.zero,
        "repeated_rows": measured.repeated,
        "verdict": {"kind": verdict.kind, "title": verdict.title, "words": verdict.words},
    }


def _report(found: Sequence[Measured], names: Sequence[str]) -> str:
    """Return tables and verdicts, 80 columns wide."""
    from uniformity_callbacks.verdict import MODES

    numbered = len(found) > 1
    marks = [f"[{k}] " if numbered else "" for k in range(1, len(found) + 1)]
    parts = ["\n".join(mark + _head(measured) for mark, measured in zip(marks, found, strict=True))]
    for at in range(0, len(found), _BESIDE):
        some = slice(at, at + _BESIDE)
        heads = [mark.strip() for mark in marks[some]] if numbered else ["value"]
        parts.append(_table(found[some], heads, names))
    notes: dict[str, str] = {}  # note -> of which files it is
    for mark, measured in zip(marks, found, strict=True):
        for note in _notes(measured, names):
            notes[note] = notes.get(note, "") + mark
    if notes:
        parts.append("\n".join(_filled(of + note) for note, of in notes.items()))
    for mark, measured in zip(marks, found, strict=True):
        verdict = measured.verdict
        parts.append(_filled(f"{mark}{verdict.title.upper()}: {verdict.words}"))
    parts += [_filled(MODES), _filled(_PUBLISHED)]
    return printable("\n\n".join(parts))


def _head(measured: Measured) -> str:
    array = measured.arrays[0]
    views = " and ".join(map(str, measured.arrays))
    rows, dims = count(measured.rows, "row") or "0 rows", count(measured.reading.dims, "dimension")
    return f"{views}: {rows} of {dims}, {array.dtype}"


def _table(found: Sequence[Measured], heads: Sequence[str], names: Sequence[str]) -> str:
    """Return a column for each, and where each number stands at the ideal and at collapse."""
    columns = ["ideal", "one point", *(["few dimensions"] if len(found) == 1 else [])]
    lines = [["", *heads, *columns]]
    for name in (*names, "samples", "nonfinite"):
        entry = GLOSSARY[name]
        known = [entry.ideal, entry.one_point, entry.few_dimensions][: len(columns)]
        lines.append([name, *(_number(name, measured) for measured in found), *known])
    widths = [max(len(cells[k]) for cells in lines) for k in range(len(lines[0]))]
    numbers = range(1, 1 + len(found))
    return "\n".join(
        "  ".join(
            cell.rjust(width) if k in numbers else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in lines
    )


def _number(name: str, measured: Measured) -> str:
    value = measured.reading.values.get(name, math.nan)
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if name in ("samples", "nonfinite") else f"{value:.4g}"


def _notes(measured: Measured, names: Sequence[str]) -> list[str]:
    """Return what is to be known of the numbers."""
    notes, values = [], measured.reading.values
    if measured.sampled is not None and "lu" in names:
        of = " of each view" if len(measured.arrays) > 1 else ""
        notes.append(f"lu is of a random sample of {measured.sampled:,} rows{of}, the other numbers of all rows.")
    if measured.zero:
        notes.append(f"{count(measured.zero, 'row')} left out: zero, which has no direction.")
    if measured.repeated:
        notes.append(
            f"{measured.repeated:,} of {values['samples']:,.0f} rows repeat another to the last bit; w2_corrected and "
            "effective_dims take rows for independent: from about 1 % on they read too high and too low."
        )
    if any(math.isnan(values.get(name, math.nan)) for name in names):
        notes.append("-: what such a sample does not tell.")
    return notes


def _filled(text: str) -> str:
    return textwrap.fill(text, _WIDTH - 1, break_long_words=False, break_on_hyphens=False)
