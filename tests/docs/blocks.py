"""The code blocks of the pages, and how they are run on small inputs.

A block is executed unless the line above it says ``<!-- not run: REASON -->``. To be fast, every
training takes two steps of one patch of 32 x 32 with random weights on three stages,
every audit six windows of 48 x 48 by gradients, pretrained weights are random, and ``--force`` is
added, so that a page may show one name twice. What a command prints is not compared. A study is
planned, not run. Of ``make``, ``pip``, ``pytest``, ``napari`` and ``python FILE`` only the targets,
extras and files are checked to exist.
"""

import os
import re
import shlex
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from evenslice.cli import app as cli
from evenslice.study.plan import read_study

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
REASONS = {
    "needs the network",
    "needs a GPU",
    "needs a cluster of several machines",
    "needs data that may not be passed on",
    "opens a window",
    "takes hours",
}
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)(?: +title=\"(?P<title>[^\"]+)\")?.*$")
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
SHELLS = ("console", "bash")
OVERWRITING = ("demo", "audit", "fix", "train", "segment", "export")


@dataclass(frozen=True)
class Block:
    """One code block: where it stands, and what it holds."""

    page: Path
    line: int
    language: str
    title: str | None
    text: str
    reason: str | None

    @property
    def runs(self):
        return self.reason is None and self.language in (*SHELLS, "python", "toml")


def blocks_of(page):
    """Return the code blocks of a page in their order."""
    lines, found, at = page.read_text().splitlines(), [], 0
    while at < len(lines):
        opened = FENCE.match(lines[at])
        if opened:
            indent, end = len(opened["indent"]), at + 1
            while lines[end].strip() != "```":
                end += 1
            above = next((line for line in reversed(lines[:at]) if line.strip()), "")
            reason = NOT_RUN.search(above)
            text = "\n".join(line[indent:] for line in lines[at + 1 : end]) + "\n"
            found.append(
                Block(
                    page,
                    at + 1,
                    opened["language"],
                    opened["title"],
                    text,
                    reason and reason[1].split(";")[0],
                )
            )
            at = end
        at += 1
    return found


def run_page(blocks):
    """Run the blocks of one page in the current folder, python in one namespace."""
    names = {"__name__": "page"}
    for block in blocks:
        if not block.runs:
            continue
        if block.title:
            file = Path(block.title)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        elif block.language == "toml":
            assert tomllib.loads(block.text)
            if "[[grid]]" in block.text:
                Path("a-study.toml").write_text(block.text)
                assert read_study("a-study.toml").cells
        elif block.language == "python":
            place = f"{block.page.name}:{block.line}"
            exec(compile("\n" * block.line + block.text, place, "exec"), names)
        else:
            for words in commands_of(block):
                run_command(words)


def commands_of(block):
    """Return the words of every command of a block; what is printed below a command is left out."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        if block.language == "console" and not line.startswith("$ "):
            continue
        words = shlex.split(os.path.expandvars(line.removeprefix("$ ")), comments=True)
        while words and (re.fullmatch(r"\w+=\S*", words[0]) or words[0] == "srun"):
            words.pop(0)
        if words and words[0] != "export":
            yield words


def run_command(words):
    """Run a command of evenslice in this process; check the words of others."""
    program, *rest = words
    if program == "evenslice":
        verb = rest[0]
        if verb == "study":
            assert read_study(rest[1]).cells, words
            return
        if (
            verb in OVERWRITING
            and "--force" not in rest
            and "--resume" not in rest
            and "--shard" not in rest
        ):
            rest.append("--force")
        with pytest.raises(SystemExit) as stop:
            cli.main([*rest, "--traceback"])
        allowed = {0, 1} if {"--fail-above", "--verify"} & set(rest) else {0}
        assert stop.value.code in allowed, words
    elif program == "make":
        assert re.search(rf"^{rest[0]}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE), (
            words
        )
    elif program == "pip":
        extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"][
            "optional-dependencies"
        ]
        assert rest[0] == "install"
        named = re.search(r"\[(.+)\]", rest[-1])
        assert not named or set(named[1].split(",")) <= set(extras), words
    elif program in ("python", "pytest"):
        script = next(word for word in rest if "/" in word or word.endswith(".py"))
        assert (REPOSITORY / script).exists() or Path(script).exists(), words
    elif program == "napari":
        assert (
            "napari"
            in tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["dependency-groups"][
                "ui"
            ][0]
        )
    elif program == "unzip":
        with zipfile.ZipFile(rest[0]) as archive:
            archive.extractall(members=rest[1:])
    else:
        raise AssertionError(f"{program} is not known to the runner of code blocks: {words}")
