"""Programs in the guides run as they stand there, and print what the page says they do."""

import re
from pathlib import Path

import pytest
from programs import run

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
PAGES = sorted(path.relative_to(DOCS) for path in DOCS.glob("guide/*.md"))
FIXED_PORT = '("127.0.0.1", 5000)'
"""An address of the guides that something else on this machine may have."""


def programs():
    """Page, number, source and output (if the page has it) of every program."""
    for page in PAGES:
        for number, (source, output) in enumerate(BLOCK.findall((DOCS / page).read_text()), 1):
            yield pytest.param(source, output, id=f"{page.stem}-{number}")


@pytest.mark.parametrize(("source", "output"), [*programs()])
def test_the_programs_of_the_guides_do_what_their_page_says(tmp_path, source, output):
    source = source.replace(FIXED_PORT, '("127.0.0.1", 0)')
    out, _ = run(tmp_path, source, environment={"MULTIHOST_STATE": str(tmp_path / "state")})
    assert out == output


def test_every_guide_has_a_program():
    assert PAGES
    assert [page for page in PAGES if not BLOCK.search((DOCS / page).read_text())] == []


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_links_between_pages_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
