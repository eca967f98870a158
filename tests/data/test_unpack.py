"""Unpacking what came from elsewhere: whole, flat, and nothing outside or beyond bounds."""

import io
import stat
import tarfile
import zipfile
from contextlib import contextmanager

import pytest

from archives import snemi3d, vnc, zipped
from evenslice.data import fetch
from evenslice.data import unpack as module
from evenslice.data.unpack import DamagedError, unpack
from evenslice.errors import BadInputError

FILES = {"a.tif": b"first" * 1000, "deep/b.tif": b"second"}
MOST = 10**7


def tarred(files, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


@pytest.fixture
def put(tmp_path):
    """Write an archive and unpack it into an empty folder."""

    def run(body, wanted=("a.tif",), most=MOST, **how):
        archive, folder = tmp_path / "archive", tmp_path / "inside"
        archive.write_bytes(body)
        folder.mkdir()
        return unpack(archive, folder, wanted, most, **how)

    return run


def found(tmp_path):
    folder = tmp_path / "inside"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    "body",
    [
        zipped(FILES),
        zipped(FILES, zipfile.ZIP_STORED),
        zipped(FILES, zipfile.ZIP_LZMA),
        tarred(FILES),
        tarred(FILES, "w:gz"),
        tarred(FILES, "w:xz"),
        tarred(FILES, "w:bz2"),
    ],
    ids=["zip", "stored", "zip lzma", "tar", "tar.gz", "tar.xz", "tar.bz2"],
)
def test_every_kind_comes_out_whole(put, tmp_path, body):
    assert sorted(put(body)) == sorted(FILES)
    assert found(tmp_path) == FILES


@pytest.mark.parametrize("top", ["snemi", "outer/inner", "./snemi"])
def test_a_folder_around_everything_is_left_out(put, tmp_path, top):
    put(zipped({f"{top}/{name}": body for name, body in FILES.items()}))
    assert found(tmp_path) == FILES


def test_a_folder_that_is_wanted_stays(put, tmp_path):
    put(zipped({"stack/00.tif": b"x"}), wanted=("stack",))
    assert found(tmp_path) == {"stack/00.tif": b"x"}


def test_a_file_in_another_folder_is_put_where_it_is_wanted(put, tmp_path):
    """The record on Zenodo has SNEMI3D in the folders image and seg."""
    body = snemi3d()
    body = {f"{'seg' if 'labels' in name else 'image'}/{name}": data for name, data in body.items()}
    put(zipped(body), wanted=tuple(snemi3d()))
    assert found(tmp_path) == snemi3d()


def test_folders_of_images_come_out_of_their_wrapper(put, tmp_path):
    put(zipped(vnc()), wanted=("stack1/raw", "stack1/membranes"))
    assert "stack1/raw/00.tif" in found(tmp_path)
    assert "README.md" in found(tmp_path)


def test_what_finders_leave_is_dropped(put, tmp_path):
    litter = {"__MACOSX/._a.tif": b"x", "._a.tif": b"x", ".DS_Store": b"x", "deep/.DS_Store": b"x"}
    put(zipped(FILES | litter))
    assert found(tmp_path) == FILES


def test_backslashes_are_folders(put, tmp_path):
    put(zipped({"deep\\a.tif": b"x"}))
    assert found(tmp_path) == {"a.tif": b"x"}


def refuse(put, tmp_path, body, words, kind=BadInputError, **how):
    with pytest.raises(BadInputError, match=words) as caught:
        put(body, **how)
    assert caught.type is kind
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "inside"}


LEAVING = [
    "../a.tif",
    "/a.tif",
    "deep/../../a.tif",
    "..\\a.tif",
    "\\a.tif",
    "C:\\a.tif",
    "c:a.tif",
    "//host/a.tif",
]


@pytest.mark.parametrize("name", LEAVING)
@pytest.mark.parametrize("pack", [zipped, tarred], ids=["zip", "tar"])
def test_no_path_leaves_the_folder(put, tmp_path, name, pack):
    refuse(
        put,
        tmp_path,
        pack({**FILES, name: b"x"}),
        "a path that leaves its folder .*nothing was unpacked",
    )
    assert found(tmp_path) == {}


KINDS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]


@pytest.mark.parametrize("kind", KINDS)
def test_no_links_and_no_devices_in_a_tar(put, tmp_path, kind):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("a.tif")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    refuse(put, tmp_path, buffer.getvalue(), "a link or device")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_no_links_and_no_devices_in_a_zip(put, tmp_path, mode):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("a.tif")
        info.create_system, info.external_attr = 3, (mode | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    refuse(put, tmp_path, buffer.getvalue(), "a link or device")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("b.tif", "b.tif"), ("b.tif", "B.TIF"), ("b", "b/c.tif")])
def test_no_name_comes_twice(put, tmp_path, names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("a.tif", *names):
            archive.writestr(name, b"x")
    refuse(put, tmp_path, buffer.getvalue(), "a name twice")
    assert found(tmp_path) == {}


def test_encrypted_files_are_told(put, tmp_path):
    body = bytearray(zipped({"a.tif": b"x"}))
    body[body.index(b"PK\x01\x02") + 8] |= 1
    refuse(put, tmp_path, bytes(body), "encrypted")


@pytest.mark.parametrize(
    "pack", [zipped, lambda files: tarred(files, "w:gz")], ids=["zip", "tar.gz"]
)
def test_a_bomb_is_seen_before_it_is_unpacked(put, tmp_path, pack):
    body = pack({"a.tif": bytes(MOST + 1)})
    assert len(body) < MOST / 100
    refuse(put, tmp_path, body, "holds more than 10000 files or 10 MB")
    assert found(tmp_path) == {}


@pytest.mark.parametrize("pack", [zipped, tarred], ids=["zip", "tar"])
def test_too_many_files_are_seen(put, tmp_path, monkeypatch, pack):
    monkeypatch.setattr(module, "MOST_FILES", 3)
    refuse(put, tmp_path, pack({f"{n}.tif": b"" for n in range(4)}), "holds more than 3 files")


def test_a_zip_that_states_less_than_it_holds_is_damaged(put, tmp_path):
    body = bytearray(zipped({"a.tif": bytes(100_000)}))
    at = body.index(b"PK\x01\x02") + 24
    body[at : at + 4] = (10).to_bytes(4, "little")
    refuse(put, tmp_path, bytes(body), "is damaged .*Bad CRC", DamagedError)
    assert sum(map(len, found(tmp_path).values())) <= 10


def test_a_reader_that_gives_more_than_stated_is_stopped(tmp_path):
    entry = module.Entry(("a.tif",), 10, lambda: io.BytesIO(bytes(100)))
    with pytest.raises(BadInputError, match="more than it states"):
        list(module._written(entry, tmp_path, tmp_path / "archive"))
    assert (tmp_path / "a.tif").stat().st_size == 0


def test_damage_is_told(put, tmp_path):
    body = bytearray(zipped({"a.tif": bytes(range(256)) * 100}, zipfile.ZIP_STORED))
    body[5000] ^= 1
    refuse(put, tmp_path, bytes(body), "is damaged .*Bad CRC.*fetch it again", DamagedError)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (zipped(FILES)[:-40], "neither zip nor tar, or cut short"),
        (tarred(FILES, "w:gz")[:-30], "is damaged"),
        (b"<!DOCTYPE html><html>", "is a web page, expected a whole zip or tar"),
        (b"", "neither zip nor tar"),
    ],
    ids=["cut zip", "cut tar", "web page", "empty"],
)
def test_what_is_no_whole_archive_is_told(put, tmp_path, body, words):
    refuse(put, tmp_path, body, words, DamagedError)


def test_a_compression_that_is_not_known_is_told(put, tmp_path):
    body = bytearray(zipped({"a.tif": b"x"}))
    for mark, at in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        place = body.index(mark) + at
        body[place : place + 2] = (9).to_bytes(2, "little")
    refuse(put, tmp_path, bytes(body), "is damaged .*compression", DamagedError)


def test_what_is_lacking_is_told_and_what_there_is(put, tmp_path):
    refuse(
        put,
        tmp_path,
        zipped({"x.tif": b"", "y.tif": b""}),
        r"lacks a.tif \(it holds x.tif, y.tif\), expected a.tif",
    )
    assert found(tmp_path) == {}


def test_two_of_one_name_are_not_guessed_between(put, tmp_path):
    refuse(put, tmp_path, zipped({"x/a.tif": b"1", "y/a.tif": b"2"}), "lacks a.tif")


def test_room_is_looked_for_first(put, tmp_path, monkeypatch):
    monkeypatch.setattr(
        fetch.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": fetch.ROOM + 100})()
    )
    refuse(put, tmp_path, zipped(FILES), "64 MB free, expected 64 MB; make room")
    assert found(tmp_path) == {}


def test_progress_counts_megabytes(put):
    steps = []

    @contextmanager
    def progress(label, total):
        steps.append((label, total))
        yield lambda note="": steps.append(1)

    put(zipped({"a.tif": bytes(1_600_000), "b.tif": bytes(1_000_000)}), progress=progress)
    assert steps == [("unpacking (MB)", 3), 1, 1, 1]


UNFIT = ["a\x1b[2J.tif", "a\u202efit.tif", "a" * 256, "deep. /x.tif", "x.tif.", "deep/\x07"]


@pytest.mark.parametrize("name", UNFIT, ids=[ascii(name)[:20] for name in UNFIT])
@pytest.mark.parametrize("pack", [zipped, tarred], ids=["zip", "tar"])
def test_no_name_that_a_folder_or_a_terminal_cannot_hold(put, tmp_path, name, pack):
    refuse(
        put,
        tmp_path,
        pack({**FILES, name: b"x"}),
        "a name that not every folder can hold .*nothing was unpacked",
    )
    assert found(tmp_path) == {}


@pytest.mark.parametrize("pack", [zipped, tarred], ids=["zip", "tar"])
def test_two_ways_of_writing_an_accent_are_one_name(put, tmp_path, pack):
    refuse(put, tmp_path, pack({**FILES, "caf\u00e9": b"x", "cafe\u0301": b"y"}), "a name twice")
    assert found(tmp_path) == {}


def test_a_nul_in_the_name_of_a_zip_ends_it(put, tmp_path):
    body = zipped({**FILES, "b.tifXother": b"x"}).replace(b"b.tifXother", b"b.tif\0other")
    assert sorted(put(body)) == ["a.tif", "b.tif", "deep/b.tif"]


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_header_that_would_be_read_as_a_whole_is_bounded(put, tmp_path, kind, mode):
    """A few kB of gzip could else become a name of gigabytes in memory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.GNU_FORMAT) as archive:
        first, info = tarfile.TarInfo("a.tif"), tarfile.TarInfo("x")
        info.type, info.size = kind, 3 * 2**20
        archive.addfile(first)
        archive.fileobj.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(info.size))
    refuse(
        put, tmp_path, buffer.getvalue(), r"is damaged \(a header of 3145728 bytes\)", DamagedError
    )


def test_a_file_of_a_zip_without_a_name_is_damage(put, tmp_path):
    body = bytearray(zipped({"a.tif": b"x"}))
    at = body.index(b"PK\x01\x02")
    body[at + 28], body[at + 32] = 0, 5  # no name, and its letters a comment
    refuse(put, tmp_path, bytes(body), "is damaged", DamagedError)


def test_a_sparse_file_counts_as_what_it_becomes(put, tmp_path):
    info = tarfile.TarInfo("a.tif")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (2**32, 0)
    header[483:495] = b"%011o\0" % 2**32
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    refuse(put, tmp_path, bytes(header) + bytes(1024), "more than .* files or 10 MB")
    assert found(tmp_path) == {}
