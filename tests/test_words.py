"""Home-made words that an engineer of the field would have to decode do not come back."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WORDS = r"""
_told\b|\btold=|\bis_told\b|\btold_of\b|\blet_go\b|their_prints_aside|\bleft_behind\b|held_if_free
\bWishes\b|\bSight\b|\bsights\b|\blikeness\b|\bstirred\b|\bsettled\b|\bcomplaint_of\b|\bcomplain\b
\bScene\b|(?<!Icon\.)\bQuestion\b|\bcli_ending\b|\babroad\b|\bname_file\b|\btake_away\b|\borders_of\b
gone on with|go(es)? on with a killed|made even|even for life|can be believed|do not believe this
families of evidence|measured anew|whoever finishes|controls of the instrument|spoke, abstained
\bone a slot|\bone a step|\ba row a step|\bone a cell|leaned to|files from strangers
models of other people|everything random|looked at after|is not learnt from|Of AdamW
what goes wrong with sections|what was understood of a volume|beside other tools|where it bites
stand still to|\bmend it\b|told in one line|[Tt]ell of it
"""
PHRASES = re.compile("|".join(WORDS.strip().splitlines()[3:]), re.IGNORECASE)
NAMES = re.compile("|".join(WORDS.strip().splitlines()[:3]))
FILES = [
    path
    for folder in ("src", "docs", "benchmarks", "examples", "reliability", "studies")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".md", ".html", ".js", ".toml") and path.is_file()
] + [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_words_of_the_field(path):
    text = " ".join(path.read_text(encoding="utf-8").split())
    assert [*NAMES.findall(text), *PHRASES.findall(text)] == []
