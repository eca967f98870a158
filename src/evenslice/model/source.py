"""What the name of a MODEL says: its form, before anything is opened and without torch."""

import re
from pathlib import Path
from typing import Literal

from evenslice.errors import BadInputError

Form = Literal["callable", "torch-export", "onnx"]
ModelForm = Literal["evenslice"] | Form
ENDINGS: dict[str, ModelForm] = {
    ".safetensors": "evenslice",
    ".pt2": "torch-export",
    ".onnx": "onnx",
}
STATE_DICTS = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
CALLABLE = re.compile(r"^(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_][\w.]*)(?:@(?P<file>.+))?\Z")


def form_of(source: str | Path) -> ModelForm | None:
    """Say which form a MODEL has by its name, or None if it is none of them; nothing is opened.

    Raises
    ------
    BadInputError
        For files of weights without a network.
    """
    text = str(source)
    named, ending = CALLABLE.match(text), Path(text).suffix.lower()
    if ending in ENDINGS and not named:
        return ENDINGS[ending]
    if named and not Path(text).exists() and not Path(text.partition(":")[0]).is_file():
        return "callable"
    if ending in STATE_DICTS:
        raise BadInputError(
            f"{text} holds weights without a network, expected .safetensors of evenslice, .pt2, "
            f".onnx or package.module:callable; give package.module:callable@{text}"
        )
    return None


def checked_form(source: str) -> ModelForm:
    """Return the form of a MODEL by its name; raise ``BadInputError`` if there is no such file."""
    form, path = form_of(source), Path(source)
    if form is None or (form != "callable" and not path.is_file()):
        found = "is not a file" if path.exists() else "does not exist"
        raise BadInputError(
            f"{source} {'is not a model file' if form is None else found}, expected a .safetensors "
            "of evenslice, package.module:callable, .pt2 or .onnx; check the path"
        )
    return form
