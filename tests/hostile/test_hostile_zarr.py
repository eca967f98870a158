"""Zarr and OME-Zarr stores that are broken, absurd, or lack chunks."""

import bad_zarr as made
import numpy as np
import pytest
from bad_files import both
from checking import Case, listed
from zarr.codecs import GzipCodec

HUGE = {"shape": [10**6] * 3, "chunk_grid": made.grid(1, 1000, 1000)}
DEEP = "[" * 100_000


def axes(*names):
    return made.scale(
        lambda one: one.update(axes=[{"name": name, "type": "space"} for name in names])
    )


CHUNKS = [
    Case("chunks: one missing is the fill value", "inspect v.zarr", ("2 of 3 chunks are there", "fill value 7"), made.spoilt("v.zarr", lambda body: None, fill_value=7), code=0),
    Case("chunks: one missing is segmented", "segment model.safetensors v.zarr out.zarr", "blank", made.spoilt("v.zarr", lambda body: None), code=0),
    Case("chunks: all missing", "inspect v.zarr", "0 of 3 chunks are there", made.stated("v.zarr"), code=0),
    Case("chunks: all missing in audit", "audit model.safetensors v.zarr --tile 32", "v.zarr is constant", made.stated("v.zarr")),
    Case("chunks: all missing in train", "train v.zarr v.zarr o.safetensors", "v.zarr holds only the value 0", made.stated("v.zarr")),
    Case("truncated: chunk of zarr v3", "segment model.safetensors v.zarr out.zarr", ("v.zarr cannot be decoded at", "2:"), made.spoilt("v.zarr", lambda body: body[: len(body) // 2])),
    Case("truncated: chunk of zarr v2", "evaluate v.zarr v.zarr", "v.zarr cannot be decoded at", made.spoilt("v.zarr", lambda body: body[: len(body) // 2], version=2)),
    Case("truncated: plain chunk of zarr v3", "audit model.safetensors v.zarr --tile 32", "v.zarr cannot be decoded at", made.spoilt("v.zarr", lambda body: body[:99], compressors=None)),
    Case("truncated: shard", "segment model.safetensors v.zarr out.zarr", "v.zarr cannot be decoded at", made.spoilt("v.zarr", lambda body: body[:-30], shards=(2, 48, 64), chunks=(1, 16, 16))),
    Case("zero-byte: chunk", "segment model.safetensors v.zarr out.tif", "v.zarr cannot be decoded at", made.spoilt("v.zarr", lambda body: b"")),
    Case("corrupt: chunk of zarr v3", "segment model.safetensors v.zarr out.zarr", "v.zarr cannot be decoded at", made.spoilt("v.zarr", lambda body: b"\xff" * len(body))),
    Case("corrupt: chunk of zarr v2 in blosc", "evaluate v.zarr v.zarr", "v.zarr cannot be decoded at", made.spoilt("v.zarr", lambda body: b"\xff" * len(body), version=2)),
    Case("corrupt: chunk in gzip", "train v.zarr v.zarr o.safetensors --target boundary", "v.zarr cannot be decoded at", made.spoilt("v.zarr", lambda body: body[:20] + b"\xff" * 200 + body[220:], compressors=GzipCodec())),
    Case("corrupt: chunk that is too long", "inspect v.zarr", "v.zarr cannot be decoded at", made.spoilt("v.zarr", lambda body: body * 2, compressors=None, chunks=(2, 48, 64))),
    Case("chunks: under other names", "segment model.safetensors v.zarr out.zarr", ("v.zarr holds 0 but no chunk under a name such as 0.0.0", "dimension_separator"), both(made.stated("v.zarr", 2), lambda place: (place / "v.zarr/0/0").mkdir(parents=True))),
]  # fmt: skip
METADATA = [
    Case("zero-byte: zarr.json", "inspect v.zarr", "v.zarr/zarr.json is not JSON", made.text("v.zarr", "")),
    Case("zero-byte: .zarray", "segment model.safetensors v.zarr out.zarr", ".zarray", made.text("v.zarr", "", ".zarray")),
    Case("truncated: zarr.json", "train v.zarr labels.tif o.safetensors", "v.zarr/zarr.json is not JSON", made.text("v.zarr", '{"zarr_format": 3, "node_type"')),
    Case("wrong magic: zarr.json of bytes", "inspect v.zarr", "v.zarr/zarr.json is not JSON", made.text("v.zarr", bytes(range(256)))),
    Case("wrong magic: zarr.json of a list", "inspect v.zarr", "v.zarr", made.text("v.zarr", "[1, 2]")),
    Case("wrong magic: file named zarr", "inspect v.zarr", "v.zarr", lambda place: (place / "v.zarr").write_bytes(b"x")),
    Case("nested: zarr.json of 100000 brackets", "segment model.safetensors v.zarr out.zarr", "v.zarr/zarr.json is not JSON", made.text("v.zarr", DEEP)),
    Case("nested: attributes of 100000 brackets", "inspect v.zarr", ".zattrs is not JSON", both(made.stated("v.zarr", 2), lambda place: (place / "v.zarr/.zattrs").write_text(DEEP))),
    Case("nested: 60 groups", "inspect v.zarr", "6 x 48 x 64", made.bare("v.zarr", 60), code=0),
    Case("nested: group with a link to itself", "inspect v.zarr", "6 x 48 x 64", made.circle("v.zarr"), code=0),
    Case("bad header: zarr of negative sizes", "inspect v.zarr", "v.zarr", made.stated("v.zarr", shape=[-6, 48, 64])),
    Case("bad header: zarr of no size", "segment model.safetensors v.zarr out.zarr", "v.zarr", made.stated("v.zarr", shape=[0, 48, 64])),
    Case("bad header: zarr of fractions", "inspect v.zarr", "v.zarr", made.stated("v.zarr", shape=[6.5, 48, 64])),
    Case("bad header: zarr of words", "inspect v.zarr", "v.zarr", made.stated("v.zarr", 2, shape="many")),
    Case("bad header: zarr of infinite size", "inspect v.zarr", "v.zarr", made.text("v.zarr", '{"zarr_format": 2, "shape": [Infinity, 4, 4], "chunks": [1, 4, 4], "dtype": "|u1", "compressor": null, "fill_value": 0, "order": "C", "filters": null}', ".zarray")),
    Case("bad header: chunks of no size", "inspect v.zarr", "v.zarr", made.stated("v.zarr", chunk_grid=made.grid(0, 48, 64))),
    Case("bad header: chunks of no size, v2", "evaluate v.zarr v.zarr", "v.zarr", made.stated("v.zarr", 2, chunks=[0, 48, 64])),
    Case("bad header: chunks of negative sizes", "inspect v.zarr", "v.zarr", made.stated("v.zarr", 2, chunks=[-2, 48, 64])),
    Case("bad header: chunks of fewer axes", "inspect v.zarr", "v.zarr", made.stated("v.zarr", chunk_grid=made.grid(48, 64))),
    Case("bad header: chunks of fewer axes, v2", "inspect v.zarr", "v.zarr", made.stated("v.zarr", 2, chunks=[48, 64])),
    Case("bad header: no shape", "inspect v.zarr", "v.zarr", made.stated("v.zarr", shape="_")),
    Case("bad header: no version", "inspect v.zarr", "v.zarr", made.stated("v.zarr", zarr_format="_")),
    Case("bad header: version 9", "inspect v.zarr", "v.zarr", made.stated("v.zarr", zarr_format=9)),
    Case("bad header: unknown type", "audit model.safetensors v.zarr", "v.zarr", made.stated("v.zarr", data_type="uint7")),
    Case("bad header: unknown type, v2", "inspect v.zarr", "v.zarr", made.stated("v.zarr", 2, dtype="<q9")),
    Case("bad header: unknown codec", "segment model.safetensors v.zarr out.zarr", ("v.zarr", "magic"), made.stated("v.zarr", codecs=[{"name": "magic", "configuration": {}}])),
    Case("bad header: unknown compressor, v2", "inspect v.zarr", ("v.zarr", "magic"), made.stated("v.zarr", 2, compressor={"id": "magic"})),
    Case("bad header: no codecs", "inspect v.zarr", "v.zarr", made.stated("v.zarr", codecs=[])),
    Case("bad header: codec of the wrong level", "inspect v.zarr", "v.zarr", made.stated("v.zarr", codecs=[*made.V3["codecs"], {"name": "blosc", "configuration": {"cname": "none", "clevel": 99}}])),
    Case("bad header: unknown grid", "inspect v.zarr", "v.zarr", made.stated("v.zarr", chunk_grid={"name": "odd", "configuration": {}})),
    Case("bad header: fill value of words", "inspect v.zarr", "v.zarr", made.stated("v.zarr", fill_value="much")),
    Case("bad header: fill value that does not fit", "inspect v.zarr", "v.zarr", made.stated("v.zarr", fill_value=10**9)),
    Case("bad header: fill value of nan", "segment model.safetensors v.zarr out.zarr", "NaN or infinite", made.stated("v.zarr", data_type="float32", fill_value="NaN")),
    Case("absurd size: zarr v3", "inspect v.zarr", "1000000 x 1000000 x 1000000", made.stated("v.zarr", **HUGE), code=0),
    Case("absurd size: zarr v2", "segment model.safetensors v.zarr out.zarr", ("v.zarr", "--roi"), made.stated("v.zarr", 2, shape=[10**6] * 3, chunks=[1, 1000, 1000])),
    Case("absurd size: zarr in segment --output", "segment model.safetensors v.zarr out.tif --output probabilities", ("v.zarr", "--roi"), made.stated("v.zarr", **HUGE)),
    Case("absurd size: zarr in evaluate", "evaluate v.zarr v.zarr --as instances", ("v.zarr", "--roi"), made.stated("v.zarr", **HUGE)),
    Case("absurd size: zarr in train", "train v.zarr v.zarr o.safetensors", "v.zarr", made.stated("v.zarr", **HUGE)),
    Case("absurd size: zarr in audit", "audit model.safetensors v.zarr --tile 32 --maps maps.zarr", "v.zarr is constant", made.stated("v.zarr", **HUGE)),
    Case("absurd size: zarr of one long row", "evaluate v.zarr v.zarr", "v.zarr", made.stated("v.zarr", shape=[1, 1, 10**12], chunk_grid=made.grid(1, 1, 10**6))),
    Case("absurd size: zarr of 10^12 slices", "train v.zarr v.zarr o.safetensors", "v.zarr", made.stated("v.zarr", shape=[10**12, 8, 8], chunk_grid=made.grid(10**6, 8, 8))),
    Case("absurd size: zarr of 10^12 slices in segment", "segment model.safetensors v.zarr out.zarr", "v.zarr", made.stated("v.zarr", shape=[10**12, 8, 8], chunk_grid=made.grid(10**6, 8, 8))),
    Case("absurd size: many small blocks", "segment model.safetensors v.zarr out.zarr --tile 64", ("v.zarr would be segmented in", "--roi"), made.stated("v.zarr", shape=[10**4] * 3, chunk_grid=made.grid(1, 100, 100))),
    Case("absurd size: chunk of zarr", "inspect v.zarr", ("v.zarr is packed in chunks of", "1e+03 GB"), made.bomb("v.zarr")),
    Case("absurd size: shape of 400 digits", "inspect v.zarr", ("v.zarr", "along an axis"), made.stated("v.zarr", shape=[10**400, 48, 64])),
    Case("dtype: structured zarr", "inspect v.zarr", "v.zarr", made.stated("v.zarr", 2, dtype=[["a", "|u1"], ["b", "<f4"]], fill_value=None)),
    Case("dtype: strings in zarr", "segment model.safetensors v.zarr out.zarr", "v.zarr", made.stated("v.zarr", 2, dtype="<U8", fill_value="")),
    Case("dtype: objects in zarr", "inspect v.zarr", "v.zarr", made.stated("v.zarr", 2, dtype="|O", fill_value=None)),
    Case("dtype: complex zarr", "audit model.safetensors v.zarr", "complex64", made.stated("v.zarr", data_type="complex64", fill_value=[0, 0])),
    Case("dtype: float16 zarr", "inspect v.zarr", "float16", made.stored("v.zarr", made.GREY.astype(np.float16)), code=0),
]  # fmt: skip
IMAGES = [
    Case("levels: first one missing", "segment model.safetensors v.zarr out.zarr", "v.zarr/0", made.image("v.zarr", gone="0")),
    Case("levels: second one missing", "inspect v.zarr", "missing", made.image("v.zarr", gone="1"), code=0),
    Case("levels: none listed", "inspect v.zarr", "v.zarr holds 3 arrays, expected exactly one volume", made.image("v.zarr", made.scale(lambda one: one.update(datasets=[])))),
    Case("levels: outside the store", "inspect v.zarr", ("v.zarr names the level ../other.zarr", "lies outside"), both(made.stored("other.zarr"), made.image("v.zarr", made.scale(lambda one: one.update(datasets=[{"path": "../other.zarr"}]))))),
    Case("levels: path too long for a name", "inspect v.zarr", ("v.zarr", "at most 255 bytes"), made.image("v.zarr", made.scale(lambda one: one["datasets"][0].update(path="9" * 300)))),
    Case("levels: path of a number", "inspect v.zarr", "528", made.image("v.zarr", made.scale(lambda one: one["datasets"][0].update(path=0))), code=0),
    Case("bad header: multiscales that are no list", "segment model.safetensors v.zarr out.zarr", "broken OME-Zarr metadata", made.image("v.zarr", lambda ome: ome.update(multiscales=7))),
    Case("bad header: scale of words", "inspect v.zarr", "broken OME-Zarr metadata", made.image("v.zarr", made.scale(lambda one: one["datasets"][0]["coordinateTransformations"][0].update(scale=["a", 1, 1])))),
    Case("bad header: scale of two numbers", "inspect v.zarr", "broken OME-Zarr metadata", made.image("v.zarr", made.scale(lambda one: one["datasets"][0]["coordinateTransformations"][0].update(scale=[1, 1])))),
    Case("bad header: scale below 0", "inspect v.zarr", "not stated", made.image("v.zarr", made.scale(lambda one: one["datasets"][0]["coordinateTransformations"][0].update(scale=[-1, 1, 1]))), code=0),
    Case("bad header: scale of nan", "inspect v.zarr", "not stated", made.image("v.zarr", made.scale(lambda one: one["datasets"][0]["coordinateTransformations"][0].update(scale=[float("nan"), 1, 1]))), code=0),
    Case("bad header: axes x, y, z", "audit model.safetensors v.zarr", ("v.zarr", "expected z, y, x"), made.image("v.zarr", axes("x", "y", "z"))),
    Case("bad header: axes of one name", "inspect v.zarr", "v.zarr", made.image("v.zarr", axes("z", "z", "z"))),
    Case("bad header: more axes than there are", "inspect v.zarr", "v.zarr", made.image("v.zarr", axes("c", "z", "y", "x"))),
    Case("bad header: axes that are no names", "inspect v.zarr", "v.zarr", made.image("v.zarr", made.scale(lambda one: one.update(axes=[{}, {}, {}])))),
    Case("bad header: transformations that are no list", "inspect v.zarr", "broken OME-Zarr metadata", made.image("v.zarr", made.scale(lambda one: one["datasets"][0].update(coordinateTransformations={"type": 3})))),
    Case("bad header: OME-Zarr 0.4 without axes", "inspect v.zarr", "v.zarr", made.old_image("v.zarr", {"multiscales": [{"version": "0.4", "datasets": [{"path": "0"}]}]})),
    Case("bad header: OME-Zarr 0.4 of null", "inspect v.zarr", "broken OME-Zarr metadata", made.old_image("v.zarr", {"multiscales": [None]})),
    Case("bad header: attributes that are a list", "inspect v.zarr", "6 x 48 x 64", made.old_image("v.zarr", [1, 2]), code=0),
    Case("no volume: empty store", "inspect v.zarr", "v.zarr holds no array", made.text("v.zarr", '{"zarr_format": 3, "node_type": "group"}')),
    Case("no volume: name that is not in the store", "segment model.safetensors v.zarr/9 out.zarr", ("v.zarr/9 does not exist", "choose one of: 0"), made.image("v.zarr")),
    Case("no volume: two axes", "inspect v.zarr", ("v.zarr", "48 x 64"), made.stored("v.zarr", made.GREY[0], chunks=(48, 64))),
    Case("no volume: six axes", "inspect v.zarr", "v.zarr", made.stored("v.zarr", np.zeros((2, 2, 2, 2, 2, 2), np.uint8), chunks=(2,) * 6)),
]  # fmt: skip


@pytest.mark.parametrize("case", listed(CHUNKS))
def test_chunks(checked, case):
    checked(case)


@pytest.mark.parametrize("case", listed(METADATA))
def test_metadata(checked, case):
    checked(case)


@pytest.mark.parametrize("case", listed(IMAGES))
def test_images(checked, case):
    checked(case)
