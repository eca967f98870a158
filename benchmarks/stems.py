"""Stems: the table of networks, the refusals, and what other libraries do with S channels.

    python benchmarks/stems.py [--weights FILE] [--doc docs/stems.md] [--only NAME]

Without options: norm per slot, mirror pairs of the norms, grey gain (answer of the stem to S
identical slices over that to the grey photograph; 1 is right) and reversal response (relative
change of the network's output when the slots are reversed), for ResNet-18 with S = 3, 5, 7, 9. The
weights are random and then changed, or read from FILE (a state dict of timm's resnet18). ``--doc``
measures every family with S = 5 instead, provokes every refusal, and writes both into the page.
"""

import argparse
import copy
import sys
import warnings
from pathlib import Path

import segmentation_models_pytorch.encoders._utils as smp_stem
import timm
import torch
from timm.models._manipulate import adapt_input_conv
from torch import nn

from evenslice import initialise_stem, uniform_stem
from evenslice.errors import BadInputError
from evenslice.model.stem.find import find_stems
from evenslice.model.stem.slots import norms_per_slot
from evenslice.model.weights import load_encoder, load_state_dict

TESTS = Path(__file__).resolve().parent.parent / "tests" / "model"
COMMAND = "python benchmarks/stems.py --doc docs/stems.md"
DEPTH = 5  # slices in the table of families


def with_stem(network, weight):
    changed = copy.deepcopy(network)
    changed.conv1.weight, changed.conv1.in_channels = (
        nn.Parameter(weight.contiguous()),
        weight.shape[1],
    )
    return changed


def by_timm(network, slices):
    return with_stem(network, adapt_input_conv(slices, network.conv1.weight.detach()))


def by_smp(network, slices):
    changed = copy.deepcopy(network)
    if slices != 3:  # as its encoders do
        smp_stem.patch_first_conv(changed, slices, pretrained=True)
    return changed


def by_volume_segmantics(network, slices):
    """As in release 0.4: three slices untouched, else the mean of R, G and B, without 1/S."""
    weight = network.conv1.weight.detach()
    return with_stem(
        network, weight if slices == 3 else weight.mean(1, keepdim=True).expand(-1, slices, -1, -1)
    )


def by_us(init):
    return lambda network, slices: initialise_stem(copy.deepcopy(network), slices, init)


WAYS = {
    "timm": by_timm,
    "smp": by_smp,
    "volume-segmantics": by_volume_segmantics,
    "evenslice green": by_us("green"),
    "evenslice mean": by_us("mean"),
    "evenslice mirror": by_us("mirror"),
    "evenslice centre": by_us("centre"),
}


@torch.no_grad()
def grey_gain(network, rgb):
    """How strongly S identical slices act, by least squares on the filters' sums."""
    found, expected = network.conv1.weight.sum(1), rgb.conv1.weight.sum(1)
    return float((found * expected).sum() / expected.square().sum())


@torch.no_grad()
def reversal_response(network, slices):
    x = torch.randn(1, slices, 96, 96, generator=torch.Generator().manual_seed(0))
    expected = network(x)[-1]
    return float((network(x.flip(1))[-1] - expected).abs().max() / expected.abs().max())


def compare(weights, families):
    rgb = timm.create_model("resnet18", features_only=True, out_indices=(0, 1, 2, 3)).eval()
    if weights is None:
        families.move(rgb, 96)
    else:
        load_encoder(rgb, load_state_dict(weights), str(weights))
    print(f"ResNet-18, {'random weights' if weights is None else weights.name}")
    for slices in (3, 5, 7, 9):
        print(f"\nS = {slices}")
        for name, way in WAYS.items():
            network = way(rgb, slices)
            norms = norms_per_slot(find_stems(network, slices)[0])
            half = slices // 2
            pairs = [
                (norms[half + j] - norms[half - j]) / (norms[half + j] + norms[half - j])
                for j in range(1, half + 1)
            ]
            print(
                f"  {name:18s} norms {' '.join(f'{n:5.2f}' for n in norms)} | pairs "
                f"{' '.join(f'{p:+.3f}' for p in pairs)}"
                f" | grey gain {grey_gain(network, rgb):.2f} | reversal "
                f"{reversal_response(network, slices):.1e}"
            )


def head_of(family):
    """The first two columns of a family's row."""
    return f"| {family.library} | {family.label.removeprefix(family.library).strip()} |"


def family_row(family, families):
    """Measure one network: its stems, and how much the output changes when it should not."""
    network = families.move(family.build(), family.side, fit=family.fit)
    stems = find_stems(network, 3, families.noise(3, family.side, torch.float32))
    uniform = families.with_stem(network, family, DEPTH)
    single = families.order_change(uniform, DEPTH, family.side, torch.float32)
    double = families.order_change(uniform.double(), DEPTH, family.side, torch.float64)
    grey = families.noise(1, family.side, torch.float32)
    expected = families.answer(network, grey.expand(-1, 3, -1, -1))
    mean = families.with_stem(network, family, DEPTH, "mean")
    off = families.difference(families.answer(mean, grey.expand(-1, DEPTH, -1, -1)), expected)
    result = "uniform" if single < 1e-5 and double < 1e-12 else "NOT UNIFORM"
    result += ", scale lost" if family.standardised else "" if off < 1e-5 else ", NOT GREY"
    what = "; ".join(
        f"`{name or '.'}`: {words}" for name, words in ((s.name, s.description) for s in stems)
    )
    return f"{head_of(family)} {what} | {single:.0e} | {double:.0e} | {off:.0e} | {result} |"


def refusal_text(make):
    torch.manual_seed(0)
    try:
        uniform_stem(make(), DEPTH)
    except BadInputError as error:
        return str(error)
    return "NOT REFUSED"


def write_doc(page, families, only):
    import test_stem_refused

    text = page.read_text()
    rows = []
    for family in families.FAMILIES:
        kept = next((line for line in text.splitlines() if line.startswith(head_of(family))), "")
        rows.append(kept if only not in family.label and kept else family_row(family, families))
        print(rows[-1], flush=True)
    refused = [
        f"- **{case}**: {refusal_text(make)}"
        for case, (make, _) in test_stem_refused.REFUSED.items()
    ]
    for mark, lines in (("families", rows), ("refused", refused)):
        start, end = f"<!-- {mark}: begin -->\n", f"<!-- {mark}: end -->"
        head, _, rest = text.partition(start)
        table = rows_head() + lines if mark == "families" else lines
        text = head + start + "\n".join(table) + "\n" + end + rest.partition(end)[2]
    page.write_text(text)


def rows_head():
    return [
        "| library | network | stems: where, what | order, float32 | order, float64 | grey, "
        "float32 | result |",
        "|---|---|---|---|---|---|---|",
    ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, help="a state dict of timm's resnet18")
    parser.add_argument("--doc", type=Path, help="the page to write the tables into")
    parser.add_argument(
        "--only",
        default="",
        help="with --doc: measure only families whose name holds this, keep the other rows",
    )
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    warnings.simplefilter("ignore")
    import families

    if options.doc:
        write_doc(options.doc, families, options.only)
    else:
        compare(options.weights, families)


if __name__ == "__main__":
    main()
