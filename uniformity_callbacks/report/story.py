"""What became of a run, in words: from its journal alone, and before anything is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from uniformity_callbacks.alerts import Alert, AlertBook
from uniformity_callbacks.baseline import threshold_from
from uniformity_callbacks.functional import wasserstein_floor
from uniformity_callbacks.journal import Journal
from uniformity_callbacks.panel import Reading
from uniformity_callbacks.records import JOURNAL_NAME
from uniformity_callbacks.rules import CONSTANT_THRESHOLD
from uniformity_callbacks.wording import title

Tone = Literal["good", "bad", "over", "unknown"]

_FLOOR_TOLD = 0.1
"""W2 of an ideal sample from which on it is pointed out: below it is next to nothing."""


@dataclass(frozen=True)
class Episode:
    """A collapse, from the reading that it was seen in to the one that ended it.

    Attributes:
        kind: "constant", "dimensional", "nonfinite" or "blind".
        layer: dotted path of the layer.
        since: step of the first reading that agrees.
        told: step of the reading that made it certain.
        over: step of the reading that made its end certain; None if it stood when the journal ended.
        action: what the alert did.
        message: what it said.
    """

    kind: str
    layer: str
    since: int
    told: int
    over: int | None
    action: str
    message: str


@dataclass(frozen=True)
class Story:
    """A run as the page tells it.

    Attributes:
        name: what tells it from the others.
        journal: all that was recorded.
    """

    name: str
    journal: Journal

    @cached_property
    def layers(self) -> list[str]:
        """The layers that have readings, in the order in which they come."""
        return list(dict.fromkeys(reading.layer for reading in self.journal.readings if reading.layer))

    @cached_property
    def judged_here(self) -> bool:
        """Whether the run itself had no alerts, so that its readings are judged by the default rules now."""
        watched = [run.get("alerts") for run in self.journal.runs]
        return not self.journal.alerts and not any(watched)

    @cached_property
    def episodes(self) -> list[Episode]:
        """All collapses, in the order in which they were told."""
        if self.judged_here:
            return episodes_of(judged(self.journal.readings))
        return episodes_of(sorted([*self.journal.alerts, *self.journal.recoveries], key=lambda alert: alert.step))

    @cached_property
    def standing(self) -> list[Episode]:
        """The collapses that stood when the journal ended."""
        return [episode for episode in self.episodes if episode.over is None]

    @cached_property
    def trained(self) -> list[Reading]:
        """The readings of training."""
        return [reading for reading in self.journal.readings if reading.stage == "train"]

    @property
    def tone(self) -> Tone:
        """Whether that is good."""
        if self.standing:
            return "bad"
        if self.episodes:
            return "over"
        return "good" if any(reading.dims for reading in self.trained) else "unknown"

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        if self.standing:
            kinds = list(dict.fromkeys(episode.kind for episode in self.standing))
            since = min(episode.since for episode in self.standing)
            return f"{_sentence(' and '.join(title(kind) for kind in kinds))} since step {since:,}"
        if self.episodes:
            kinds = list(dict.fromkeys(title(episode.kind) for episode in self.episodes))
            ended = max(episode.over or 0 for episode in self.episodes)
            return f"{_sentence(' and '.join(kinds))}, over at step {ended:,}"
        return "No collapse was found" if self.tone == "good" else "Nothing was read in training"

    @property
    def sentences(self) -> list[str]:
        """What the headline rests on."""
        said = [_told(episode, self.judged_here) for episode in self.episodes]
        for layer in self.layers:
            of_layer = [reading for reading in self.trained if reading.layer == layer and reading.dims]
            if of_layer:
                where = f" of {layer}" if len(self.layers) > 1 else ""
                said.append(f"The last reading{where}, of step {of_layer[-1].step:,}: {_numbers(of_layer[-1])}.")
        return said

    @property
    def notes(self) -> list[str]:
        """What a reader has to know of the numbers."""
        notes = []
        if self.judged_here and self.trained:
            notes.append("No alert was recorded: the readings were judged by the default rules when this was written.")
        if any(reading.dims for reading in self.trained):
            notes += _floors([reading for reading in self.trained if reading.dims])
        if lost := sum(reading.values.get("nonfinite", 0) > 0 for reading in self.journal.readings):
            notes.append(f"In {_many(lost, 'reading')} some rows were NaN or infinite; they are left out.")
        if blind := [reading for reading in self.trained if not reading.dims]:
            why = blind[-1].why or "nothing was captured"
            notes.append(f"At {_many(len(blind), 'due step')} there was nothing to read: {why}.")
        if apart := len(self.journal.abandoned):
            notes.append(f"{_many(apart, 'reading')} of steps that were done again after a resumption: left out.")
        if torn := len(self.journal.unreadable):
            notes.append(
                f"{_many(torn, 'line')} of the journal could not be read, as a crash in mid-write leaves them."
            )
        return notes

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What was recorded, as names and values."""
        readings, facts = self.trained, []
        if readings:
            rows = readings[-1].values.get("samples", math.nan)
            facts.append(("readings", f"{len(readings):,}, steps {readings[0].step:,} to {readings[-1].step:,}"))
            facts.append(("rows a reading", f"{rows:,.0f} in {readings[-1].dims:,} dimensions"))
        if validated := len(self.journal.readings) - len(readings):
            facts.append(("of validation", f"{validated:,}"))
        if resumed := sum(run.get("resumed") is True for run in self.journal.runs):
            facts.append(("resumed", f"{resumed:,} times" if resumed > 1 else "once"))
        return facts + self._thresholds()

    def _thresholds(self) -> list[tuple[str, str]]:
        """What a run that went well says to the alerts of the next ones."""
        found = []
        for layer in self.layers if self.tone == "good" else ():
            with suppress(ValueError):  # too short a run sets none
                where = f", {layer}" if len(self.layers) > 1 else ""
                number = threshold_from(self.journal, layer=layer)
                found.append(
                    (f"for dimensional alerts of runs like it{where}", f"threshold={number:.3g} (half its dims)")
                )
        return found


def stories_of(journals: Sequence[tuple[Path, Journal]]) -> list[Story]:
    """Return the stories of journals, each named by as much of its path as tells it from the others."""
    names = names_of([path for path, _ in journals])
    return [Story(name, journal) for name, (_, journal) in zip(names, journals, strict=True)]


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return the shortest names that tell paths apart: folders are what runs differ in, more than file names."""
    parts = [path.absolute().with_suffix("").parts for path in paths]
    if len(set(parts)) == 1:
        usual = parts[0][-1] == Path(JOURNAL_NAME).stem
        return ["/".join(parts[0][-3:-1] if usual else parts[0][-2:])] * len(parts)
    while len(parts) > 1 and all(len(each) > 1 for each in parts) and len({each[-1] for each in parts}) == 1:
        parts = [each[:-1] for each in parts]
    while all(len(each) > 1 for each in parts) and len({each[0] for each in parts}) == 1 and len(set(parts)) > 1:
        parts = [each[1:] for each in parts]
    short = ["/".join(each[-3:]) for each in parts]
    return short if len(set(short)) == len(set(parts)) else ["/".join(each).lstrip("/") for each in parts]


def judged(readings: Iterable[Reading]) -> list[Alert]:
    """Return the alerts, and their ends, that the default rules make of a run's readings."""
    book, alerts = AlertBook("warn"), list[Alert]()
    for reading in readings:
        if reading.stage == "train" and {"samples", "nonfinite"} <= reading.values.keys():
            alerts += book.update(reading)
    return alerts


def episodes_of(alerts: Iterable[Alert]) -> list[Episode]:
    """Return alerts together with their ends."""
    episodes, open_ = list[Episode](), dict[tuple[str, str], int]()
    for alert in alerts:
        at = open_.pop((alert.layer, alert.kind), None)
        if at is not None:
            begun = episodes[at]
            said = (begun.kind, begun.layer, begun.since, begun.told)
            episodes[at] = Episode(*said, alert.step, begun.action, begun.message)
        if not alert.recovered:
            open_[alert.layer, alert.kind] = len(episodes)
            said = (alert.kind, alert.layer, alert.since, alert.step)
            episodes.append(Episode(*said, None, alert.action, alert.message))
    return episodes


def is_one_point(reading: Reading) -> bool:
    """Whether outputs are so near to one point that the dimensions of what is left of them mean nothing."""
    return reading.values.get("mean_resultant", 0.0) >= CONSTANT_THRESHOLD


def _told(episode: Episode, judged_here: bool) -> str:
    verb = "would have been told" if judged_here else "was told"
    said = f"{_sentence(title(episode.kind))} of {episode.layer} {verb} at step {episode.told:,}"
    said += f", from readings since step {episode.since:,}"
    if episode.action == "stop" and not judged_here:
        said += ", and the run was stopped"
    return said + (f"; it was over at step {episode.over:,}." if episode.over is not None else ".")


def _numbers(reading: Reading) -> str:
    values, d = reading.values, reading.dims
    parts = []
    if not math.isnan(w2 := values.get("w2_corrected", values.get("w2", math.nan))):
        name = "corrected W2" if "w2_corrected" in values else "W2"
        parts.append(f"{name} is {w2:.2f} (0 ideal, 1.41 one point)")
    if not math.isnan(dims := values.get("effective_dims", math.nan)) and not is_one_point(reading):
        parts.append(f"{dims:.1f} of {d:,} dimensions are in use")
    if not math.isnan(resultant := values.get("mean_resultant", math.nan)):
        parts.append(f"the mean resultant length is {resultant:.2f} (1 is one point)")
    return ", ".join(parts) or "none of these metrics was asked for"


def _floors(readings: Sequence[Reading]) -> list[str]:
    last = readings[-1]
    many = last.values.get("samples", math.nan)
    if not 2 <= many < math.inf or (floor := wasserstein_floor(rows := int(many), last.dims)) < _FLOOR_TOLD:
        return []
    said = f"Plain W2 depends on the sample's size: {rows:,} ideal rows of {last.dims:,} dimensions read {floor:.2f}."
    return [f"{said} The corrected one does not." if "w2_corrected" in last.values else said]


def _many(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
