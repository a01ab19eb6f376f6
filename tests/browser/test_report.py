"""The report in a real headless Chromium: silent, asking for nothing, readable wide and narrow, light and dark."""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from loops import run
from uniformity_callbacks.report import write_report

WIDTHS = {"wide": 1400, "tablet": 820, "narrow": 360}
SHOTS = Path(os.environ.get("SHOTS", "build/report-shots"))
"""Where the screenshots go, to be looked at."""


def chromium():
    """Return Debian's Chromium; the browser that Playwright would fetch is not to be had everywhere."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert found, "these tests need Chromium: apt-get install chromium, or CHROMIUM=/path/to/it"
    return found


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        # Chromium's sandbox does not start as root, as which containers run.
        launched = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """A page of one run, and one of several, of which one has two layers."""
    folder = tmp_path_factory.mktemp("runs")
    one, _ = run(folder / "healthy", 130, every_n_steps=1, auxiliary=0.5)
    two, _ = run(folder / "two-layers", 20, every_n_steps=1, layer=["encoder", "projector"])
    write_report([one.journal], folder / "one.html")
    write_report([one.journal, two.journal], folder / "several.html")
    return {name: (folder / f"{name}.html").as_uri() for name in ("one", "several")}


@pytest.fixture
def visit(browser, request):
    """Open a page and return it with what it said and asked for."""
    contexts = []

    def visit(address, width=1400, scheme="light"):
        contexts.append(context := browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        page, said, asked = context.new_page(), [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_load_state("networkidle")
        return page, said, asked

    yield visit
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", ["one", "several"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_silent_asks_for_nothing_and_fits(visit, pages, name, scheme, width):
    page, said, asked = visit(pages[name], WIDTHS[width], scheme)
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [pages[name]]
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width]
    figures = page.locator("figure").all()
    assert len(figures) == (7 if name == "one" else 14)
    for each in figures:
        box = each.locator("svg").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= WIDTHS[width]
        assert box["height"] > 120
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}-{width}-{scheme}.png", full_page=True)


@pytest.mark.parametrize("width", WIDTHS)
def test_text_in_figures_can_be_read(visit, pages, width):
    page, _, _ = visit(pages["one"], WIDTHS[width])
    heights = page.evaluate(
        "[...document.querySelectorAll('figure svg text')].map(t => t.getBoundingClientRect().height)"
    )
    assert len(heights) > 50
    assert min(heights) >= 9


def test_text_stays_within_its_figure(visit, pages):
    page, _, _ = visit(pages["several"])
    outside = page.evaluate(
        """[...document.querySelectorAll('figure svg')].flatMap(svg => {
            const box = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('text')].filter(text => {
                const own = text.getBoundingClientRect();
                return own.left < box.left - 1 || own.right > box.right + 1 ||
                       own.top < box.top - 1 || own.bottom > box.bottom + 1;
            }).map(text => text.textContent);
        })"""
    )
    assert outside == []


LUMINANCE = """([inner, outer]) => {
    const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const of = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number);
                         return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b); };
    const style = (name, what) => getComputedStyle(document.querySelector(name))[what];
    const [a, b] = [of(style(inner, 'color')), of(style(outer, 'backgroundColor'))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("inner", "outer"),
    [("body", "body"), (".verdict", ".run"), ("figcaption", "body"), (".facts", ".run"), ("h1", "body")],
)
def test_contrast_is_enough(visit, pages, scheme, inner, outer):
    """WCAG AA asks for 4.5."""
    page, _, _ = visit(pages["one"], scheme=scheme)
    assert page.evaluate(LUMINANCE, [inner, outer]) >= 4.5


@pytest.mark.parametrize(("scheme", "channel"), [("light", 255), ("dark", 20)])
def test_it_follows_the_readers_choice(visit, pages, scheme, channel):
    page, _, _ = visit(pages["one"], scheme=scheme)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor").startswith(f"rgb({channel},")
    line = page.locator("figure svg path[style*='--run-1']").first
    expected = {"light": "rgb(11, 107, 181)", "dark": "rgb(95, 176, 240)"}[scheme]
    assert line.evaluate("e => getComputedStyle(e).stroke") == expected


def test_figures_have_names_for_who_cannot_see_them(visit, pages):
    page, _, _ = visit(pages["one"])
    names = [each.get_attribute("aria-label") for each in page.get_by_role("img").all()]
    assert len(names) == 7
    assert all(name.count(" ") > 8 for name in names)


def test_the_verdict_comes_first(visit, pages):
    page, _, _ = visit(pages["one"], WIDTHS["narrow"])
    box = page.locator(".verdict").bounding_box()
    assert box["y"] + box["height"] < 300
