"""Relative links of README and docs lead to files, and to headings that exist."""

import re

import pytest

from docs.blocks import PAGES, REPOSITORY

LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)")
GENERATED = {REPOSITORY / "docs" / "reference" / "cli.md"}


def anchors(page):
    """Return the anchors of the headings of a page, as the site and GitHub make them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in LINK.findall(text):
        if re.match(r"https?://|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists() or found in GENERATED, (page.name, target)
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), (page.name, target)
