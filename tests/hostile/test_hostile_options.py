"""Options that hold no number, no box, no shard, or numbers nobody can mean."""

import shutil

import pytest
from bad_files import bytes_in
from checking import Case, listed

SEGMENT = "segment model.safetensors raw.tif out.zarr"
AUDIT = "audit model.safetensors raw.tif --tile 32"
TRAIN = "train raw.tif labels.tif o.safetensors --weights none"
EVALUATE = "evaluate labels.tif labels.tif"
FIX = "fix model.safetensors f.safetensors"
EXPORT = "export model.safetensors out.onnx"
HUGE = "9" * 30
BAD = [
    # (options, command, what is said)
    ("--threshold nan", SEGMENT, "threshold is nan"),
    ("--threshold -1", SEGMENT, "threshold is -1"),
    ("--threshold inf", EVALUATE, "threshold is inf"),
    ("--threshold x", EVALUATE, "--threshold"),
    ("--tile -5", SEGMENT, "--tile is -5"),
    ("--tile 0", SEGMENT, "--tile is 0"),
    ("--tile 1e3", SEGMENT, "--tile"),
    ("--tile 3", AUDIT.removesuffix(" --tile 32"), "--tile"),
    ("--memory 0", SEGMENT, "--memory is 0"),
    ("--memory nan", SEGMENT, "--memory is nan"),
    ("--memory inf", SEGMENT, "--memory is inf"),
    ("--memory -3", SEGMENT, "--memory is -3"),
    ("--min-size 0 --instances components", SEGMENT, "--min-size is 0"),
    (f"--min-size -{HUGE} --instances components", SEGMENT, "--min-size"),
    ("--voxel-size 0,0,0", SEGMENT, "the voxel size is 0, 0, 0"),
    ("--voxel-size nan,1,1", SEGMENT, "the voxel size is nan"),
    ("--voxel-size 1,2", SEGMENT, "the voxel size is 1, 2"),
    ("--voxel-size a,b,c", SEGMENT, "--voxel-size is 'a,b,c'"),
    ("--voxel-size ,,", SEGMENT, "--voxel-size is ',,'"),
    ("--mean nan --std 1", SEGMENT, "mean (nan,)"),
    ("--mean 1 --std 0", AUDIT, "std (0.0,)"),
    ("--mean 1 --std inf", AUDIT, "std (inf,)"),
    ("--mean 1 --std -1", SEGMENT, "std (-1.0,)"),
    ("--mean 1", SEGMENT, "only one of mean and std"),
    ("--mean 1,2 --std 1,2", SEGMENT, "2 means were given, expected 1 or 3"),
    ("--mean 1e400 --std 1", SEGMENT, "mean (inf,)"),
    ("--slices 0", SEGMENT, "0 slices were asked for"),
    ("--slices -3", AUDIT, "-3 slices were asked for"),
    (f"--slices {HUGE}", AUDIT, "slices were asked for"),
    ("--seed -1", AUDIT, "--seed"),
    ("--seed 1.5", TRAIN, "--seed"),
    (f"--seed {HUGE} --windows 2 --methods magic", AUDIT, "magic"),
    ("--windows 0", AUDIT, "0 windows were asked for"),
    ("--windows -1", AUDIT, "-1 windows were asked for"),
    ("--windows 1e9", AUDIT, "--windows is '1e9'"),
    ("--margin nan", AUDIT, "the margin is nan"),
    ("--margin 2", AUDIT, "the margin is 2"),
    ("--fail-above inf", AUDIT, "--fail-above is inf"),
    ("--methods ,", AUDIT, "method"),
    ("--region truth", AUDIT, "give --labels"),
    ("--tolerance nan", EVALUATE, "the tolerance is nan"),
    (f"--tolerance {HUGE}", EVALUATE, "the tolerance is"),
    ("--ignore 1.5", EVALUATE, "--ignore is '1.5'"),
    ("--ignore nan", EVALUATE, "--ignore is 'nan'"),
    ("--lr nan", TRAIN, "--lr is nan"),
    ("--lr 0", TRAIN, "--lr is 0"),
    ("--lr inf", TRAIN, "--lr is inf"),
    ("--steps 0", TRAIN, "--steps is 0"),
    ("--steps -1", TRAIN, "--steps is -1"),
    ("--batch 0", TRAIN, "--batch is 0"),
    ("--crop 1", TRAIN, "--crop is 1"),
    ("--devices 0", TRAIN, "--devices is 0"),
    ("--devices 1000 --batch 1000 --device cpu", TRAIN, "--devices"),
    ("--class-weights nan,1", TRAIN, "--class-weights"),
    ("--class-weights 0,0", TRAIN, "--class-weights"),
    ("--clip 0", TRAIN, "--clip is 0"),
    ("--warmup nan", TRAIN, "--warmup is nan"),
    ("--weight-decay -1", TRAIN, "--weight-decay is -1"),
    ("--encoder-depth 99", TRAIN, "--encoder-depth"),
    ("--validation 5:2", TRAIN, "--validation is '5:2'"),
    ("--validation a:b", TRAIN, "--validation is 'a:b'"),
    (f"--validation 0:{HUGE}", TRAIN, "--validation is '0:999"),
    ("--validation 0:9", TRAIN, "raw.tif has 9 slices"),
    (f"--ignore-label {HUGE} --target classes --steps 0", TRAIN, "--steps is 0"),
    ("--device tpu", TRAIN, "--device"),
    ("--opset 3", EXPORT, "--opset"),
    ("--opset 99", EXPORT, "--opset"),
    ("--tile -1", EXPORT, "--tile"),
    ("--format magic", EXPORT, "--format"),
    ("--tie magic", FIX, "--tie"),
    ("--init magic", FIX, "--init"),
    ("--labels labels.tif", FIX, "labels were given without a volume"),
    ("--magic 3", SEGMENT, "--magic"),
    ("extra.tif", EVALUATE, "extra.tif"),
    ("--resume --shard 1/2 --scheduler tcp://nowhere:1", SEGMENT, "--shard and --scheduler"),
    ("--axis t", SEGMENT, "--axis"),
    ("--instances watershed --min-size 5 --output probabilities", SEGMENT.replace(".zarr", ".tif"), "one TIFF"),
]  # fmt: skip
ROIS = [
    "5:2,:,:", "0:99,:,:", ":,:,:,:", ":,:", "0:1", ",,", "a:b,:,:", "-1:3,:,:", "1.5:3,:,:", "3:3,:,:", "nan:3,:,:", f"0:{HUGE},:,:", "0:9,0:48,0:65", "0:1;0:1;0:1",
]  # fmt: skip
SHARDS = [
    "0/4",
    "5/4",
    "1/0",
    "-1/4",
    "1/-4",
    "a/b",
    "1",
    "1/2/3",
    "/",
    "1.5/2",
    f"1/{HUGE}",
    "x/٤",
]
CASES = [
    Case(f"option: {options} of {words.split()[0]}", f"{words} {options}", says)
    for options, words, says in BAD
]
CASES += [
    Case(f"roi: {roi} of {words.split()[0]}", f"{words} --roi='{roi}'", "--roi")
    for roi, words in zip(ROIS, [SEGMENT, AUDIT, EVALUATE] * len(ROIS), strict=False)
]
CASES += [Case(f"shard: {shard}", f"{SEGMENT} --shard='{shard}'", "--shard") for shard in SHARDS]
CASES += [
    Case("data: no such set", "data fetch nothing", "nothing"),
    Case("data: archive that is none", "data fetch lucchi --from a.zip --to d", "a.zip", bytes_in("a.zip", b"PK not really")),
    Case("data: empty archive", "data fetch lucchi --from a.zip --to d", "a.zip", bytes_in("a.zip", b"")),
    Case("data: archive that is not there", "data fetch lucchi --from a.zip --to d", "--from is a.zip"),
    Case("data: address that is none", "data fetch lucchi --from 'http://' --to d", "http://"),
    Case("data: address of a file", "data fetch lucchi --from file:///etc/passwd --to d", "file:///etc/passwd"),
    Case("data: folder that is a file", "data fetch lucchi --to raw.tif", "raw.tif is a file"),
    Case("data: list to a json that exists", "data list --json raw.tif", "raw.tif exists"),
]  # fmt: skip


@pytest.mark.parametrize("case", listed(CASES))
def test_options(checked, case):
    checked(case)


def test_export_of_a_volume(checked, place, whole_model):
    shutil.copy(whole_model, "w.safetensors")
    checked(Case("option: export to another ending", "export w.safetensors out.jpg", "out.jpg"))
