"""The documentation: links lead somewhere, names exist, examples of Python compile."""

import ast
import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

import uniformity_callbacks
from uniformity_callbacks.panel import METRICS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    if not path.name.startswith(".")
)
MARKDOWN = MarkdownIt("commonmark").enable("table")


def tokens(path):
    for token in MARKDOWN.parse(path.read_text()):
        yield token
        yield from token.children or ()


def targets(path):
    """What a page links to and shows."""
    for token in tokens(path):
        for name in ("href", "src"):
            if name in token.attrs:
                yield unquote(token.attrs[name])


def anchors(path):
    """The names by which a page's headings are linked to, as GitHub makes them."""
    some = MARKDOWN.parse(path.read_text())
    for token, inner in pairwise(some):
        if token.type == "heading_open":
            text = "".join(each.content for each in inner.children if each.type in ("text", "code_inline"))
            yield re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def broken(path):
    for target in targets(path):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        place, _, anchor = target.partition("#")
        file = (path.parent / place).resolve() if place else path
        if not file.exists():
            yield f"{target}: there is no such file"
        elif path.is_relative_to(ROOT) and not file.is_relative_to(ROOT):
            yield f"{target}: not in the repository"
        elif anchor and anchor not in set(anchors(file)):
            yield f"{target}: no such heading among {sorted(anchors(file))}"


def test_there_are_pages_to_check():
    assert len(PAGES) > 10
    assert sum(len(list(targets(page))) for page in PAGES) > 80


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert list(broken(page)) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "a.md"
    page.write_text(
        "# One, two: `three`\n[a](b.md) [c](#one-two-three) [d](#four)\n\n![e](f.png)\n\n```\n[g](h)\n```\n"
    )
    assert [each.partition(":")[0] for each in broken(page)] == ["b.md", "#four", "f.png"]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_every_page_is_linked_to(page):
    places = {(other.parent / target.partition("#")[0]).resolve() for other in PAGES for target in targets(other)}
    assert page.resolve() in places


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_of_python_are_python(page):
    for token in MARKDOWN.parse(page.read_text()):
        if token.type == "fence" and token.info == "python":
            ast.parse(token.content)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_imported_exists(page):
    for token in MARKDOWN.parse(page.read_text()):
        if token.type == "fence" and token.info == "python":
            for node in ast.walk(ast.parse(token.content)):
                if isinstance(node, ast.ImportFrom) and node.module == "uniformity_callbacks":
                    assert {alias.name for alias in node.names} <= set(uniformity_callbacks.__all__)
                elif isinstance(node, ast.ImportFrom) and node.module.startswith("uniformity_callbacks."):
                    module = __import__(node.module, fromlist=["x"])
                    assert all(hasattr(module, alias.name) for alias in node.names)


def test_every_metric_is_explained():
    explained = (ROOT / "docs" / "numbers.md").read_text()
    assert [name for name in METRICS if f"`{name}`" not in explained] == []
