"""The report of real runs: what is in the page, and what is not."""

import builtins
import re
import stat
from html.parser import HTMLParser

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from journals import write
from loops import run, step, validate, views
from test_journal_malformed import changed
from uniformity_callbacks import Alert, UniformityMonitor, read_journal
from uniformity_callbacks.report import write_report
from uniformity_callbacks.report.page import render
from uniformity_callbacks.report.story import Story

VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """A page taken apart: all tags must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.text, self.open, self.tags, self.words = text, [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "text"):
            self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def said(self):
        return " ".join(" ".join(self.words).split())


def page_of(tmp_path, *journals):
    path = tmp_path / "report.html"
    stories = write_report(journals, path)
    return Page(path.read_text(encoding="utf-8")), stories


def trained(tmp_path, steps=12, **arguments):
    monitor, _ = run(tmp_path, steps, every_n_steps=1, **arguments)
    return monitor.journal


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("run"), auxiliary=0.5)


def test_the_page_tells_what_the_journal_has(tmp_path, journal):
    page, (story,) = page_of(tmp_path, journal)
    assert story.headline in page.said
    assert all(sentence in page.said for sentence in [*story.sentences, *story.notes])
    last = read_journal(journal).readings[-1].values
    assert f"{last['w2']:.3g}" in page.words
    titles = "W2, the Wasserstein|Effective dims|Mean resultant|RankMe|Alignment against|The loss's weight|Spectrum of"
    assert all(title in page.said for title in titles.split("|"))


def test_it_asks_for_nothing_and_runs_nothing(tmp_path, journal):
    page, _ = page_of(tmp_path, journal)
    assert page.all("script") == []
    assert all(not name.startswith("on") for _, attrs in page.tags for name in attrs)
    links = [attrs[name] for _, attrs in page.tags for name in ("href", "src", "xlink:href") if name in attrs]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "@import" not in page.text
    assert all(target.startswith(("#", "data:")) for target in re.findall(r"url\([\"']?([^)\"']*)", page.text))
    (policy,) = [attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs]
    assert policy.startswith("default-src 'none';")


def test_every_name_is_there_once_and_every_reference_has_one(tmp_path, journal):
    page, _ = page_of(tmp_path, journal, journal)
    names = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(names) == len(set(names)) > 50
    used = re.findall(r"url\(#([^)]*)\)", page.text) + re.findall(r'href="#([^"]*)"', page.text)
    assert used
    assert set(used) <= set(names)


def test_every_figure_has_words_for_who_cannot_see_it(tmp_path, journal):
    page, _ = page_of(tmp_path, journal)
    images = [attrs for _, attrs in page.tags if attrs.get("role") == "img"]
    assert len(images) == len(page.all("figure")) == 7
    w2 = read_journal(journal).series("w2_corrected")[1]
    assert f"from {w2[0]:.3g} to {w2[-1]:.3g} at step 11" in images[0]["aria-label"]
    assert all(len(attrs["aria-label"]) > 40 for attrs in images)


def test_colours_are_the_pages_own(tmp_path, journal):
    page, _ = page_of(tmp_path, journal)
    assert "#0102" not in page.text
    assert {"var(--ink)", "var(--run-1)"} <= set(re.findall(r"var\([^)]*\)", page.text))
    defined = set(re.findall(r"(--[\w-]+):", page.text))
    assert set(re.findall(r"var\((--[\w-]+)\)", page.text)) <= defined


def test_names_and_texts_are_escaped(tmp_path):
    bad = "</svg><script>alert(1)</script>$\\frac{"
    (tmp_path / "x&<b>").mkdir()
    path = write(tmp_path / "x&<b>" / "a.jsonl", layers=(bad, "$b"), effective_dims=3.0, mean_resultant=0.2, samples=64)
    page, _ = page_of(tmp_path, path)
    assert page.all("script") == page.all("b") == []
    assert bad in page.said
    assert "x&<b>/a" in page.said


def test_several_runs_and_layers(tmp_path):
    one = trained(tmp_path / "one", layer=["encoder", "projector"])
    other = trained(tmp_path / "other")
    page, stories = page_of(tmp_path, one, other)
    assert [story.name for story in stories] == ["one", "other"]
    assert "encoder" in page.said
    assert len(page.all("figure")) == 2 * 5 + 3
    assert "var(--run-2)" in page.text


def test_validation_is_drawn_and_in_the_table(tmp_path):
    monitor = UniformityMonitor(every_n_steps=1)
    model = torch.nn.Sequential()
    model.add_module("projector", torch.nn.Linear(4, 8))
    monitor.attach(model, directory=tmp_path)
    for k in range(3):
        step(monitor, model, k, views())
        validate(monitor, model, [views(), views()])
    monitor.close()
    page, _ = page_of(tmp_path, monitor.journal)
    assert "validation" in page.words


@pytest.mark.parametrize("odd", ["empty", "blind", "nan", "one", "twice", "bare"])
def test_odd_journals_have_a_page(tmp_path, odd):
    path = tmp_path / "a.jsonl"
    most = {"effective_dims": 3.0, "mean_resultant": 0.2, "samples": 64.0, "nonfinite": 0.0}
    steps = {"empty": [], "one": [5], "twice": [0, 10, 20, 0, 10]}.get(odd, range(0, 50, 10))
    values = {"nan": {name: float("nan") for name in most}, "bare": {}}.get(odd, most)
    write(path, steps, **values)
    if odd == "blind":
        path.write_text(path.read_text().replace('"dims": 8', '"dims": 0'))
    page, (story,) = page_of(tmp_path, path)
    assert story.headline in page.said


def test_long_journals_have_pages_of_bounded_size(tmp_path):
    short = tmp_path / "a.jsonl"
    write(short, range(1_500), effective_dims=3.0, mean_resultant=0.2, samples=64.0)
    long = tmp_path / "b.jsonl"
    write(long, range(12_000), effective_dims=3.0, mean_resultant=0.2, samples=64.0)
    sizes = [len(page_of(tmp_path, path)[0].text) for path in (short, long)]
    assert max(sizes) < 1.2 * min(sizes)


def test_it_replaces_what_is_there_only_when_it_is_whole(tmp_path, journal, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("of before")
    (tmp_path / "no.jsonl").write_text("x\n")
    with pytest.raises(ValueError, match="is no journal"):
        write_report([tmp_path / "no.jsonl"], path)
    assert path.read_text() == "of before"
    write_report([journal], path)
    assert path.read_text().startswith("<!doctype html>")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["no.jsonl", "report.html"]
    other = tmp_path / "other"
    other.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_as_many_as_can_be_told_apart(tmp_path, journal):
    for journals in ([], [journal] * 9):
        with pytest.raises(ValueError, match=f"journals must be 1 to 8 files.*got {len(journals)}"):
            write_report(journals, tmp_path / "report.html")


def test_missing_files_are_told(tmp_path, journal):
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        write_report([tmp_path / "none.jsonl"], tmp_path / "report.html")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_report([journal], tmp_path / "nowhere" / "report.html")


def test_without_matplotlib_it_says_what_to_install(tmp_path, journal, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'uniformity-callbacks\[report\]'"):
        write_report([journal], tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("odd", ["\ud800", "\x00\x1b[2J", "\u6f22", "$\\frac", ""])
def test_names_that_no_font_can_draw(tmp_path, odd):
    alert = Alert(odd, 120, 100, (0.99,), 0.95, "warn", odd, odd)
    write(tmp_path / "a.jsonl", range(0, 200, 10), layers=(odd, "b"), alerts=[alert])
    page, _ = page_of(tmp_path, tmp_path / "a.jsonl")
    assert "since step 100" in page.said


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=True))
def test_whatever_a_journal_holds_has_a_page(tmp_path_factory, random):
    path = tmp_path_factory.mktemp("odd") / "a.jsonl"
    path.write_bytes(changed(random))
    try:
        journal = read_journal(path)
    except ValueError:
        return
    Page(render([Story("a", journal), Story("b", journal)]))
