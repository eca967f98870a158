"""The command ``evenslice train``."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from evenslice.cli.options import Resume, VolumePath, takes
from evenslice.cli.output import Output, check_inputs
from evenslice.errors import BadInputError, says_what_is_kept
from evenslice.options import DATA, Device, JsonObject, TrainFile, TrainOptions, read_config
from evenslice.progress import report_progress

OLD = {"--looks": "--validation-runs", "--reverse-z": "--augment-reversal"}
BETWEEN = "\0"  # between the two paths of --more, which no path holds


class Command(TyperCommand):
    """The command, with a repeatable option of two paths, which typer does not know."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the two paths after each ``--more``; read the old name of an option."""
        parts = (word.partition("=") for word in args)
        words = [OLD.get(name, name) + sign + value for name, sign, value in parts]
        return list(super().parse_args(ctx, paired(words)))


def paired(words: list[str], name: str = "--more") -> list[str]:
    """Join the two words after each ``name`` into one."""
    left, found = list(words), []
    while left:
        found.append(left.pop(0))
        if found[-1] == name:
            if len(left) < 2 or any(word.startswith("--") for word in left[:2]):
                raise BadInputError(
                    f"{name} needs two paths, expected VOLUME LABELS after it; write for example "
                    f"{name} b.tif b_labels.tif"
                )
            found.append(left.pop(0) + BETWEEN + left.pop(0))
    return found


@takes(TrainOptions)
def train(
    volume: VolumePath,
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Labels of the same shape.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The model, .safetensors.")],
    options: TrainOptions,
    output: Output,
    more: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VOLUME LABELS",
            help="Another volume to train on; repeatable.",
            rich_help_panel=DATA,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="Settings: keys are these options with _ for -; options win over it.",
        ),
    ] = None,
    resume: Resume = False,
    device: Annotated[
        Device, typer.Option(help="Where to compute; auto is a GPU if there is one.")
    ] = "auto",
) -> None:
    """Train a 2D+ segmentation model from an RGB-pretrained encoder."""
    file = TrainFile() if config is None else read_config(config)
    pairs = [(str(volume), str(labels)), *((one.volume, one.labels) for one in file.more)]
    pairs += [(first, second) for first, second in (text.split(BETWEEN) for text in more or [])]
    volumes, truths = ([pair[place] for pair in pairs] for place in (0, 1))
    with report_progress("loading ...", 0):
        check_inputs(None, *map(Path, (*volumes, *truths)))
        from evenslice.labels.metrics import Scores
        from evenslice.model.provenance import command_line
        from evenslice.report.page import page_beside
        from evenslice.report.run_pages import write_training_page
        from evenslice.report.tables import print_scores
        from evenslice.verbs.train import train as run

    page = page_beside(out)
    again = output.overwriting(output.force or resume)
    again.check(config, out, page, *map(Path, (*volumes, *truths)))
    if page.exists():
        again.check_new(page)
    chosen = file.options(**options.model_dump(exclude_unset=True))
    given: JsonObject = {"device": device, "resume": resume, "force": output.force}
    result = run(volumes, truths, out, chosen, progress=report_progress, **given)
    resumed = f"{out} is complete; the same command with --resume writes its page"
    with says_what_is_kept(lambda: resumed), report_progress("drawing", 0):
        write_training_page(page, result, {"volume": ", ".join(volumes)}, command_line())

    def show(scores: Scores) -> None:
        if result.steps < chosen.steps:
            print(
                f"stopped after {result.steps} of {chosen.steps} steps: no better Dice in "
                f"{chosen.patience} validation runs"
            )
        for one in result.label_asymmetry:
            print(one.text)
        print_scores(scores, f"{out} on the validation slices")

    wrote = (out, result.last, result.log, page)
    pair = (volumes[0], "--labels", truths[0])
    again.write(result.scores, show, *wrote, after=["evenslice", "audit", out, *pair])
