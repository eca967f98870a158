"""Every code block of README and docs runs, or says why not."""

import pytest

from docs.blocks import PAGES, REASONS, REPOSITORY, Block, blocks_of, commands_of, run_page

SLOW = {
    "docs/export.md",
    "docs/guides/choosing-an-init.md",
    "docs/guides/own-model.md",
    "docs/guides/own-volume.md",
    "docs/guides/reading-an-audit.md",
    "docs/index.md",
    "docs/quickstart.md",
}  # README.md holds most of what these do
NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]
WITH_BLOCKS = [name for name in NAMES if any(block.runs for block in blocks_of(REPOSITORY / name))]


@pytest.mark.filterwarnings(  # of Lightning itself, in a training of the user's own
    "ignore:.*LeafSpec:FutureWarning",
    "ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning",
)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in WITH_BLOCKS],
)
def test_the_blocks_of_a_page_run(name, place, in_small, capfd):
    page = REPOSITORY / name
    place(page.read_text())
    run_page(blocks_of(page))


@pytest.mark.parametrize("name", NAMES)
def test_a_block_that_is_not_run_says_why(name):
    for block in blocks_of(REPOSITORY / name):
        assert block.reason is None or block.reason in REASONS, (name, block.line, block.reason)


def block(language, text, title=None):
    return Block(REPOSITORY / "made-up.md", 1, language, title, text, None)


WRONG = {
    "a command that fails": block("console", "$ evenslice inspect nothing.tif\n"),
    "an option that does not exist": block("console", "$ evenslice inspect raw.tif --magic\n"),
    "a verb that does not exist": block("bash", "evenslice dance\n"),
    "an unknown program": block("console", "$ conda install evenslice\n"),
    "an unknown extra": block("console", '$ pip install "evenslice[moon]"\n'),
    "an unknown target": block("console", "$ make coffee\n"),
    "a script that is not there": block("console", "$ python examples/none.py\n"),
    "python that fails": block("python", "from evenslice import nothing\n"),
    "settings that cannot be read": block("toml", "steps = = 3\n"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_block_is_seen(name, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((Exception, AssertionError)):
        run_page([WRONG[name]])


def test_blocks_are_found_with_their_reasons(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("""# Page

- a list

  ```console
  $ evenslice demo \\
      --force    # a comment
  what it prints
  ```

<!-- not run: needs a GPU -->
```python title="a.py"
print(1)
```
""")
    first, second = blocks_of(page)
    assert list(commands_of(first)) == [["evenslice", "demo", "--force"]]
    assert first.runs
    assert (second.title, second.reason, second.text, second.runs) == (
        "a.py",
        "needs a GPU",
        "print(1)\n",
        False,
    )
