"""Names that are legal and odd work; places that cannot be read or written, and names that collide, are refused."""

import os
import shutil
from pathlib import Path

import pytest
from bad_hdf5 import holding
from checking import Case, check_told, code_of, listed, listing, the_error

EM = "raw.tif"
LONG = "n" * 300


def copied(name, source=EM):
    """Put a copy of a good file under another name."""

    def make(place):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(place / source, place / name)

    return make


def all_of(*makers):
    return lambda place: [make(place) for make in makers]


def linked(name, target):
    return lambda place: (place / name).symlink_to(target)


def store(name):
    """An OME-Zarr store of the good volume."""

    def make(place):
        from evenslice import open_volume, save_volume

        save_volume(place / name, open_volume(place / EM))

    return make


def folder(name, *inside):
    def make(place):
        (place / name).mkdir()
        for one in inside:
            (place / name / one).write_text("mine")

    return make


SEGMENT = ("segment", "model.safetensors")
ODD = {
    "spaces": "a  b c.tif",
    "quotes": 'it\'s "raw".tif',
    "unicode": "αβγ-体積-🔬é.tif",
    "newline": "one\ntwo.tif",
    "leading dash": "-raw.tif",
    "brackets": "[bold]raw[/bold].tif",
    "percent": "%s{0}$HOME.tif",
    "leading dot": ".raw.tif",
    "no utf-8": os.fsdecode(b"\xff\xfe.tif"),
    "200 bytes": "n" * 200 + ".tif",
    "escape": "\x1b[31mred.tif",
    "colon": "a:b.tif",
    "at": "a@b.tif",
}
QUICK = ("unicode", "newline")
NAMES = [
    case
    for kind, name in ODD.items()
    for case in (
        Case(f"names: {kind} in segment", ("segment", "--tile", "32", "--", "model.safetensors", name, name[:60].removesuffix(".tif") + "_out.tif"), (), copied(name), code=0, slow=kind not in QUICK),
        Case(f"names: {kind} in inspect", ("inspect", "--json", "found.json", "--", name), (), copied(name), code=0),
        Case(f"names: {kind} of what is not there", ("inspect", "--", name), "cannot be imported" if kind == "colon" else "does not exist"),
    )
]  # fmt: skip
NAMES += [
    Case(
        "names: unicode, spaces and quotes of a model",
        ("segment", "mö \"d'el.safetensors", EM, "out.zarr"),
        "mö",
        None,
    ),
    Case(
        "names: empty volume",
        ("segment", "model.safetensors", "", "out.zarr"),
        "one of the words is empty",
    ),
    Case("names: empty output", (*SEGMENT, EM, ""), "one of the words is empty"),
    Case("names: empty model", ("audit", "", EM), "one of the words is empty"),
    Case(
        "names: empty json",
        ("evaluate", "labels.tif", "labels.tif", "--json", ""),
        "one of the words is empty",
    ),
    Case("names: a dot", (*SEGMENT, ".", "out.zarr"), "labels.tif has shape"),
    Case("names: null byte", ("inspect", "a\0b.tif"), "holds a null byte"),
    Case("names: null byte in the output", (*SEGMENT, EM, "a\0b.tif"), "holds a null byte"),
]
PLACES = [
    Case("place: folder where a volume should be", "segment model.safetensors d.tif out.zarr", "the folder d.tif holds no images", folder("d.tif")),
    Case("place: folder where a model should be", "segment d.safetensors raw.tif out.zarr", "d.safetensors is not a file", folder("d.safetensors")),
    Case("place: folder where settings should be", "train raw.tif labels.tif o.safetensors --config d.toml", "d.toml is not a file", folder("d.toml")),
    Case("place: folder where a study should be", "study d.toml --out s", "d.toml is not a file", folder("d.toml")),
    Case("place: folder where hdf5 should be", "inspect d.h5", "d.h5", folder("d.h5")),
    Case("place: folder where raw should be", "inspect d.raw", "the folder d.raw holds no images", folder("d.raw")),
    Case("place: folder where the json should be", "evaluate labels.tif labels.tif --json d.json --force", "d.json is a folder", folder("d.json")),
    Case("place: folder where the output should be", (*SEGMENT, EM, "d.tif", "--force"), "d.tif is a folder", folder("d.tif")),
    Case("place: below a file", (*SEGMENT, "raw.tif/in.tif", "out.zarr"), "raw.tif/in.tif"),
    Case("place: output below a file", (*SEGMENT, EM, "raw.tif/out.tif"), "raw.tif"),
    Case("place: store below a file", (*SEGMENT, EM, "raw.tif/out.zarr"), "raw.tif"),
    Case("place: model below a file", "train raw.tif labels.tif raw.tif/o.safetensors --weights none", "raw.tif"),
    Case("place: study below a file", "study s.toml --out raw.tif/s", "raw.tif", lambda place: (place / "s.toml").write_text('name = "a"\n[[grid]]\ndataset = "phantom"\n')),
    Case("place: demo below a file", "demo raw.tif/demo", "raw.tif"),
    Case("place: audit below a file", "audit model.safetensors raw.tif --out raw.tif/page --tile 32", "raw.tif"),
    Case("place: maps below a file", "audit model.safetensors raw.tif --maps raw.tif/maps.zarr --tile 32", "raw.tif"),
    Case("place: json below a file", "inspect raw.tif --json raw.tif/a.json", "raw.tif"),
    Case("place: output in /proc", (*SEGMENT, EM, "/proc/out.tif"), "/proc/out.tif"),
    Case("place: store in /proc", (*SEGMENT, EM, "/proc/out.zarr"), "/proc/out.zarr"),
    Case("place: audit in /proc", "audit model.safetensors raw.tif --out /proc/page --tile 32 --windows 2 --methods gradient", "/proc/page"),
    Case("place: maps in /proc", "audit model.safetensors raw.tif --maps /proc/maps.zarr --tile 32 --windows 2 --methods gradient", "/proc/maps.zarr"),
    Case("place: json in /proc", "evaluate labels.tif labels.tif --json /proc/a.json", "/proc/a.json"),
    Case("place: model in /proc", "fix whole.safetensors /proc/f.safetensors", "/proc/f.safetensors", copied("whole.safetensors", "whole.safetensors.kept")),
    Case("place: demo in /proc", "demo /proc/demo", "/proc/demo"),
    Case("place: study in /proc", "study s.toml --out /proc/study", "/proc/study", lambda place: (place / "s.toml").write_text('name = "a"\n[[grid]]\ndataset = "phantom"\n')),
    Case("place: data in /proc", "data fetch lucchi --to /proc/lucchi --from raw.tif", "/proc/lucchi"),
    Case("place: name of 300 bytes", ("inspect", f"{LONG}.tif"), "nnn"),
    Case("place: output of 300 bytes", (*SEGMENT, EM, f"{LONG}.tif"), "nnn"),
    Case("place: store of 300 bytes", (*SEGMENT, EM, f"{LONG}.zarr"), "nnn"),
    Case("place: json of 300 bytes", ("evaluate", "labels.tif", "labels.tif", "--json", f"{LONG}.json"), "nnn"),
    Case("place: output of 250 bytes", (*SEGMENT, EM, "o" * 246 + ".tif"), "ooo"),
    Case("place: model of 300 bytes", ("train", EM, "labels.tif", f"{LONG}.safetensors"), "nnn"),
    Case("place: page of 300 bytes", ("audit", "model.safetensors", EM, "--out", LONG, "--tile", "32"), "nnn"),
    Case("place: fifo", "inspect f.tif", "f.tif is a device or pipe", lambda place: os.mkfifo(place / "f.tif")),
    Case("place: fifo where a model should be", "segment f.safetensors raw.tif out.zarr", "f.safetensors is not a file", lambda place: os.mkfifo(place / "f.safetensors")),
    Case("place: fifo where labels should be", "evaluate labels.tif f.h5", "f.h5 is a device or pipe", lambda place: os.mkfifo(place / "f.h5")),
    Case("place: fifo where the output should be", (*SEGMENT, EM, "f.tif", "--force"), "f.tif is a device or pipe", lambda place: os.mkfifo(place / "f.tif")),
    Case("place: fifo where settings should be", "train raw.tif labels.tif o.safetensors --config f.toml", "f.toml is not a file", lambda place: os.mkfifo(place / "f.toml")),
    Case("place: fifo beside raw", "inspect v.raw", "v.raw", lambda place: ((place / "v.raw").write_bytes(b"x"), os.mkfifo(place / "v.raw.info"))),
    Case("place: fifo in a folder of images", "inspect d", "the folder d holds no images", lambda place: ((place / "d").mkdir(), os.mkfifo(place / "d/1.png"))),
    Case("place: fifo in a store", "inspect v.zarr", "v.zarr", lambda place: ((place / "v.zarr").mkdir(), os.mkfifo(place / "v.zarr/zarr.json"))),
    Case("place: device", "inspect /dev/zero", "/dev/zero is a device or pipe"),
    Case("place: device as the truth", "evaluate labels.tif /dev/zero", "/dev/zero is a device or pipe"),
    Case("place: device linked as a volume", "inspect z.tif", "z.tif is a device or pipe", linked("z.tif", "/dev/zero")),
    Case("place: link to itself", "inspect l.tif", "l.tif", linked("l.tif", "l.tif")),
    Case("place: link to itself as a model", "segment l.safetensors raw.tif out.zarr", "l.safetensors", linked("l.safetensors", "l.safetensors")),
    Case("place: link to itself as the output", (*SEGMENT, EM, "l.tif"), "l.tif", linked("l.tif", "l.tif")),
    Case("place: link to itself as the json", "evaluate labels.tif labels.tif --json l.json", "l.json", linked("l.json", "l.json")),
    Case("place: link that leads nowhere", "inspect l.tif", "l.tif does not exist", linked("l.tif", "nowhere.tif")),
]  # fmt: skip
COLLISIONS = [
    Case("collision: output is the volume", (*SEGMENT, EM, EM, "--force"), "raw.tif is read by this command"),
    Case("collision: output is the volume by another way", (*SEGMENT, EM, "d/../raw.tif", "--force"), "is read by this command", folder("d")),
    Case("collision: output is a link to the volume", (*SEGMENT, EM, "l.tif", "--force"), "l.tif is read by this command", linked("l.tif", EM)),
    Case("collision: output in the store that is read", (*SEGMENT, "v.zarr", "v.zarr/out.zarr"), "v.zarr/out.zarr is read by this command", store("v.zarr")),
    Case("collision: output around what is read", (*SEGMENT, "v.zarr/0", "v.zarr", "--force"), "v.zarr is read by this command", store("v.zarr")),
    Case("collision: output in a link to the store", (*SEGMENT, "v.zarr", "l.zarr/out.zarr"), "is read by this command", all_of(store("v.zarr"), linked("l.zarr", "v.zarr"))),
    Case("collision: model is the output", ("segment", "model.safetensors", EM, "model.safetensors", "--force"), "model.safetensors"),
    Case("collision: json is the output", (*SEGMENT, EM, "out.tif", "--json", "out.tif"), "--json is out.tif"),
    Case("collision: json is the page", (*SEGMENT, EM, "out.tif", "--json", "out.report.html"), "--json is out.report.html"),
    Case("collision: json is the volume", ("audit", "model.safetensors", EM, "--json", EM, "--force"), "--json is raw.tif"),
    Case("collision: json in the store that is read", ("inspect", "v.zarr", "--json", "v.zarr/zarr.json", "--force"), "--json is v.zarr/zarr.json", store("v.zarr")),
    Case("collision: json is the file of the dataset", ("inspect", "v.h5:/v", "--json", "v.h5", "--force"), "--json is v.h5", holding("v.h5")),
    Case("collision: json is the page of the audit", ("audit", "model.safetensors", EM, "--out", "page", "--json", "page/audit.json", "--force"), "--json is page/audit.json", folder("page")),
    Case("collision: json in the maps", ("audit", "model.safetensors", EM, "--maps", "m.zarr", "--json", "m.zarr"), "--json is m.zarr"),
    Case("collision: maps are the volume", ("audit", "model.safetensors", "v.zarr", "--maps", "v.zarr", "--force"), "v.zarr is read by this command", store("v.zarr")),
    Case("collision: maps in the volume", ("audit", "model.safetensors", "v.zarr", "--maps", "v.zarr/maps.zarr"), "v.zarr/maps.zarr is read by this command", store("v.zarr")),
    Case("collision: maps are the page", ("audit", "model.safetensors", EM, "--maps", "page", "--out", "page"), "--maps and --out are both page"),
    Case("collision: trained model is the volume", ("train", "v.safetensors", "labels.tif", "v.safetensors", "--force"), "v.safetensors", copied("v.safetensors")),
    Case("collision: trained model is the encoder", ("train", EM, "labels.tif", "w.safetensors", "--weights", "w.safetensors", "--force"), "w.safetensors is read by this command", copied("w.safetensors", "whole.safetensors.kept")),
    Case("collision: page exists", (*SEGMENT, EM, "out.tif"), "out.report.html exists", copied("out.report.html")),
    Case("collision: page of a training exists", ("train", EM, "labels.tif", "o.safetensors", "--weights", "none"), "o.report.html exists", copied("o.report.html")),
    Case("collision: page is a folder", (*SEGMENT, EM, "out.tif", "--force"), "out.report.html is a folder", folder("out.report.html")),
    Case("collision: store exists and is none", (*SEGMENT, EM, "d.zarr", "--force"), "d.zarr exists and is no Zarr store", folder("d.zarr", "mine.txt")),
    Case("collision: file where a store should be", (*SEGMENT, EM, "d.zarr", "--force"), "d.zarr exists and is no Zarr store", copied("d.zarr")),
    Case("collision: folder of the run is something else", (*SEGMENT, EM, "out.tif"), "out.tif.run", folder("out.tif.run", "mine.txt")),
    Case("collision: fixed model is the model", ("fix", "model.safetensors", "model.safetensors", "--force"), "model.safetensors is read by this command"),
    Case("collision: exported model is the model", ("export", "m.pt2", "m.pt2", "--force"), "m.pt2 is read by this command", copied("m.pt2")),
    Case("collision: study in a folder of others", ("study", "s.toml", "--out", "d"), "d is not empty and holds no study", all_of(folder("d", "mine.txt"), lambda place: (place / "s.toml").write_text('name = "a"\n[[grid]]\ndataset = "phantom"\n'))),
    Case("collision: demo in a folder of others", ("demo", "d"), "d exists, expected a new folder", folder("d", "mine.txt")),
]  # fmt: skip


@pytest.fixture(autouse=True)
def whole_beside(place, whole_model):
    shutil.copy(whole_model, place / "whole.safetensors.kept")


@pytest.mark.parametrize("case", listed(NAMES))
def test_names(checked, case):
    checked(case)


@pytest.mark.parametrize("case", listed(PLACES))
def test_places(checked, case):
    checked(case)


@pytest.mark.parametrize("case", listed(COLLISIONS))
def test_collisions(checked, case):
    checked(case)


@pytest.mark.parametrize(
    "words",
    [(*SEGMENT, EM, "l.tif", "--tile", "32"), ("inspect", EM, "--json", "l.tif")],
    ids=lambda words: f"collision: {words[0]} to a hard link of the volume",
)
def test_a_hard_link_is_replaced_and_the_volume_stays(place, words):
    os.link(EM, "l.tif")
    before = Path(EM).read_bytes()
    assert code_of([*words, "--force"]) == 0
    assert Path(EM).read_bytes() == before
    assert Path("l.tif").stat().st_ino != Path(EM).stat().st_ino


NOBODY = 65534
UNPRIVILEGED = [
    (
        "place: unreadable volume",
        ["inspect", "raw.tif"],
        "raw.tif",
        lambda place: (place / "raw.tif").chmod(0),
    ),
    ("place: unreadable folder", ["inspect", "d"], "d", lambda place: (place / "d").mkdir(mode=0)),
    (
        "place: unreadable store",
        ["inspect", "v.zarr"],
        "v.zarr",
        lambda place: (place / "v.zarr").mkdir(mode=0),
    ),
    (
        "place: read-only output",
        ["inspect", "raw.tif", "--json", "a.json"],
        "a.json",
        lambda place: None,
    ),
    (
        "place: read-only store",
        ["segment", "model.safetensors", "raw.tif", "out.zarr"],
        "out.zarr",
        lambda place: None,
    ),
]


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("words", "says", "make"),
    [one[1:] for one in UNPRIVILEGED],
    ids=[one[0] for one in UNPRIVILEGED],
)
def test_places_as_another_user(place, server, words, says, make):
    for above in (place, *place.parents):
        if "pytest" in str(above):
            above.chmod(0o755)
    make(place)
    before = listing(place)
    command = server.start(*words, user=NOBODY)
    assert command.code() == 2, command.err
    check_told(the_error(command.err), (says,))
    assert listing(place) == before
