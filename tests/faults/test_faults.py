"""A fault at any write operation: nothing half-written is left, and going on gives the result of a run without it."""

import os
import random
import shutil
import sys
import zlib
from dataclasses import dataclass

import pytest

from faults.cases import CASES, content_of, hidden_in, make_inputs
from faults.forking import forked, load_what_is_slow_to_load
from faults.injecting import FREEING, KINDS, can_fail

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="runs are forked, and descriptors are named in /proc"
)
EVERY_NTH = int(
    os.environ.get("EVENSLICE_FAULTS_EVERY", "1")
)  # of the points of the long run, to look at some of each kind first
EVERY_KIND = ("segment zarr", "train")  # in the quick run; the others have one fault of one kind


@dataclass(frozen=True)
class Undisturbed:
    """What a case leaves without faults, what was there before, and its write operations."""

    result: dict
    earlier: dict
    start: object
    operations: tuple
    unseen: int


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    load_what_is_slow_to_load()
    return folder


@pytest.fixture(scope="session")
def undisturbed(inputs, tmp_path_factory):
    """Return the function that runs a case without faults, once."""
    known = {}

    def run(name):
        if name not in known:
            case, folder = CASES[name], tmp_path_factory.mktemp("undisturbed")
            start = folder / "start"
            start.mkdir()
            if case.earlier is not None:
                assert forked(start, placed(case.earlier, inputs), before=case.before).code == 0
            outcome = forked(
                shutil.copytree(start, folder / "whole"),
                placed(case.words, inputs),
                before=case.before,
            )
            assert outcome.code == 0, outcome.said
            assert hidden_in(folder / "whole") == []
            known[name] = Undisturbed(
                content_of(folder / "whole"),
                content_of(start),
                start,
                outcome.operations,
                outcome.unseen,
            )
        return known[name]

    return run


def placed(words, inputs):
    return words if callable(words) else [str(word).replace("IN/", f"{inputs}/") for word in words]


def points_of(whole, kind):
    return [n for n, (name, _) in enumerate(whole.operations, 1) if can_fail(kind, name)]


def suffer(name, kind, at, whole, inputs, folder):
    """Run a case with a fault, and go on; return what is wrong."""
    case = CASES[name]
    shutil.copytree(whole.start, folder)
    outcome = forked(folder, placed(case.words, inputs), kind, at, case.before)
    wrong = []
    lines = [
        line
        for line in outcome.said.splitlines()
        if not line.startswith(("evenslice: warning:", "study "))
    ]
    if kind == "crash":
        expected = (-9, 0)  # the operation may not come in another order of threads
    else:
        expected = (2, 0)  # 0: cleaning up may fail without harm
        if outcome.code == 2 and (
            len(lines) != 1
            or not lines[0].startswith("evenslice: error: ")
            or "Traceback" in outcome.said
        ):
            wrong.append(f"said {outcome.said!r}")
        if outcome.code == 2 and not any(out.split(".")[0] in lines[0] for out in case.outs):
            wrong.append(f"names no file: {lines[0]!r}")
    if outcome.code not in expected:
        wrong.append(f"exit {outcome.code}: {outcome.said[-600:]!r}")
    if outcome.code == 0 and content_of(folder) != whole.result and not hidden_in(folder):
        wrong.append("exit 0 with another result")
    for out in case.outs if case.state not in case.outs else ():
        now, new, old = (
            content_of(folder, {out}),
            content_in(whole.result, out),
            content_in(whole.earlier, out),
        )
        if not (now in (new, old) if case.together else each_old_or_new(now, new, old)):
            wrong.append(f"{out} is neither old nor new")
    left = hidden_in(folder)
    hit = outcome.operations[
        at - 1 : at
    ]  # threads of zarr may come in another order than undisturbed
    could_clean = kind != "crash" and not any(name in FREEING for name, _ in hit)
    if left and could_clean and not (kind == "full" and not case.together):
        wrong.append(f"left {left} by {hit}")
    return wrong + going_on(case, whole, inputs, folder)


def each_old_or_new(now, new, old):
    return set(old) <= set(now) and all(
        data in (new.get(file), old.get(file)) for file, data in now.items()
    )


def content_in(result, out):
    return {name: data for name, data in result.items() if name.split("/")[0] == out}


def going_on(case, whole, inputs, folder):
    """Go on as the user does; return what is wrong."""
    words = case.next(folder)
    outcome = forked(folder, placed(words, inputs), before=case.before)
    if outcome.code != 0:
        return [f"going on exits {outcome.code}: {outcome.said[-600:]!r}"]
    now = content_of(folder)
    differ = sorted(
        name for name in {*now, *whole.result} if now.get(name) != whole.result.get(name)
    )
    return [f"after going on these differ: {differ[:8]}"] if differ else []


def suffer_all(name, kind, points, whole, inputs, tmp_path, record_property):
    failures = []
    for at in points:
        folder = tmp_path / str(at)
        wrong = suffer(name, kind, at, whole, inputs, folder)
        if wrong:
            failures.append(f"{at} {whole.operations[at - 1]}: " + "; ".join(wrong))
        shutil.rmtree(folder, ignore_errors=True)
    record_property("writes", len(whole.operations))
    record_property("faults", len(points))
    record_property("survived", len(points) - len(failures))
    assert points
    assert not failures, f"{len(failures)} of {len(points)}:\n" + "\n".join(failures[:40])


@pytest.mark.parametrize("name", ["segment zarr", "segment tiff", "train", "study"])
def test_no_writer_goes_past_the_count(name, undisturbed):
    assert (
        0 <= undisturbed(name).unseen < 20_000
    )  # what is printed, and what threads tell each other


EVERY = [pytest.param(name, kind, id=f"{name}: {kind}") for name in CASES for kind in KINDS]


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_a_fault_at_every_write(name, kind, undisturbed, inputs, tmp_path, record_property):
    whole = undisturbed(name)
    points = points_of(whole, kind)
    some = points[zlib.crc32(kind.encode()) % EVERY_NTH :: EVERY_NTH] or points[:1]
    suffer_all(name, kind, some, whole, inputs, tmp_path, record_property)


QUICK = [
    pytest.param(name, kind, id=f"{name}: {kind}")
    for number, name in enumerate(CASES)
    for kind in (KINDS if name in EVERY_KIND else KINDS[number % 4 :][:1])
]


@pytest.mark.parametrize(("name", "kind"), QUICK)
def test_a_fault_at_some_write(name, kind, undisturbed, inputs, tmp_path, record_property):
    whole = undisturbed(name)
    chance = random.Random(zlib.crc32(f"{name} {kind}".encode()))
    suffer_all(
        name,
        kind,
        [chance.choice(points_of(whole, kind))],
        whole,
        inputs,
        tmp_path,
        record_property,
    )


FOUND = [
    ("train", "crash", "t.json"),
    ("train", "EIO", "t.json"),
    ("segment zarr", "EIO", "t.json"),
    ("segment tiff", "EIO", "s.tif"),
    ("study", "crash", "out/name.txt"),
]


@pytest.mark.parametrize(("name", "kind", "path"), FOUND)
def test_faults_just_after_a_result_has_its_name_that_did_harm_once(
    name, kind, path, undisturbed, inputs, tmp_path
):
    whole = undisturbed(name)
    last = max(n for n, (_, place) in enumerate(whole.operations, 1) if place == path)
    at = next(n for n in points_of(whole, kind) if n > last)
    assert suffer(name, kind, at, whole, inputs, tmp_path / "run") == []
