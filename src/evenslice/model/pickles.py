"""Pickles, which can run any code when they are read: known by name or by their first bytes, and refused with a way around them."""

import zipfile
from pathlib import Path

from evenslice.errors import BadInputError

ENDINGS = {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".bin", ".tar", ".mar"}
_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
ADVICE = (
    "whoever trusts it writes its weights anew by python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('FILE', "
    "weights_only=True), 'FILE.safetensors')\", for train --weights FILE.safetensors or package.module:callable@FILE.safetensors"
)


def check_no_pickle(text: str) -> None:
    """Raise ``BadInputError`` for a name that pickles have; nothing is opened."""
    ending = Path(text).suffix.lower()
    if ending in ENDINGS:
        raise BadInputError(
            f"{text} ends in {ending}, a pickle that could run any code, expected .safetensors, .pt2, .onnx or "
            f"package.module:callable; {ADVICE}"
        )


def check_not_pickled(path: Path) -> None:
    """Raise ``BadInputError`` for a file that is a pickle under another name; what cannot be read is left to whoever reads on."""
    try:
        if not _is_pickle(path):
            return
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return
    raise BadInputError(
        f"{path} is a pickle under the name of a {path.suffix} file, and could run any code, expected a real one; {ADVICE}"
    )


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(_STARTS):
        return True
    if not start.startswith(b"PK"):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return any(name.endswith("data.pkl") for name in names)
