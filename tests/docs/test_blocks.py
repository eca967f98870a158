"""Every code block of README and docs runs, or says why not."""

import pytest

from docs.blocks import PAGES, REASONS, REPOSITORY, blocks_of, run_page

NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]
WITH_BLOCKS = [name for name in NAMES if any(block.runs for block in blocks_of(REPOSITORY / name))]


@pytest.mark.filterwarnings(  # of Lightning itself, in a training of the user's own
    "ignore:.*LeafSpec:FutureWarning", "ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning"
)
@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_the_blocks_of_a_page_run(name, place, in_small, capfd):
    page = REPOSITORY / name
    place(page.read_text())
    run_page(blocks_of(page))


@pytest.mark.parametrize("name", NAMES)
def test_a_block_that_is_not_run_says_why(name):
    for block in blocks_of(REPOSITORY / name):
        assert block.reason is None or block.reason in REASONS, (name, block.line, block.reason)
