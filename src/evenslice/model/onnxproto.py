"""Parsing ONNX files without trusting what they say of their data: where it lies, and how much it is."""

from pathlib import Path
from typing import Any

from evenslice.errors import BadInputError
from evenslice.model.onnx_graph import every_tensor
from evenslice.model.pickles import check_not_pickled

SIZE_LIMIT = 2**31 - 1


def libraries() -> tuple[Any, Any]:
    """Return onnx and onnxruntime.

    Raises
    ------
    BadInputError
        If one of them is not installed.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise BadInputError(
            f"the file is an ONNX model and {error.name or 'onnx'} is not installed, expected onnx and onnxruntime; install "
            "evenslice[onnx]"
        ) from error
    return onnx, onnxruntime


def serialised(model: Any, path: Path) -> bytes:
    """Return the bytes of a model; raise ``BadInputError`` if it is larger than a file of that kind can be."""
    try:
        data: bytes = model.SerializeToString()
    except ValueError as error:
        raise BadInputError(
            f"{path.name} is larger than 2 GiB, expected less; give a smaller model"
        ) from error
    return data


def parsed(path: Path) -> Any:
    """Parse a file and load what lies beside it, after looking at where and how much that is."""
    onnx, _ = libraries()
    if not path.is_file():
        raise BadInputError(f"{path} does not exist, expected an .onnx file; check the name")
    if path.stat().st_size == 0:
        raise BadInputError(
            f"{path.name} is empty, expected an ONNX model; export or copy it again"
        )
    if path.stat().st_size > SIZE_LIMIT:
        raise BadInputError(
            f"{path.name} is larger than 2 GiB, expected less; keep its weights in a file beside it"
        )
    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except Exception as error:  # protobuf raises errors of its own
        check_not_pickled(path)
        raise BadInputError(
            f"{path.name} cannot be parsed, expected an ONNX model; export it again"
        ) from error
    del model.training_info[:]  # never run here
    for tensor in (t for graph in [model.graph, *model.functions] for t in every_tensor(graph)):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _load_beside(tensor, path)
        elif (
            min(tensor.dims, default=0) < 0
            or _count(tensor) * _bits(tensor) > 8 * tensor.ByteSize()
        ):
            raise BadInputError(
                f"{path.name} declares more values for {tensor.name[:60]!r} than it holds, expected a whole file; export it again"
            )
    return model


def _load_beside(tensor: Any, path: Path) -> None:
    """Load a tensor from the file beside that it names, which must lie in the folder of the model."""
    onnx, _ = libraries()
    named = {entry.key: entry.value for entry in tensor.external_data}
    beside = _beside(path.parent.resolve(), named.get("location", ""))
    if beside is None:
        raise BadInputError(
            f"{path.name} keeps {tensor.name[:60]!r} in {named.get('location', '')[:100]!r}, expected a file in its own folder; put both "
            "there"
        )
    try:
        offset, size = int(named.get("offset", 0)), _count(tensor) * _bits(tensor) // 8
        length = int(named.get("length", size))
    except ValueError:
        offset = size = length = -1
    if min(offset, length) < 0 or length != size or offset + length > beside.stat().st_size:
        raise BadInputError(
            f"{path.name} declares more values for {tensor.name[:60]!r} than {beside.name} holds, expected a whole file; export it again"
        )
    with beside.open("rb") as file:
        file.seek(offset)
        tensor.raw_data = file.read(length)
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.DEFAULT


def _beside(folder: Path, location: str) -> Path | None:
    """Return the plain file of that name below a folder, None if there is none, or links lead out of it."""
    try:
        beside = (folder / location).resolve()
        inside = (
            beside.is_relative_to(folder)
            and beside.is_file()
            and not (folder / location).is_symlink()
        )
    except (OSError, ValueError, RuntimeError):  # names that no file can have
        return None
    return beside if inside else None


def _count(tensor: Any) -> int:
    count = 1
    for side in tensor.dims:
        count *= max(int(side), 0)
    return count


def _bits(tensor: Any) -> int:
    """Return the bits of one value in a file, at least: few for packed types and lists of numbers."""
    onnx, _ = libraries()
    if not tensor.HasField("raw_data") and tensor.data_location != onnx.TensorProto.EXTERNAL:
        return 8 if tensor.data_type not in (onnx.TensorProto.UINT4, onnx.TensorProto.INT4) else 4
    try:
        return 8 * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except KeyError:
        return 8
