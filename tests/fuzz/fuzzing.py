"""One way to fuzz: how many examples, which seed, what is counted, and the law that holds for everything that is read.

By default each test tries 25 examples or fewer, always the same ones. ``EVENSLICE_FUZZ=N`` makes it N, drawn by a seed that the head of
the run tells; ``EVENSLICE_FUZZ_SEED=S`` repeats it.
"""

import json
import os
import resource
import secrets
import struct
import warnings

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st

from evenslice.errors import BadInputError

EXAMPLES = int(os.environ.get("EVENSLICE_FUZZ", "0"))
SEED = int(os.environ.get("EVENSLICE_FUZZ_SEED", secrets.randbits(32)))
MOST_MB = 700
NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    127,
    128,
    255,
    256,
    2**15,
    2**16,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63 - 1,
    2**64 - 1,
)


def fuzz(examples=25):
    """Try a test on generated input."""
    how = settings(
        max_examples=EXAMPLES or examples, derandomize=not EXAMPLES, database=None, deadline=None, print_blob=True,
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    return (lambda test: seed(SEED)(how(test))) if EXAMPLES else how


class Executions:
    """Counts how often the code under test was run; memory must not have grown much in the end."""

    def __init__(self):
        self.count, self.valid = 0, 0
        self.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def __call__(self, call, check=lambda found: None):
        """Run something: it gives a valid result, or says in one line why not; return the result, or None."""
        self.count += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = call()
            except BadInputError as error:
                is_told(error)
                return None
            check(found)
        self.valid += 1
        return found

    def close(self):
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.peak) / 1024
        assert grown < MOST_MB, f"the peak of memory grew by {grown:.0f} MB"


def is_told(error):
    """What holds for every error: one line, not endless."""
    assert "\n" not in str(error) and 0 < len(str(error)) < 5000


def _edit(size):
    at = st.integers(0, max(0, size - 1))
    number = st.tuples(st.sampled_from("BHIQ"), st.sampled_from("<>"), st.sampled_from(NUMBERS))
    return st.one_of(
        st.tuples(st.just("byte"), at, st.integers(0, 255)),
        st.tuples(st.just("bit"), at, st.integers(0, 7)),
        st.tuples(st.just("number"), at, number),
        st.tuples(st.just("cut"), at, st.just(0)),
        st.tuples(st.just("delete"), at, st.integers(1, 64)),
        st.tuples(st.just("insert"), at, st.binary(min_size=1, max_size=16)),
        st.tuples(st.just("copy"), at, st.tuples(at, st.integers(1, 64))),
    )


def edits(size):
    """Strategy: a few changes of a file of some bytes, most of them in its first kilobyte."""
    return st.lists(st.one_of(_edit(min(size, 1024)), _edit(size)), min_size=1, max_size=5)


def edited(body, changes):
    """Apply changes to bytes."""
    found = bytearray(body)
    for what, wanted, value in changes:
        at = min(wanted, max(0, len(found) - 1))
        if what == "cut":
            del found[at:]
        elif what == "delete":
            del found[at : at + value]
        elif what == "insert":
            found[at:at] = value
        elif what == "copy":
            source, count = value
            found[at : at + count] = found[source : source + count]
        elif found and what == "byte":
            found[at] = value
        elif found and what == "bit":
            found[at] ^= 1 << value
        elif what == "number":
            code, order, number = value
            packed = struct.pack(order + code, number % 256 ** struct.calcsize(code))
            found[at : at + len(packed)] = packed
    return bytes(found)


TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            "a",
            "../..",
            "/etc/passwd",
            "evil:make",
            "hf-hub:a/b",
            "nm",
            "zyx",
            "<U8",
            "|O",
            "\x1b[2J",
            "9" * 400,
            "é" * 50,
        ]
    ),
    st.text(max_size=8),
)
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([*NUMBERS, *(-n for n in NUMBERS)]),
    st.integers(-9, 9),
    st.floats(),
    TEXTS,
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=6,
)


def places(found, path=()):
    """Return every place in a JSON document, as keys that lead there."""
    inner = (
        found.items()
        if isinstance(found, dict)
        else enumerate(found)
        if isinstance(found, list)
        else ()
    )
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def document(draw, found):
    """Change a JSON document in a few places: another value, none, another name, one more."""
    found = json.loads(json.dumps(found))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(found)))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                found = draw(VALUES)
            continue
        owner = found
        for key in path[:-1]:
            owner = owner[key]
        what = draw(st.sampled_from(["value", "value", "drop", "rename", "more"]))
        if what == "value":
            owner[path[-1]] = draw(VALUES)
        elif what == "drop":
            del owner[path[-1]]
        elif what == "rename" and isinstance(owner, dict):
            owner[draw(TEXTS)] = owner.pop(path[-1])
        elif isinstance(owner, list):
            owner.extend(owner[:4])
        else:
            owner[draw(TEXTS)] = draw(VALUES)
    return found
