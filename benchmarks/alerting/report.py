"""The tables of docs/alert_benchmark.md."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from benchmarks import page
from benchmarks.alerting import baselines, record, sweep
from benchmarks.alerting.cases import DIMENSIONAL, HEALTHY, Case
from benchmarks.alerting.record import Task
from benchmarks.alerting.replay import KINDS, Verdict, false_alarms, healthy, labelled
from benchmarks.alerting.sweep import Known, Point
from uniformity_callbacks.rules import LEAST_ABOUT_MEAN, CollapseAlert


def known(tasks: Sequence[Task]) -> list[Known]:
    """Return the recorded runs with their labels."""
    return sweep.with_labels([record.read(task) for task in tasks])


def choosing(runs: Iterable[Known]) -> list[Known]:
    """Return the half on which thresholds are chosen."""
    return [one for one in runs if one.run.seed % 2 == 1]


def judging(runs: Iterable[Known]) -> list[Known]:
    """Return the half on which they are judged."""
    return [one for one in runs if one.run.seed % 2 == 0]


def text(runs: Sequence[Known]) -> str:
    """Return all tables."""
    usual = sweep.about_mean(runs, LEAST_ABOUT_MEAN)
    chosen = sweep.chosen(choosing(usual))
    parts = [
        "### What became of the runs",
        labels(runs),
        "### The defaults, on the half that judges",
        judged(sweep.verdicts(judging(runs), sweep.defaults())),
        "### The defaults, on all runs",
        judged(sweep.verdicts(runs, sweep.defaults())),
        "### What was told, by what is the case (all runs, defaults)",
        confused(sweep.verdicts(runs, sweep.defaults())),
        f"### Thresholds chosen on the odd seeds, on the half that judges: {'; '.join(map(words, chosen[:2]))}",
        judged(sweep.verdicts(judging(usual), chosen)),
        "### What depends on the line of the label (all runs, defaults)",
        strictness(runs),
        "### Thresholds against each other (all runs)",
        *(curve(title, [sweep.point(runs, rule) for rule in rules]) for title, rules in SWEEPS.items()),
        curve("effective dims times 1 - R², 0.75 at least", [sweep.point(usual, rule) for rule in sweep.dims()]),
        "### How much of the mean counts (thresholds chosen on the odd seeds)",
        means(runs),
        "### With a threshold that a healthy run of the same method sets",
        baselines.table(runs, judging(runs)),
    ]
    return "\n\n".join(parts)


SWEEPS: dict[str, list[CollapseAlert]] = {
    "mean resultant": sweep.constants(),
    "effective dims": sweep.dims(),
    "fall to a share of the run's own level": sweep.falls(),
}


def means(runs: Sequence[Known]) -> str:
    """Return one row for each share of energy about the mean that counts at least: 1 is effective dims as they are."""
    rows = []
    for least in sweep.LEAST:
        about = sweep.about_mean(runs, least)
        rule = sweep.chosen(choosing(about))[1]
        name = f"{least:g}, the default" if least == LEAST_ABOUT_MEAN else f"{least:g}"
        found = (sweep.point(some, rule) for some in (judging(about), about))
        rows.append([name, f"{rule.threshold:g}", *baselines.cells(*found)])
    return page.table(["share about the mean, at least", "dims chosen", *baselines.COLUMNS], rows)


def labels(runs: Sequence[Known]) -> str:
    """Return one row a case: what was expected, what it turned out to be, since when."""
    rows = []
    for case in _cases(runs):
        same = [one for one in runs if one.run.case == case]
        kinds = Counter(one.label.kind or "none" for one in same)
        onsets = [one.label.onset for one in same if one.label.onset is not None]
        last = [one.run.looks[-1] for one in same]
        rows.append(
            [
                case.title,
                case.expected or "not known",
                ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()),
                f"{statistics.median(onsets):.0f} ({min(onsets)} to {max(onsets)})" if onsets else "",
                f"{statistics.median(look.cosine for look in last):.2f}",
                f"{statistics.median(look.components for look in last):.0f}",
            ]
        )
    head = ["run", "expected", "turned out", "onset, step", "last cosine", "last components"]
    return page.table(head, rows)


def _cases(runs: Sequence[Known]) -> list[Case]:
    return list({one.run.case.name: one.run.case for one in runs}.values())


def judged(verdicts: Sequence[Verdict]) -> str:
    """Return one row a kind: collapses found in time, after how many readings, and false alarms."""
    rows = []
    for kind in KINDS:
        there = labelled(verdicts, kind)
        delays = [v.delay for v in there if v.delay is not None]
        rows.append(
            [
                kind,
                str(len(there)),
                str(sum(v.found for v in there)),
                str(len(delays)),
                f"{statistics.median(delays):.0f} ({min(delays)} to {max(delays)})" if delays else "",
                f"{false_alarms(verdicts, kind)} of {healthy(verdicts)}",
            ]
        )
    head = ["kind", "runs", "told in time", "told at all", "after readings", "false alarms in healthy runs"]
    missed = [v for kind in KINDS for v in labelled(verdicts, kind) if not v.found]
    false = [v for v in verdicts if v.run.case.expected == HEALTHY and v.told]
    notes = [
        *(f"Not told in time: {_name(v)} ({v.label.kind} from {v.label.onset}, told {_told(v)})." for v in missed),
        *(f"False alarm: {_name(v)}, {_told(v)}." for v in false),
    ]
    return "\n\n".join([page.table(head, rows), *(["\n".join(f"- {note}" for note in notes)] if notes else [])])


def _name(v: Verdict) -> str:
    return f"{v.run.case.title}, seed {v.run.seed}"


def _told(v: Verdict) -> str:
    return ", ".join(f"{told.alert.kind} at {told.alert.step}" for told in v.told) or "nothing"


def confused(verdicts: Sequence[Verdict]) -> str:
    """Return the number of runs by label and by what was told first."""
    names = [*KINDS, "nothing"]
    rows = []
    groups: dict[str, list[Verdict]] = {kind: labelled(verdicts, kind) for kind in KINDS}
    groups["no collapse, though something is wrong"] = [
        v for v in verdicts if v.label.kind is None and v.run.case.expected != HEALTHY
    ]
    groups[HEALTHY] = [v for v in verdicts if v.run.case.expected == HEALTHY]
    for name, group in groups.items():
        told = Counter(v.kinds[0] if v.kinds else "nothing" for v in group)
        also = sum(len(v.kinds) > 1 for v in group)
        rows.append([name, *(str(told[kind]) for kind in names), str(also)])
    return page.table(["is the case", *(f"first told: {name}" for name in names), "two kinds told"], rows)


def strictness(runs: Sequence[Known]) -> str:
    """Return what is found of dimensional collapses that are labelled by stricter and laxer lines."""
    rows = []
    for name, share in sweep.SHARES.items():
        relabelled = sweep.with_labels([one.run for one in runs], share)
        told = sweep.verdicts(relabelled, sweep.defaults())
        p = sweep.point(relabelled, CollapseAlert(DIMENSIONAL))
        none = [v for v in told if v.label.kind is None and v.run.case.expected != HEALTHY]
        alarmed = sum(DIMENSIONAL in v.kinds for v in none)
        rows.append([name, f"{p.found} of {p.collapses}", f"{100 * p.share:.0f} %", f"{alarmed} of {len(none)}"])
    head = ["components, of the intact run's", "told in time", "share", "told in faulty runs that are not labelled"]
    return page.table(head, rows)


def curve(title: str, points: Sequence[Point]) -> str:
    """Return a table of thresholds: what is found, and false alarms in 20 healthy runs."""
    rows = [
        [_threshold(p.rule, title), f"{p.found} of {p.collapses}", f"{100 * p.share:.0f} %", f"{p.in_twenty:.1f}"]
        for p in points
    ]
    return page.table([title, "told in time", "share", "false alarms in 20 healthy runs"], rows)


def _threshold(rule: CollapseAlert, title: str) -> str:
    if title.startswith("fall"):
        return "none" if rule.fall is None else f"{rule.fall:g}"
    return f"{rule.threshold:g}"


def words(rule: CollapseAlert) -> str:
    """Return a rule in words."""
    return f"{rule.kind} {rule.threshold:g}"
