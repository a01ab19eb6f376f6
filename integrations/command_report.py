"""``uniformity report``: journals as one page, for people."""

from __future__ import annotations

from pathlib import Path

import click

from uniformity_callbacks.integrations.terminal import Failed, line


@click.command("report", short_help="Write one page, in HTML, on the runs of some journals.")
@click.argument("journals", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write; what is there is replaced.  [default: the journal's name with .html]",
)
def report_command(journals: tuple[Path, ...], output: Path | None) -> None:
    """Write one self-contained page on the runs of one to eight JOURNALS, the .jsonl files of runs.

    The verdict in words, curves of all runs over the optimizer step, alignment against uniformity, alerts and the
    loss's weight, the spectrum over time, and tables. The page has no script and fetches nothing: it can be mailed, and
    opened in any browser, on a telephone, in light or dark.

    \b
    Examples:
      uniformity report logs/uniformity.jsonl
      uniformity report a/uniformity.jsonl b/uniformity.jsonl -o both.html
    """  # noqa: D301 - the backspace keeps click from filling the lines that follow
    if output is None:
        if len(journals) > 1:
            raise click.UsageError("of several journals say where to write: -o report.html")
        output = journals[0].with_suffix(".html")
    if any(output.absolute() == journal.absolute() for journal in journals):
        raise Failed(line(f"-o {output} is a journal; give the page another name, such as -o report.html"))
    from uniformity_callbacks.report import write_report

    try:
        stories = write_report(journals, output)
    except OSError as error:
        place = f"{str(error.filename)!r}: " if error.filename else ""
        raise Failed(line(f"{place}{error.strerror or error}")) from error
    except (ValueError, ImportError) as error:
        raise Failed(line(str(error))) from error
    for story in stories:
        click.echo(line(f"{story.name}: {story.headline}"))
    click.echo(line(f"written to {output}"))
