"""Fetching over HTTP: whole, cut, killed, changed, refused; from a server on this machine."""

import errno
import hashlib
import io
import json
import random
import socket
from contextlib import contextmanager

import pytest

from evenslice.data import connection, fetch
from evenslice.data.fetch import ATTEMPTS, MB, Received, download, forget
from evenslice.errors import BadInputError
from serving import serving

BODY = random.Random(0).randbytes(3 * MB // 2)
OTHER = random.Random(1).randbytes(MB)
CUT = 700_000


@pytest.fixture
def shelf(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fetch, "PAUSE_S", 0.0)
    with serving() as shelf:
        yield shelf


@pytest.fixture
def target(tmp_path):
    return tmp_path / "snemi.zip"


def get(url, target, **how):
    return download(url, target, **how)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def ranges(shelf):
    return [headers.get("Range") for _, headers in shelf.asked]


def fail(url, target, words, **how):
    with pytest.raises(BadInputError, match=words) as caught:
        get(url, target, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_comes_whole_with_its_hash(shelf, target):
    received = get(shelf.put("a.zip", BODY), target)
    assert target.read_bytes() == BODY
    assert received == Received(target, len(BODY), hashlib.sha256(BODY).hexdigest(), None)
    assert names(target.parent) == ["snemi.zip", "snemi.zip.part.json"]
    forget(target)
    assert names(target.parent) == []


def test_what_is_there_from_the_same_address_is_not_asked_for_again(shelf, target):
    url = shelf.put("a.zip", BODY)
    first = get(url, target)
    assert get(url, target) == first
    assert len(shelf.asked) == 1
    assert get(shelf.put("b.zip", OTHER), target).size == len(OTHER)
    assert target.read_bytes() == OTHER


def test_two_queries_are_two_files(shelf, target):
    url = shelf.put("a.zip", BODY)
    get(f"{url}?id=1", target)
    get(f"{url}?id=2", target)
    assert len(shelf.asked) == 2


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_connection_is_gone_on_with(shelf, target, reset):
    url = shelf.put("a.zip", BODY, cuts=[CUT, 100_000], reset=reset)
    get(url, target)
    assert target.read_bytes() == BODY
    assert len(shelf.asked) == 3
    assert "Range" not in shelf.asked[0][1]
    if not reset:  # where the connection is reset, what was under way is lost
        assert shelf.asked[1][1]["If-Range"] == shelf.asked[2][1]["If-Range"] == '"one"'
        assert ranges(shelf) == [None, f"bytes={CUT}-", f"bytes={CUT + 100_000}-"]


def test_the_next_command_goes_on_with_the_part(shelf, target):
    url = shelf.put("a.zip", BODY, cuts=[CUT] + [0] * ATTEMPTS)
    fail(
        url,
        target,
        r"cut after 700000 of 1500000 bytes\).*the part of 0.7 MB is kept: run the same command to go on",
    )
    assert len(shelf.asked) == ATTEMPTS  # the cut that brought something is the first of them
    assert names(target.parent) == ["snemi.zip.part", "snemi.zip.part.json"]
    assert target.with_name("snemi.zip.part").read_bytes() == BODY[:CUT]
    shelf["/a.zip"].cuts = []
    get(url, target)
    assert target.read_bytes() == BODY
    assert ranges(shelf)[-1] == f"bytes={CUT}-"


def test_a_server_that_knows_no_ranges_sends_all_again(shelf, target):
    get(shelf.put("a.zip", BODY, cuts=[CUT], ranges=False), target)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_changed_meanwhile_is_fetched_anew(shelf, target, if_range):
    url = shelf.put("a.zip", BODY, cuts=[CUT] + [0] * ATTEMPTS)
    fail(url, target, "is kept")
    shelf.put("a.zip", OTHER, etag='"two"', if_range=if_range)
    assert get(url, target).sha256 == hashlib.sha256(OTHER).hexdigest()
    assert target.read_bytes() == OTHER


def test_without_a_tag_the_size_must_be_the_same(shelf, target):
    url = shelf.put("a.zip", BODY, etag=None, cuts=[CUT] + [0] * ATTEMPTS)
    fail(url, target, "is kept")
    shelf.put("a.zip", OTHER, etag=None)
    get(url, target)
    assert target.read_bytes() == OTHER


def test_weak_tags_are_not_relied_on(shelf, target):
    when = {"Last-Modified": "Sat, 01 Jan 2022 00:00:00 GMT"}
    url = shelf.put("a.zip", BODY, etag='W/"one"', cuts=[CUT], headers=when, if_range=False)
    get(url, target)
    assert target.read_bytes() == BODY
    assert shelf.asked[1][1]["If-Range"] == when["Last-Modified"]


@pytest.mark.parametrize(
    "note", ["", "not json", "[]", '{"url": 1}', '{"url": "http://elsewhere/a.zip"}']
)
def test_a_part_of_unknown_origin_is_thrown_away(shelf, target, note):
    target.with_name("snemi.zip.part").write_bytes(b"x" * CUT)
    target.with_name("snemi.zip.part.json").write_text(note)
    get(shelf.put("a.zip", BODY), target)
    assert target.read_bytes() == BODY
    assert ranges(shelf) == [None]


def left_of(target, url, size, total):
    target.with_name("snemi.zip.part").write_bytes(BODY[:size])
    known = {"url": url, "etag": '"one"', "digest": None, "total": total}
    target.with_name("snemi.zip.part.json").write_text(json.dumps(known))


def test_a_part_that_is_whole_is_not_asked_for(shelf, target):
    url = shelf.put("a.zip", BODY)
    left_of(target, url, len(BODY), len(BODY))
    get(url, target)
    assert target.read_bytes() == BODY
    assert shelf.asked == []


def test_a_part_that_turns_out_whole_is_taken(shelf, target):
    url = shelf.put("a.zip", BODY)
    left_of(target, url, len(BODY), None)
    get(url, target)
    assert target.read_bytes() == BODY
    assert ranges(shelf) == [f"bytes={len(BODY)}-"]


def test_a_part_beyond_the_end_is_thrown_away(shelf, target):
    url = shelf.put("a.zip", OTHER)
    left_of(target, url, len(BODY), None)
    get(url, target)
    assert target.read_bytes() == OTHER
    assert ranges(shelf) == [f"bytes={len(BODY)}-", None]


def test_a_part_larger_than_the_file_is_begun_anew(shelf, target):
    url = shelf.put("a.zip", OTHER)
    left_of(target, url, len(BODY), len(OTHER))
    get(url, target)
    assert target.read_bytes() == OTHER
    assert ranges(shelf) == [None]


def test_an_answer_without_length_is_taken_to_its_end(shelf, target):
    assert get(shelf.put("a.zip", BODY, length=False), target).size == len(BODY)
    assert target.read_bytes() == BODY


def test_errors_that_may_pass_are_tried_again(shelf, target):
    get(shelf.put("a.zip", BODY, statuses=[503, 429, 500]), target)
    assert target.read_bytes() == BODY
    assert len(shelf.asked) == 4


def test_errors_that_stay_are_told(shelf, target):
    fail(
        shelf.put("a.zip", BODY, statuses=[500] * 9),
        target,
        r"\(500 Internal Server Error\), expected a file; check",
    )
    assert len(shelf.asked) == ATTEMPTS


def test_what_is_not_there_is_asked_for_once(shelf, target):
    fail(
        f"{shelf.address}/none.zip",
        target,
        r"none.zip cannot be fetched \(404 Not Found\), expected a file",
    )
    assert len(shelf.asked) == 1
    assert names(target.parent) == []


def test_no_server(shelf, target):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/a.zip"
        fail(url, target, "the server refused the connection")


def test_no_such_name(shelf, target, monkeypatch):
    def unknown(*args, **how):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    fail("http://nowhere.invalid/a.zip", target, "the name of the server is not known here")


def test_a_silent_server(shelf, target, monkeypatch):
    monkeypatch.setattr(connection, "TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        fail(
            f"http://127.0.0.1:{silent.getsockname()[1]}/a.zip",
            target,
            "the server did not answer in time",
        )


def test_a_server_that_speaks_something_else(shelf, target, monkeypatch):
    import threading

    with socket.create_server(("127.0.0.1", 0)) as odd:

        def talk():
            for _ in range(ATTEMPTS):
                other, _ = odd.accept()
                with other:
                    other.recv(4096)
                    other.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        fail(f"http://127.0.0.1:{odd.getsockname()[1]}/a.zip", target, "cannot be fetched")


@pytest.mark.parametrize(
    "url", ["ftp://x/a.zip", "file:///etc/passwd", "a.zip", "http:///a.zip", "http://[/a.zip", ""]
)
def test_only_web_addresses_are_fetched(target, url):
    fail(url, target, "expected http:// or https://")


def test_redirects_are_followed(shelf, target):
    get(shelf.put("b.zip", location=shelf.put("a.zip", BODY, cuts=[CUT])), target)
    assert target.read_bytes() == BODY
    assert [path for path, _ in shelf.asked] == ["/b.zip", "/a.zip"] * 2
    assert ranges(shelf)[-1] == f"bytes={CUT}-"


@pytest.mark.parametrize(
    "elsewhere", ["file:///etc/passwd", "ftp://127.0.0.1/a.zip", "data:text/plain,x"]
)
def test_redirects_lead_nowhere_else(shelf, target, elsewhere):
    fail(shelf.put("b.zip", location=elsewhere), target, "lead.*, which is not followed")
    assert names(target.parent) == []


def test_a_secure_address_leads_to_secure_ones_only():
    from urllib.request import Request

    with pytest.raises(connection.UnreachableError, match="leads from https to http"):
        connection._Redirects().redirect_request(
            Request("https://a/b"), io.BytesIO(), 302, "", {}, "http://a/b"
        )


def test_redirects_in_a_ring_end(shelf, target):
    fail(shelf.put("b.zip", location="/b.zip"), target, "leads in a ring")


def test_digests_that_servers_state_are_compared(shelf, target):
    sha256, md5 = hashlib.sha256(BODY).hexdigest(), hashlib.md5(BODY).hexdigest()
    stated = {"X-Linked-Etag": f'"{sha256}"'}
    assert get(shelf.put("a.zip", BODY, headers=stated), target).stated == ("sha256", sha256)
    on_the_way = shelf.put("b.zip", location=shelf.put("a.zip", BODY), headers=stated)
    assert get(on_the_way, target).stated == ("sha256", sha256)
    assert get(shelf.put("c.zip", BODY, etag=f'"md5:{md5}"'), target).stated == ("md5", md5)


@pytest.mark.parametrize(
    "how", [{"headers": {"X-Linked-Etag": f'"{"0" * 64}"'}}, {"etag": f'"md5:{"0" * 32}"'}]
)
def test_a_file_that_is_not_what_its_server_states_is_thrown_away(shelf, target, how):
    fail(
        shelf.put("a.zip", BODY, **how),
        target,
        "came with another (sha256|md5) than its server states",
    )
    assert names(target.parent) == []


def test_a_digest_stated_on_the_way_tells_parts_apart(shelf, target):
    url = shelf.put("a.zip", BODY, cuts=[CUT], etag='"first host"')
    stated = {"X-Linked-Etag": hashlib.sha256(BODY).hexdigest()}
    first = shelf.put("b.zip", location=url, headers=stated)
    shelf["/a.zip"].cuts += [0] * ATTEMPTS
    fail(first, target, "is kept")
    shelf.put("a.zip", BODY, etag='"second host"')
    get(first, target)
    assert target.read_bytes() == BODY
    assert ranges(shelf)[-1] == f"bytes={CUT}-"  # another tag, the same digest: the part is good
    assert "If-Range" not in shelf.asked[-1][1]


def test_room_is_looked_for_first(shelf, target, monkeypatch):
    monkeypatch.setattr(
        fetch.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": fetch.ROOM})()
    )
    fail(shelf.put("a.zip", BODY), target, r"has 64 MB free, expected 66 MB; make room")
    assert names(target.parent) == []


def test_a_full_disk_is_no_cut_connection(shelf, target, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        get(shelf.put("a.zip", BODY), target)
    assert len(shelf.asked) == 1


def test_secrets_of_an_address_are_not_kept(shelf, target):
    get(f"{shelf.put('a.zip', BODY)}?token=secret", target)
    note = target.with_name("snemi.zip.part.json").read_text()
    assert "secret" not in note
    assert "secret" not in fail(
        f"{shelf.address}/none.zip?token=secret", target.with_name("b.zip"), "404"
    )
    assert connection.shown("https://me:secret@host:8080/a?b#c") == "https://host:8080/a"


def counting(steps, stop=None):
    @contextmanager
    def progress(label, total):
        steps.append((label, total))

        def step(note=""):
            steps.append(1)
            if stop is not None and len(steps) > stop:
                raise KeyboardInterrupt

        yield step

    return progress


def test_progress_counts_megabytes_once(shelf, target):
    steps = []
    get(shelf.put("a.zip", BODY * 3, cuts=[2 * MB]), target, progress=counting(steps))
    assert steps == [("snemi.zip (MB)", 5), 1, 1, 1, 1, 1]


def test_progress_of_a_file_of_unknown_size(shelf, target):
    steps = []
    get(shelf.put("a.zip", BODY, length=False), target, progress=counting(steps))
    assert steps == [("snemi.zip (MB, size not stated)", 0), 1]


def test_an_interrupt_keeps_the_part(shelf, target):
    url = shelf.put("a.zip", BODY * 3)
    with pytest.raises(KeyboardInterrupt):
        get(url, target, progress=counting([], stop=2))
    had = target.with_name("snemi.zip.part").stat().st_size
    assert 2 * MB <= had < 3 * MB
    get(url, target)
    assert target.read_bytes() == BODY * 3
    assert ranges(shelf) == [None, f"bytes={had}-"]
