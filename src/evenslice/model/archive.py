"""Reading a ``.pt2`` archive without trusting it: what torch would unpickle, evaluate or call is checked first.

``torch.export.load`` unpickles weights, constants and sample inputs when the archive asks for it, evaluates symbolic
expressions and guards as Python, looks operations up anywhere under ``torch``, and writes names into code that it
executes. What is let through here is a list of what ``torch.export.save`` writes for plain networks, nothing else.
"""

import io
import json
import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from evenslice.errors import BadInputError
from evenslice.model.expressions import guard_is_plain, symbols_are_plain
from evenslice.model.pickles import check_not_pickled

ADVICE = "export it again with torch.export.save of torch 2.9 or newer from a plain module, or give package.module:callable"
MODEL = "models/model.json"
SAMPLES = "data/sample_inputs/model.pt"
JSON_LIMIT = 64 * 2**20
MOST_RECORDS = 100_000
KNOWN = r"(archive_format|archive_version|byteorder|version|\.format_version|\.data/\w+|(models|data)(/[\w.\-]+)+|extra(/[^/\\\x00-\x1f]+)+)"
RATIO_LIMIT = 20
NO_FORMAT = "has no archive_format pt2 (it is older, or no exported model)"
SETS = (("data/weights/", "weight"), ("data/constants/", "tensor"))
PYTREES = {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
OPERATORS = {
    "add",
    "sub",
    "mul",
    "floordiv",
    "truediv",
    "mod",
    "pow",
    "neg",
    "pos",
    "abs",
    "lt",
    "le",
    "gt",
    "ge",
    "eq",
    "ne",
    "and_",
    "or_",
    "not_",
    "getitem",
}
MATH = {"ceil", "floor", "trunc", "sqrt", "pow"}
SYMBOLIC = {f"sym_{name}" for name in ("int", "float", "max", "min", "not", "ite", "sum", "sqrt")}
FILES = {"aten::from_file"}
SPACES = {"aten", "prims", "torchvision"}
Records = dict[str, bytes]


def checked_archive(path: Path) -> Records:
    """Read an archive and check all of it; only what was checked should reach torch.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict
        The records that a model needs, and the extra files, by their names without the folder around them.

    Raises
    ------
    BadInputError
        If the file is no archive of torch.export.save, or holds anything that would run code or take absurd space.
    """
    records = _records(path)
    refuse = _refusal(path)
    try:
        _check_records(records, refuse)
    except BadInputError:
        raise
    except Exception as error:  # what is of another kind than torch writes fails in any way
        raise refuse(f"is not as torch.export writes it ({type(error).__name__})") from error
    return records


def _check_records(records: Records, refuse: Callable[[str], BadInputError]) -> None:
    for name in records:
        if name.startswith("data/aotinductor") or name.endswith((".so", ".cubin", ".dll")):
            raise refuse(f"holds native code ({name})")
        if name.endswith(".pt") and name != SAMPLES:
            raise refuse(f"holds a pickle ({name})")
    models = [name for name in records if name.startswith("models/")]
    if models != [MODEL]:
        raise refuse(
            f"holds {len(models)} models ({', '.join(models[:3])}) instead of one called model"
        )
    for folder, prefix in SETS:
        name = f"{folder}model_{folder.split('/')[1]}_config.json"
        if name not in records:
            raise refuse(f"has no {name}")
        _check_tensors(_json(records[name], name, refuse), records, folder, prefix, refuse)
    _check_samples(records.get(SAMPLES, b""), refuse)
    _check_model(_json(records[MODEL], MODEL, refuse), refuse)


def _refusal(path: Path) -> Callable[[str], BadInputError]:
    return lambda found: BadInputError(
        f"{path.name} {found}, expected a plain exported model; {ADVICE}"
    )


def _records(path: Path) -> Records:
    refuse = _refusal(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            names = [entry.filename for entry in entries]
            if len({name.split("/")[0] for name in names}) != 1 or len(set(names)) != len(names):
                raise refuse("is a zip without one folder, or names a file twice")
            _check_entries(entries, path, refuse)
            if sum(entry.file_size for entry in entries) > RATIO_LIMIT * path.stat().st_size:
                raise refuse("would unpack to far more than its own size")
            if any(
                entry.file_size > JSON_LIMIT
                for entry in entries
                if entry.filename.endswith(".json")
            ):
                raise refuse(f"holds a description of more than {JSON_LIMIT // 2**20} MiB")
            records = {entry.filename.partition("/")[2]: archive.read(entry) for entry in entries}
    except FileNotFoundError:
        raise BadInputError(
            f"{path} does not exist, expected a .pt2 file; check the name"
        ) from None
    except BadInputError:
        raise
    except Exception as error:  # damage comes as any of a dozen kinds
        check_not_pickled(path)
        raise refuse(f"cannot be read as a zip ({str(error)[:100]})") from error
    if records["archive_format"] != b"pt2":
        raise refuse(NO_FORMAT)
    return records


def _check_entries(
    entries: list[zipfile.ZipInfo], path: Path, refuse: Callable[[str], BadInputError]
) -> None:
    """Check the kinds and names of records, of which nothing was read yet."""
    if len(entries) > MOST_RECORDS:
        raise refuse(f"holds more than {MOST_RECORDS} records")
    if "archive_format" not in {entry.filename.partition("/")[2] for entry in entries}:
        check_not_pickled(path)
        raise refuse(NO_FORMAT)
    for entry in entries:
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise refuse(f"holds a link or device ({entry.filename[:60]!r})")
        if not _is_known(entry.filename.partition("/")[2]):
            raise refuse(
                f"holds a record that torch.export does not write ({entry.filename[:60]!r})"
            )


def _is_known(name: str) -> bool:
    """Whether a record has a name that torch.export gives, which stays inside of its folder."""
    return re.fullmatch(KNOWN, name) is not None and ".." not in name.split("/")


def _json(data: bytes, name: str, refuse: Callable[[str], BadInputError]) -> Any:
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise refuse(f"has a {name} that is not JSON") from error


def _check_tensors(
    found: Any, records: Records, folder: str, prefix: str, refuse: Callable[[str], BadInputError]
) -> None:
    """Check the list of weights or constants: raw bytes only, and no larger than the record that holds them."""
    entries = found.get("config") if isinstance(found, dict) else None
    if not isinstance(entries, dict):
        raise refuse(f"lists no tensors in {folder}")
    for name, entry in entries.items():
        try:
            record, pickled, meta = (
                str(entry["path_name"]),
                entry["use_pickle"],
                entry["tensor_meta"],
            )
        except (TypeError, KeyError) as error:
            raise refuse(f"describes {name!r} in a way that is not known") from error
        if not re.fullmatch(rf"{prefix}_\d+", record) or meta is None:
            raise refuse(f"holds an object among its tensors ({name!r} in {record!r})")
        if pickled is not False:
            raise refuse(f"holds a pickle ({name!r})")
        if not re.fullmatch(r"[\w.]+", name):
            raise refuse(f"has a tensor of the name {name[:60]!r}")
        view = view_of(meta)
        held = len(records.get(folder + record, b""))
        if view is None or view.needed > held:
            raise refuse(f"declares more values for {name!r} than the {held} bytes it holds")


class View:
    """Where a tensor lies in the bytes of its record: type, shape, strides and offset, in values."""

    def __init__(self, dtype: torch.dtype, size: list[int], stride: list[int], offset: int) -> None:
        self.dtype, self.size, self.stride, self.offset = dtype, size, stride, offset
        self.count = 1
        for n in size:
            self.count *= n
        reach = (
            offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
            if self.count
            else 0
        )
        self.needed = max(reach, self.count) * dtype.itemsize


def view_of(meta: dict[str, Any]) -> View | None:
    """Read the description of a tensor; None if it is not made of plain numbers."""
    from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE as DTYPES

    try:
        size, stride = ([int(n["as_int"]) for n in meta[key]] for key in ("sizes", "strides"))
        offset = int(meta["storage_offset"]["as_int"])
        if min([*size, *stride, offset]) < 0 or len(size) != len(stride):
            return None
        return View(DTYPES[meta["dtype"]], size, stride, offset)
    except (KeyError, TypeError, ValueError):
        return None


def _check_samples(data: bytes, refuse: Callable[[str], BadInputError]) -> None:
    """Sample inputs are a pickle always: let only tensors and plain containers through."""
    if not data:
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as inner:
            if sum(entry.file_size for entry in inner.infolist()) > RATIO_LIMIT * len(data):
                raise refuse("has sample inputs that would unpack to far more than their own size")
        found = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except BadInputError:
        raise
    except (
        Exception
    ) as error:  # what torch raises for a pickle that is not plain differs by version
        raise refuse("has sample inputs that are more than tensors") from error
    if not isinstance(found, tuple | dict):
        raise refuse("has sample inputs that are more than tensors")


def _check_model(found: Any, refuse: Callable[[str], BadInputError]) -> None:
    for key, value in _strings(found):
        if key in ("expr_str", "as_expr"):
            fine, what = symbols_are_plain(value), "an expression"
        elif key == "guards_code":
            fine, what = guard_is_plain(value), "a guard"
        elif key in ("target", "as_operator"):
            fine, what = _is_operation(value), "an operation"
        elif key in ("in_spec", "out_spec"):
            fine, what = _is_plain_tree(value), "a container"
        elif key in ("as_custom_obj", "custom_obj", "class_fqn"):
            fine, what = False, "a custom object"
        elif key == "range_constraints":
            fine, what = re.fullmatch(r"[\w.+\-*/(), ]*", value) is not None, "a range"
        elif key in ("as_string", "as_strings"):
            fine, what = len(value) < 1000 and value.isprintable(), "a text"
        else:
            fine, what = re.fullmatch(r"[\w.+\-]*", value) is not None, "a name"
        if not fine:
            raise refuse(
                f"holds {what} that torch.export does not write for a plain module ({value[:60]!r})"
            )


def _strings(found: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every string with the key it stands under, keys as well; not the traces of nodes, which torch never sees."""
    waiting = [(key, found)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, list):
            waiting += [(key, each) for each in value]
        elif isinstance(value, dict):
            for name, each in value.items():
                if name != "metadata":
                    yield key if key == "range_constraints" else "name", name
                    if name in ("as_custom_obj", "custom_obj"):
                        yield name, name
                    waiting.append((name, each))


def _is_operation(target: str) -> bool:
    """Whether a target is an operation on tensors, or arithmetic on sizes."""
    first, _, rest = target.partition(".")
    if first in ("_operator", "math") or rest in SYMBOLIC:
        return rest in {"_operator": OPERATORS, "math": MATH, "torch": SYMBOLIC}.get(first, set())
    parts = target.split(".")
    if len(parts) != 5 or parts[:2] != ["torch", "ops"] or parts[2] not in SPACES:
        return False
    try:
        found = getattr(getattr(getattr(torch.ops, parts[2]), parts[3]), parts[4])
    except AttributeError:
        return parts[2] == "torchvision"
    if not isinstance(found, torch._ops.OpOverload):
        return False
    schema = found._schema
    name = f"{schema.name}.{schema.overload_name}".removesuffix(".")
    return schema.name not in FILES and torch._C._dispatch_has_kernel(name)


def _is_plain_tree(text: str) -> bool:
    """Whether a container of inputs or outputs is made of tuples, lists and dicts with plain names."""
    try:
        found = json.loads(text)
        return (
            isinstance(found, list)
            and found[0] == 1
            and len(found) == 2
            and _is_plain_node(found[1])
        )
    except (ValueError, RecursionError, KeyError, TypeError, IndexError):
        return False


def _is_plain_node(node: dict[str, Any]) -> bool:
    context = json.loads(node["context"]) if isinstance(node["context"], str) else node["context"]
    names = context if isinstance(context, list) else [] if context is None else [None]
    fine = node["type"] in PYTREES and all(
        isinstance(n, str) and re.fullmatch(r"\w+", n) for n in names
    )
    return fine and all(_is_plain_node(child) for child in node["children_spec"])


def without_traces(model: bytes) -> bytes:
    """Return the description of a model without what nodes tell of the code they come from."""
    found = json.loads(model)
    waiting: list[Any] = [found]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("metadata"), dict):
                value["metadata"] = {}
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return json.dumps(found).encode()
