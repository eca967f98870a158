"""Archives: downloaded whole or not at all, unpacked within their folder and within bounds."""

import hashlib
import io
import random
import socket
import tarfile
import zipfile

import pytest

from archives import snemi3d, vnc, zipped
from evenslice.data import archive as module
from evenslice.data.archive import DamagedError, download, unpack
from evenslice.errors import BadInputError

BODY = random.Random(0).randbytes(300_000)
SHA256, MD5 = hashlib.sha256(BODY).hexdigest(), hashlib.md5(BODY).hexdigest()
FILES = {"a.tif": b"first" * 1000, "deep/b.tif": b"second"}
MOST = 10**7


def files_in(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_file_comes_whole_and_only_once(shelf, tmp_path):
    url = shelf.put("a.zip", BODY)
    path, stated = download(url, tmp_path / "store")
    assert path.read_bytes() == BODY
    assert (path.name, stated) == ("a.zip", "")
    assert files_in(tmp_path / "store").keys() == {"a.zip"}
    assert download(url, tmp_path / "store")[0] == path
    assert shelf.asked == ["/a.zip"]


def test_a_cut_download_starts_over(shelf, tmp_path):
    url = shelf.put("a.zip", BODY, cuts=[1000, 0])
    assert download(url, tmp_path)[0].read_bytes() == BODY
    assert len(shelf.asked) == 3


@pytest.mark.parametrize("how", [{"cuts": [1000] * 9}, {"statuses": [200] + [500] * 9}])
def test_a_download_that_keeps_failing_leaves_nothing(shelf, tmp_path, how):
    url = shelf.put("a.zip", BODY, **how)
    with pytest.raises(BadInputError, match=r"a.zip cannot be fetched \(.*same command again"):
        download(f"{url}?token=secret", tmp_path / "store")
    assert len(shelf.asked) == 1 + module.RETRIES
    assert files_in(tmp_path) == {}


def test_what_is_not_there_is_asked_for_once_and_no_server_is_said(shelf, tmp_path):
    with pytest.raises(BadInputError, match=r"none.zip cannot be fetched \(404 Not Found\)"):
        download(f"{shelf.address}/none.zip?token=secret", tmp_path)
    assert shelf.asked == []
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(BadInputError, match="no connection to the server"):
            download(f"http://127.0.0.1:{closed.getsockname()[1]}/a.zip", tmp_path)


@pytest.mark.parametrize("url", ["ftp://x/a.zip", "file:///etc/passwd", "a.zip", ""])
def test_only_web_addresses_are_fetched(tmp_path, url):
    with pytest.raises(BadInputError, match="expected http:// or https://"):
        download(url, tmp_path)


@pytest.mark.parametrize(
    ("tag", "stated"), [(f'"md5:{MD5}"', f"md5:{MD5}"), (f'"{SHA256}"', f"sha256:{SHA256}")]
)
def test_a_hash_that_the_server_states_is_compared(shelf, tmp_path, tag, stated):
    url = shelf.put("a.zip", BODY, headers={"ETag": tag})
    assert download(shelf.put("b.zip", location=url), tmp_path)[1] == stated
    changed = shelf.put("c.zip", BODY[:-1] + b"x", headers={"ETag": tag})
    with pytest.raises(BadInputError, match=r"cannot be fetched .*does not match"):
        download(changed, tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("body", [BODY, BODY[:-1] + b"x"], ids=["whole", "changed"])
def test_the_hub_is_asked_by_its_client(shelf, tmp_path, monkeypatch, body):
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "ENDPOINT", shelf.address)
    for client in (constants, file_download):
        template = shelf.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(client, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    headers = {"ETag": f'"{SHA256}"', "X-Repo-Commit": "a" * 40}
    shelf.put("pytc/tutorial/resolve/main/x%2B/a.zip", body, headers=headers)
    url = "https://huggingface.co/pytc/tutorial/resolve/main/x%2B/a.zip"
    if body == BODY:
        path, stated = download(url, tmp_path / "store")
        assert (path.read_bytes(), stated) == (BODY, f"sha256:{SHA256}")
    else:
        with pytest.raises(BadInputError, match="differs from the sha256"):
            download(url, tmp_path / "store")
        assert not (tmp_path / "store").exists()


def tarred(files, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def gz(files):
    return tarred(files, "w:gz")


@pytest.fixture
def put(tmp_path):
    """Write an archive, unpack it into an empty folder and return what lies there."""

    def run(body, wanted=("a.tif",), most=MOST, **how):
        archive, folder = tmp_path / "x.zip", tmp_path / "inside"
        archive.write_bytes(body)
        folder.mkdir()
        names = unpack(archive, folder, wanted, most, **how)
        found = files_in(folder)
        assert sorted(names) == sorted(found)
        return found

    return run


def refuse(put, tmp_path, body, words, kind=BadInputError, **how):
    with pytest.raises(BadInputError, match=words) as caught:
        put(body, **how)
    assert caught.type is kind
    assert {path.name for path in tmp_path.iterdir()} == {"x.zip", "inside"}


@pytest.mark.parametrize(
    "body",
    [zipped(FILES), zipped(FILES, zipfile.ZIP_LZMA), tarred(FILES), gz(FILES)],
    ids=["zip", "zip lzma", "tar", "tar.gz"],
)
def test_every_kind_comes_out_whole(put, body):
    assert put(body) == FILES


@pytest.mark.parametrize("top", ["snemi", "outer/inner", "./snemi", "outer\\inner"])
def test_a_folder_around_everything_is_left_out(put, top):
    assert put(zipped({f"{top}/{name}": body for name, body in FILES.items()})) == FILES


def test_a_file_in_another_folder_is_put_where_it_is_wanted(put):
    """The record on Zenodo has SNEMI3D in the folders image and seg."""
    files = snemi3d()
    body = {f"{'seg' if 'labels' in name else 'image'}/{name}": files[name] for name in files}
    assert put(zipped(body), wanted=tuple(files)) == files


def test_folders_that_are_wanted_come_out_of_their_wrapper_and_stay(put):
    found = put(zipped(vnc()), wanted=("stack1/raw", "stack1/membranes"))
    assert found.keys() >= {"stack1/raw/00.tif", "README.md"}


def test_what_macos_adds_is_dropped(put):
    assert put(zipped(FILES | {"__MACOSX/._a.tif": b"x", "deep/._b.tif": b"x"})) == FILES


@pytest.mark.parametrize("name", ["../a.tif", "/a.tif", "deep/../../a.tif", "..\\a.tif", "C:a.tif"])
@pytest.mark.parametrize("pack", [zipped, tarred], ids=["zip", "tar"])
def test_no_path_leaves_the_folder(put, tmp_path, name, pack):
    refuse(put, tmp_path, pack({**FILES, name: b"x"}), "a path that leaves its folder")
    assert files_in(tmp_path / "inside") == {}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_not_unpacked(put, kind):
    buffer = io.BytesIO(tarred(FILES))
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        info = tarfile.TarInfo("link.tif")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    assert put(buffer.getvalue()) == FILES


@pytest.mark.parametrize("pack", [zipped, gz], ids=["zip", "tar.gz"])
def test_a_bomb_is_seen_before_it_is_unpacked(put, tmp_path, pack):
    body = pack({"a.tif": bytes(MOST + 1)})
    assert len(body) < MOST / 100
    refuse(put, tmp_path, body, "holds more than 10 MB")
    assert files_in(tmp_path / "inside") == {}


def test_a_zip_that_states_less_than_it_holds_is_damaged(put, tmp_path):
    body = bytearray(zipped({"a.tif": bytes(100_000)}))
    at = body.index(b"PK\x01\x02") + 24
    body[at : at + 4] = (10).to_bytes(4, "little")
    refuse(put, tmp_path, bytes(body), "is damaged .*Bad CRC", DamagedError)
    assert sum(map(len, files_in(tmp_path / "inside").values())) <= 10


def flipped():
    body = bytearray(zipped({"a.tif": bytes(range(256)) * 100}, zipfile.ZIP_STORED))
    body[5000] ^= 1
    return bytes(body)


@pytest.mark.parametrize(
    "body",
    [flipped(), zipped(FILES)[:-40], gz(FILES)[:-30], b"<!DOCTYPE html><html>", b""],
    ids=["flipped bit", "cut zip", "cut tar", "web page", "empty"],
)
def test_what_is_no_whole_archive_is_refused(put, tmp_path, body):
    refuse(put, tmp_path, body, "is damaged or neither zip nor tar", DamagedError)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("x.tif", "y.tif"), r"lacks a.tif \(it holds x.tif, y.tif\), expected a.tif"),
        (("x/a.tif", "y/a.tif"), "lacks a.tif"),
    ],
    ids=["lacking", "two of one name"],
)
def test_what_is_lacking_is_named_and_what_there_is(put, tmp_path, names, words):
    refuse(put, tmp_path, zipped(dict.fromkeys(names, b"1")), words)
