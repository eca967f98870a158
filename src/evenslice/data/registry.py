"""Public datasets by name: where they are, what they hold, how they are split, on what terms."""

import os
import re
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from evenslice.errors import BadInputError
from evenslice.options import JsonObject

VARIABLE = "EVENSLICE_DATA"


@dataclass(frozen=True)
class Archive:
    """An archive on the web, the page that describes it, and a hash that others state for it."""

    url: str
    page: str
    sha256: str | None = None
    stated_by: str = ""


@dataclass(frozen=True)
class LabelledVolume:
    """One volume with its labels: paths below the folder, slices [z0, z1) of them or all."""

    role: Literal["train", "test"]
    raw: str
    labels: str
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Conversion:
    """A TIFF that is made from what the archive holds.

    Attributes
    ----------
    source, target
        Paths below the folder of the dataset.
    kind
        ``grey``: the same voxels. ``dark``: labels, 1 where the source is dark. ``rarer``: labels,
        1 for the rarer of dark and bright.
    """

    source: str
    target: str
    kind: Literal["grey", "dark", "rarer"]


@dataclass(frozen=True)
class Dataset:
    """A public dataset.

    Attributes
    ----------
    folder
        Name of its folder within ``default_folder()``.
    archives
        Where it is published; the first is fetched.
    volumes
        One to train on and one to test on.
    shape
        (z, y, x) of each volume as published.
    voxel_nm
        (z, y, x), None where the source does not state it.
    target
        What the labels mean, as ``Target`` takes it.
    conversions
        Files that are made after unpacking.
    aliases
        Other spellings; case, spaces and punctuation never matter.
    """

    name: str
    title: str
    folder: str
    archives: tuple[Archive, ...]
    volumes: tuple[LabelledVolume, ...]
    shape: tuple[int, int, int]
    voxel_nm: tuple[float, float, float] | None
    target: Literal["boundary", "foreground", "classes"]
    split: str
    terms: str
    citation: str
    doi: str
    size: str
    notes: str = ""
    conversions: tuple[Conversion, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def train(self) -> LabelledVolume:
        """The volume to train on."""
        return next(volume for volume in self.volumes if volume.role == "train")

    @property
    def test(self) -> LabelledVolume:
        """The volume that is not trained on."""
        return next(volume for volume in self.volumes if volume.role == "test")

    @property
    def files(self) -> tuple[str, ...]:
        """All that must lie in the folder: volumes, labels, and the text files of raw voxels."""
        paths = dict.fromkeys(path for one in self.volumes for path in (one.raw, one.labels))
        return (*paths, *(f"{path}.info" for path in paths if path.endswith(".raw")))

    @property
    def archived_files(self) -> tuple[str, ...]:
        """What must come out of the archive: files that no conversion makes, and its sources."""
        made = {one.target for one in self.conversions}
        sources = tuple(one.source for one in self.conversions)
        return (*(path for path in self.files if path not in made), *sources)

    def missing(self, folder: Path) -> list[str]:
        """Return those of the files that are absent from ``folder``."""
        return [path for path in self.files if not (folder / path).exists()]

    def describe(self, folder: Path) -> JsonObject:
        """Return what is known of it, and whether it lies in ``folder``, as JSON takes it."""
        missing = self.missing(folder)
        return {
            "name": self.name,
            "title": self.title,
            "folder": str(folder),
            "present": not missing,
            "missing": missing,
            "shape": self.shape,
            "voxel_nm": self.voxel_nm,
            "target": self.target,
            "parts": [asdict(volume) for volume in self.volumes],
            "split": self.split,
            "terms": self.terms,
            "citation": self.citation,
            "doi": self.doi,
            "size": self.size,
            "remarks": self.notes,
            "sources": [{"url": one.url, "page": one.page} for one in self.archives],
        }


_CONNECTOMICS = "https://huggingface.co/pytc/tutorial/resolve/main/"
_CONNECTOMICS_PAGE = "https://huggingface.co/pytc/tutorial/tree/main/"
_ZENODO = "https://zenodo.org/records/"
_OUR_SPLIT = (
    "ours, as only one labelled volume is used: slices {} train, {} test, a gap of 3 between them"
)

SNEMI3D = Dataset(
    name="SNEMI3D",
    title="Neurons of mouse cortex, serial-section SEM",
    folder="snemi3d",
    archives=(
        Archive(f"{_CONNECTOMICS}neuron_snemi/snemi.zip", f"{_CONNECTOMICS_PAGE}neuron_snemi"),
        Archive(f"{_ZENODO}7142003/files/snemi.zip?download=1", f"{_ZENODO}7142003"),
    ),
    volumes=(
        LabelledVolume("train", "train-input.tif", "train-labels.tif"),
        LabelledVolume("test", "test-input.tif", "test-labels.h5"),
    ),
    shape=(100, 1024, 1024),
    voxel_nm=(30.0, 6.0, 6.0),
    target="boundary",
    split="official: the training volume and the test volume of the challenge",
    terms="CC BY 4.0",
    citation=(
        "Kasthuri et al. 2015, Saturated reconstruction of a volume of neocortex, Cell "
        "162(3):648-661; data: doi 10.5281/zenodo.7142003"
    ),
    doi="10.5281/zenodo.7142003",
    size="about 190 MiB",
    notes=(
        "Labels are instances of neurons; membranes are the boundaries between them. Some state "
        "29 nm for z. The challenge never published the labels of the test volume: they come with "
        "the first source only, not with the Zenodo record."
    ),
    aliases=("snemi", "ac3ac4"),
)

LUCCHI = Dataset(
    name="Lucchi++",
    title="Mitochondria of mouse hippocampus, FIB-SEM",
    folder="lucchi++",
    archives=(
        Archive(
            f"{_CONNECTOMICS}mito_lucchi%2B%2B/lucchi%2B%2B.zip",
            f"{_CONNECTOMICS_PAGE}mito_lucchi%2B%2B",
            "d6c29c25db29780f068b40edf27918ad4af8a1ce7d699f043ed91c6b012a0637",
            "tutorials/mito_lucchi++/README.md of PyTorch Connectomics",
        ),
    ),
    volumes=(
        LabelledVolume("train", "train_im.h5", "train_mito.h5"),
        LabelledVolume("test", "test_im.h5", "test_mito.h5"),
    ),
    shape=(165, 768, 1024),
    voxel_nm=(5.0, 5.0, 5.0),
    target="foreground",
    split="official: the training volume and the test volume",
    terms="none stated for the data that we know of; the repository that serves it is labelled MIT",
    citation=(
        "Casser, Kang, Pfister, Haehn 2018, Fast mitochondria detection for connectomics, arXiv "
        "1812.06024 (labels); Lucchi, Li, Fua 2013, Learning for structured prediction using "
        "approximate subgradient descent with working sets, CVPR (images)"
    ),
    doi="10.48550/arXiv.1812.06024",
    size="about 211 MiB",
    notes=(
        "The dataset of Lucchi et al. with its labels drawn anew; described at "
        "https://sites.google.com/view/connectomics/."
    ),
    aliases=("lucchi", "lucchipp", "lucchiplusplus", "epfl"),
)

GF_PA66 = Dataset(
    name="GF-PA66",
    title="Polyamide 66 with glass fibres, synchrotron X-ray tomography",
    folder="gf-pa66",
    archives=(Archive(f"{_ZENODO}4601560/files/pa66.zip?download=1", f"{_ZENODO}4601560"),),
    volumes=(
        LabelledVolume("train", "pa66.raw", "pa66.ground_truth.raw", (0, 1600)),
        LabelledVolume("test", "pa66.raw", "pa66.ground_truth.raw", (1600, 1900)),
    ),
    shape=(1900, 1040, 1300),
    voxel_nm=None,
    target="classes",
    split="official: slices 1600:1900, the last 300, test",
    terms="CC BY-SA 4.0",
    citation=(
        "Bertoldo, Decencière, Ryckelynck, Proudhon 2021, A modular U-Net for automated "
        "segmentation of X-ray tomography images in composite materials, Frontiers in Materials "
        "8:761229; data: doi 10.5281/zenodo.4601560"
    ),
    doi="10.5281/zenodo.4601560",
    size="unpacked 4.8 GiB",
    notes="Classes 0 matrix, 1 fibre, 2 porosity; uint8. The release states no voxel size.",
    aliases=("gfpa66", "pa66"),
)

ISBI_2012 = Dataset(
    name="ISBI 2012",
    title="Membranes of the ventral nerve cord of a Drosophila larva, serial-section TEM",
    folder="isbi2012",
    archives=(
        Archive(
            "https://downloads.imagej.net/ISBI-2012-challenge.zip",
            "https://imagej.net/events/isbi-2012-segmentation-challenge",
        ),
    ),
    volumes=(
        LabelledVolume("train", "raw.tif", "membranes.tif", (0, 21)),
        LabelledVolume("test", "raw.tif", "membranes.tif", (24, 30)),
    ),
    shape=(30, 512, 512),
    voxel_nm=(50.0, 4.0, 4.0),
    target="foreground",
    split=_OUR_SPLIT.format("0:21", "24:30"),
    terms="free for generating or testing non-commercial segmentation software",
    citation=(
        "Cardona et al. 2010, An integrated micro- and macroarchitectural analysis of the "
        "Drosophila brain by computer-assisted serial section electron microscopy, PLoS Biology "
        "8(10):e1000502"
    ),
    doi="10.1371/journal.pbio.1000502",
    size="not stated by the source",
    notes=(
        "In the release membranes are black (0) and cells white (255); membranes.tif is made from "
        "it with 1 for membrane, and raw.tif holds train-volume.tif with its voxel size. The "
        "archive is said to hold test-volume.tif and test-labels.tif too, which are unpacked and "
        "not used. The images jump between slices 9/10 and 25/26."
    ),
    conversions=(
        Conversion("train-volume.tif", "raw.tif", "grey"),
        Conversion("train-labels.tif", "membranes.tif", "dark"),
    ),
    aliases=("isbi", "isbi2012em", "isbi12"),
)

VNC = Dataset(
    name="VNC",
    title=(
        "Membranes of the ventral nerve cord of a Drosophila larva (third instar), serial-section "
        "TEM"
    ),
    folder="vnc",
    archives=(
        Archive(
            "https://github.com/unidesigner/groundtruth-drosophila-vnc/archive/refs/heads/master.zip",
            "https://github.com/unidesigner/groundtruth-drosophila-vnc",
            "f7bd0db03c86b64440a16b60360ad60c0a4411f89e2c021c7ee2c8d6af3d7e86",
            "torch-em, torch_em/data/datasets/electron_microscopy/vnc.py",
        ),
    ),
    volumes=(
        LabelledVolume("train", "raw.tif", "membranes.tif", (0, 13)),
        LabelledVolume("test", "raw.tif", "membranes.tif", (16, 20)),
    ),
    shape=(20, 1024, 1024),
    voxel_nm=(50.0, 4.6, 4.6),
    target="foreground",
    split=_OUR_SPLIT.format("0:13", "16:20"),
    terms="CC BY-NC-SA 3.0",
    citation=(
        "Gerhard, Funke, Martel, Cardona, Fetter 2013, Segmented anisotropic ssTEM dataset of "
        "neural tissue, figshare"
    ),
    doi="10.6084/m9.figshare.856713",
    size="not stated by the source",
    notes=(
        "The source states 45 to 50 nm for z. The release holds a folder of images for each kind "
        "of label; raw.tif, membranes.tif and mitochondria.tif are made from them, with 1 for the "
        "rarer of dark and bright. Glia and the space between cells count as membrane."
    ),
    conversions=(
        Conversion("stack1/raw", "raw.tif", "grey"),
        Conversion("stack1/membranes", "membranes.tif", "rarer"),
        Conversion("stack1/mitochondria", "mitochondria.tif", "rarer"),
    ),
    aliases=("vncmembranes", "drosophilavnc", "groundtruthdrosophilavnc"),
)

VNC_MITOCHONDRIA = replace(
    VNC,
    name="VNC mitochondria",
    title=VNC.title.replace("Membranes", "Mitochondria"),
    volumes=tuple(replace(one, labels="mitochondria.tif") for one in VNC.volumes),
    aliases=("vncmito",),
)

DATASETS = (SNEMI3D, LUCCHI, GF_PA66, ISBI_2012, VNC, VNC_MITOCHONDRIA)


def dataset(name: str) -> Dataset:
    """Return a dataset by name; case, spaces and punctuation do not matter.

    Raises
    ------
    BadInputError
        If there is none of that name.
    """
    known = {_bare(spelling): one for one in DATASETS for spelling in (one.name, *one.aliases)}
    found = known.get(_bare(name))
    if found is not None:
        return found
    close = dict.fromkeys(known[key].name for key in get_close_matches(_bare(name), known, n=3))
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    names = ", ".join(one.name for one in DATASETS)
    raise BadInputError(f"the dataset {name!r} is unknown, expected one of {names}{hint}")


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def default_folder() -> Path:
    """Return the folder of all datasets: $EVENSLICE_DATA, or ``data`` in the current one."""
    return Path(os.environ.get(VARIABLE) or "data")
