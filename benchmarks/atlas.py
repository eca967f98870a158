"""Atlas: how asymmetric the weights of pretrained encoders are, and what each init makes of it.

    python benchmarks/atlas.py [--weights FOLDER] [--encoders NAME ...] [--volumes FILE ...]
        [--doc docs/atlas.md]

Encoders: those whose ImageNet weights are installed as packages, every .safetensors in --weights
that names its timm network, and --encoders, whose weights are fetched from the hub. Volumes:
without --volumes two phantoms. An encoder alone predicts nothing, so each gets random decoders, and
nothing is trained. Half an hour on two cores.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np

from evenslice import audit, build_model, open_volume
from evenslice.data.phantom import phantom
from evenslice.errors import BadInputError
from evenslice.model.stem.find import find_stems
from evenslice.model.stem.slots import norms_per_slot
from evenslice.model.weights import weights_metadata
from evenslice.model.weights_source import PACKAGES, installed_weights
from evenslice.volume.array import Volume

INITS = ("rgb", "green", "mean", "mirror", "centre")
METHODS = ("gradient", "shapley")
DECODERS = 5  # seeds; one where the law says 0 for every decoder
WINDOWS, TILE = 12, 128
BUILDS = (("unet", None), ("unet", 4), ("dpt", None))  # ResNet-18 may lack its last stage
BEGIN, END = "<!-- atlas: begin -->", "<!-- atlas: end -->"


def encoders_of(given):
    """Yield a label, an encoder and its weights."""
    for name in PACKAGES:
        if installed_weights(name) is not None:
            yield name, name, "imagenet"
    for path in sorted(given.weights.glob("*.safetensors")) if given.weights else ():
        if name := weights_metadata(path).get("timm"):
            yield f"{name} (file)", name, path
    for name in given.encoders:
        yield name, name, "imagenet"


def volumes_of(given):
    """Return volumes by name."""
    if given.volumes:
        return {path.parent.name or path.stem: open_volume(path) for path in given.volumes}
    made = {f"phantom {seed}": phantom((60, 160, 160), seed) for seed in (0, 1)}
    return {name: Volume(one.raw, one.voxel_nm) for name, one in made.items()}


def build(encoder, weights, init, seed):
    """Build the first network that can stand on an encoder."""
    reasons = []
    for arch, depth in BUILDS:
        try:
            return build_model(
                arch, encoder, weights=weights, encoder_depth=depth, init=init, seed=seed
            )
        except BadInputError as error:
            reasons.append(str(error))
    raise BadInputError(reasons[0])


def spread(stem):
    """Write the median and the middle 90 % over filters of (B - R) / (B + R) of their norms."""
    weight = stem.layer.weight.detach().double()
    red, _, blue = weight.flatten(2).norm(dim=2).T.numpy()
    contrast = ((blue - red) / (blue + red))[blue + red > 1e-3 * (blue + red).max()]
    low, middle, high = np.quantile(contrast, (0.05, 0.5, 0.95))
    return f"{middle:+.2f} ({low:+.2f} to {high:+.2f})"


def figure(audits, method):
    """Write the mean index over decoders; the least and largest ends of their intervals."""
    found = [one.methods[method] for one in audits]
    if any(one.verdict == "abstained" for one in found):
        return "only the centre"
    index = np.array([(one.index.value, one.index.low, one.index.high) for one in found])
    ends = index.mean(0)[0], index.min(0)[1], index.max(0)[2]
    value, low, high = (f"{number + 0.0:+.3f}".replace("-0.000", "+0.000") for number in ends)
    return f"{value} ({low} to {high})"


def row(label, encoder, weights, init, volumes):
    """Measure one encoder with one init on every volume."""
    seeds = range(DECODERS if init == "rgb" else 1)
    models = [build(encoder, weights, init, seed) for seed in seeds]
    [stem] = find_stems(models[0].network, 3)
    options = {"methods": METHODS, "windows": WINDOWS, "tile": TILE, "seed": 0}
    cells = []
    for volume in volumes.values():
        audits = [audit(model, volume, **options) for model in models]
        centre = np.mean([one.methods["gradient"].shares[1].value for one in audits])
        cells += [f"{centre:.2f}", *(figure(audits, method) for method in METHODS)]
    norms = " / ".join(f"{norm:.2f}" for norm in norms_per_slot(stem))
    each = spread(stem) if init == "rgb" else ""
    return f"| {label} | `{init}` | {norms} | {each} | " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--encoders", nargs="*", default=[])
    parser.add_argument("--volumes", type=Path, nargs="*", default=[])
    parser.add_argument("--doc", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    volumes = volumes_of(given)
    head = ["encoder", "init", "norm of previous / centre / next", "(B-R)/(B+R) of each filter"]
    for name in volumes:
        head += [f"{name}: centre's share", f"{name}: index by gradient", f"{name}: by Shapley"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    print("\n".join(lines), flush=True)
    for label, encoder, weights in encoders_of(given):
        for init in INITS:
            lines.append(row(label, encoder, weights, init, volumes))
            print(lines[-1], flush=True)
    print(f"{time.process_time() / 60:.0f} CPU minutes")
    if given.doc is not None:
        text = given.doc.read_text()
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        given.doc.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}")


if __name__ == "__main__":
    main()
