"""Volumes on servers and in buckets: the voxels of the file, each chunk once, or one line."""

import json
import socket
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr

from evenslice import segment
from evenslice.errors import BadInputError
from evenslice.volume import address
from evenslice.volume.address import is_remote, parse_address
from evenslice.volume.files import open_volume, save_volume
from inputs import chunked
from verbs.scenes import arrays_of, blurring
from volume.server import serving
from volume.voxels import ALL, assert_reads, noise

PIXELS = noise(shape=(8, 20, 24))
pytestmark = pytest.mark.filterwarnings("ignore::evenslice.errors.InputWarning")
METADATA = (".json", "/info", ".zarray", ".zattrs")
CHUNKS = {"chunks": (4, 8, 8)}


def ome(folder):
    save_volume(folder / "a.zarr", PIXELS, (40.0, 4.0, 5.0))
    return folder / "a.zarr"


def array(**options):
    def make(folder):
        made = zarr.create_array(
            str(folder / "a.zarr"), shape=PIXELS.shape, dtype=PIXELS.dtype, **(CHUNKS | options)
        )
        made[...] = PIXELS
        made.attrs["resolution"] = [40, 4, 5]
        return folder / "a.zarr"

    return make


def cloud_volume(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cloudvolume = pytest.importorskip("cloudvolume")
    info = cloudvolume.CloudVolume.create_new_info(
        num_channels=1,
        layer_type="image",
        data_type="uint8",
        encoding="raw",
        resolution=[5, 4, 40],
        voxel_offset=[0, 0, 0],
        chunk_size=[8, 8, 4],
        volume_size=PIXELS.shape[::-1],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = cloudvolume.CloudVolume(f"file://{folder / 'a'}", info=info, compress=False)
        volume.commit_info()
        volume[:, :, :] = PIXELS.T[..., None]
    return folder / "a"


MAKERS = {
    "OME-Zarr": ome,
    "Zarr v2": array(zarr_format=2),
    "Zarr v3 in shards": array(shards=(8, 16, 16)),
    "N5": chunked.n5(".", data=PIXELS, resolution=[5, 4, 40]),
    "precomputed": chunked.precomputed(PIXELS),
    "precomputed in shards": chunked.precomputed(PIXELS, sharding=chunked.SHARDED),
    "cloud-volume": cloud_volume,
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Try again soon, with a cache and credentials of this test alone."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    short = {"max_retries": 3, "initial_delay": "10ms", "max_delay": "20ms"}
    monkeypatch.setattr(address, "RETRIES", short)
    address.context.cache_clear()
    yield
    address.context.cache_clear()


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "cloud-volume")) for kind in MAKERS],
)
def test_the_voxels_of_any_container_are_those_of_the_file_and_each_chunk_is_read_once(
    tmp_path, kind
):
    made = MAKERS[kind](tmp_path)
    local = open_volume(made)
    with serving(tmp_path) as server:
        remote = open_volume(f"{server.address}/{made.relative_to(tmp_path)}")
        assert_reads(remote, PIXELS)
        for z in range(6):
            remote.read((slice(z, z + 3), slice(2, 7), slice(0, 24)))
    assert_reads(local, PIXELS)
    assert remote.voxel_nm == local.voxel_nm == pytest.approx((40, 4, 5))
    assert (remote.facts, remote.meaning) == (local.facts, local.meaning)
    chunks = [part for part in server.read if not part[0].endswith(METADATA)]
    assert len(set(chunks)) == len(chunks)


def test_what_is_fetched_ahead_is_not_fetched_again(tmp_path):
    made = chunked.precomputed(PIXELS, offset=[3, 2, 1])(tmp_path)
    with serving(tmp_path) as server:
        volume = open_volume(f"{server.address}/{made.name}")
        server.read.clear()
        box = (slice(2, 6), slice(9, 17), slice(3, 12))
        volume.fetch_ahead(box)
        volume.pixels._ahead.result()
        fetched = len(server.read)
        np.testing.assert_array_equal(volume.read(box), PIXELS[box])
        assert len(server.read) == fetched == 2 * 2 * 2


def test_a_segmentation_reads_each_chunk_once_and_equals_that_of_the_file(tmp_path):
    (tmp_path / "in").mkdir()
    made = array(shards=None)(tmp_path / "in")
    options = {"precision": "fp32", "tile": 32, "axis": "all", "voxel_nm": (4, 4, 5)}
    local = segment(blurring(), made, tmp_path / "a.zarr", **options)
    with serving(tmp_path / "in") as server:
        remote = segment(blurring(), f"{server.address}/a.zarr", tmp_path / "b.zarr", **options)
        chunks = [path for path, *_ in server.read if "/c/" in path]
    assert len(set(chunks)) == len(chunks) == 2 * 3 * 3
    one, two = arrays_of(local), arrays_of(remote)
    assert one.keys() == two.keys() and all((one[name] == two[name]).all() for name in one)


@pytest.mark.parametrize(
    ("given", "kind", "found"),
    [
        ("precomputed://gs://b/c/d/", "precomputed", "gs://b/c/d"),
        ("n5://https://h.org/x", "n5", "https://h.org/x"),
        ("zarr3://s3://b/c", "zarr", "s3://b/c"),
        ("s3://b/c", None, "s3://b/c"),
        ("n5:///tmp/x", "n5", "/tmp/x"),
        ("file.h5:/a", None, "file.h5:/a"),
        ("C:/a/b", None, "C:/a/b"),
    ],
)
def test_addresses_with_and_without_the_prefix_of_neuroglancer(given, kind, found):
    for one in (given, Path(given)):  # a Path has lost a slash
        assert (parse_address(one)[0], str(parse_address(one)[1])) == (kind, found)
    assert is_remote(given) == (not found.startswith(("/", "file", "C")))


@pytest.mark.parametrize("given", ["https://me:secret@h.org/x", "s3://b/x?sig=secret"])
def test_credentials_in_an_address_are_refused_and_not_printed(given):
    with pytest.raises(BadInputError, match="expected SCHEME://SERVER/PATH") as caught:
        open_volume(given)
    assert "secret" not in str(caught.value)


def test_a_bucket(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto.server")
        server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        try:
            endpoint = "http://{}:{}".format(*server.get_host_and_port())
            keys = {"aws_access_key_id": "x", "aws_secret_access_key": "y"}
            s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
            s3.create_bucket(Bucket="bucket")
            made = chunked.n5("em/s0", data=PIXELS, groups={"em": chunked.AROUND})(tmp_path)
            for file in made.rglob("*"):
                if file.is_file():
                    key = str(file.relative_to(tmp_path))
                    s3.put_object(Bucket="bucket", Key=key, Body=file.read_bytes())
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
            monkeypatch.setenv("AWS_REGION", "us-east-1")
            with pytest.raises(BadInputError, match="or give credentials in the environment"):
                open_volume("s3://bucket/a.n5/em")
            rule = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "*"}
            s3.put_bucket_policy(Bucket="bucket", Policy=json.dumps({"Statement": [rule]}))
            for name in ("s3://bucket/a.n5/em", "n5://s3://bucket/a.n5/em/s0"):
                assert_reads(open_volume(name), PIXELS)
            s3.delete_bucket_policy(Bucket="bucket")
            for name, value in keys.items():
                monkeypatch.setenv(name.upper(), value)
            address.context.cache_clear()
            assert_reads(open_volume("s3://bucket/a.n5/em"), PIXELS)
        finally:
            server.stop()


def test_an_answer_that_fails_for_a_moment_is_asked_for_again(tmp_path):
    array()(tmp_path)
    with serving(tmp_path) as server:
        faults = ("a.zarr/zarr.json", "a.zarr/c/0/0/0", "a.zarr/c/1/1/1")
        server.faults = {path: ["503", "drop"] for path in faults}
        assert_reads(open_volume(f"{server.address}/a.zarr"), PIXELS)
        assert not any(server.faults.values())


@pytest.mark.parametrize("fault", ["503", "drop", "cut"])
def test_what_fails_for_good_is_one_line(tmp_path, fault):
    array()(tmp_path)
    with serving(tmp_path) as server:
        volume = open_volume(f"{server.address}/a.zarr")
        server.faults = {"a.zarr/c/0/0/0": [fault] * 99}
        with pytest.raises(
            BadInputError, match=r"cannot be decoded at \[0:8, .*expected"
        ) as caught:
            volume.read(ALL)
        assert "\n" not in str(caught.value)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        with pytest.raises(BadInputError, match="expected a server or bucket that answers"):
            open_volume(f"http://127.0.0.1:{port}/b.zarr")


def test_a_missing_chunk_is_the_fill_value_and_a_truncated_one_is_one_line(tmp_path):
    array(compressors=None, fill_value=7)(tmp_path)
    chunk = tmp_path / "a.zarr" / "c" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with serving(tmp_path) as server:
        volume = open_volume(f"{server.address}/a.zarr")
        np.testing.assert_array_equal(volume.slice_at(3), PIXELS[3])
        with pytest.raises(BadInputError, match=r"c/1/0/0.*expected whole chunks"):
            volume.slice_at(4)
        chunk.unlink()
        assert (open_volume(f"{server.address}/a.zarr").slice_at(4)[:8, :8] == 7).all()
