"""Watching an exported graph: each operation in which a parameter meets a tensor is a layer."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from evenslice.model.stem.probe import WatchedInputs
from evenslice.options import JsonObject

JOINING = {"aten::cat", "aten::stack", "aten::concat", "aten::concatenate"}
LAYERS = {  # the arguments that are the data and the weight
    "aten::conv2d": ("input", "weight"),
    "aten::convolution": ("input", "weight"),
    "aten::_convolution": ("input", "weight"),
    "aten::linear": ("input", "weight"),
    "aten::mm": ("self", "mat2"),
    "aten::addmm": ("mat1", "mat2"),
    "aten::matmul": ("self", "other"),
}
TRANSPOSES = {"aten::t", "aten::transpose", "aten::permute", "aten::numpy_T"}
ALIASES = {"aten::detach", "aten::alias", "aten::lift_fresh_copy"}
COMPUTED = 9  # in place of a number of transposes: no parameter any more


class GraphWatcher(TorchFunctionMode):
    """Keeps what meets parameters while a graph is run, and answers noise in its place."""

    def __init__(self, module: nn.Module, watched: WatchedInputs) -> None:
        super().__init__()
        self.module, self.watched = module, watched
        # what does not depend on the image, by id: a parameter's name or "", the tensor, transposes
        self.fixed: dict[int, tuple[str, Tensor, int]] = {}
        for name, parameter in module.named_parameters():
            self.fixed[id(parameter)] = (name, parameter, 0)
        for buffer in module.buffers():
            self.fixed[id(buffer)] = ("", buffer, 0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if not isinstance(func, torch._ops.OpOverload):
            return output
        operation = func._schema.name
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        learned = [t for t in tensors if self.fixed.get(id(t), ("",))[0]]
        others = [t for t in tensors if id(t) not in self.fixed]
        if not others:
            name, _, turns = self.fixed[id(learned[0])] if learned else ("", None, 0)
            turns += operation in TRANSPOSES
            turns = turns if operation in TRANSPOSES | ALIASES else COMPUTED
            for leaf in tree_leaves(output):
                if isinstance(leaf, Tensor):
                    self.fixed[id(leaf)] = (name, leaf, turns)
        elif learned and operation not in JOINING:
            names = [argument.name for argument in func._schema.arguments]
            self._add(operation, dict(zip(names, args, strict=False)) | kwargs, learned, others)
            return tree_map(self.watched.noise, output)
        return output

    def _add(
        self, operation: str, given: JsonObject, learned: list[Tensor], others: list[Tensor]
    ) -> None:
        data, weight = (given.get(name) for name in LAYERS.get(operation, ("", "")))
        layer = None
        if any(weight is t for t in learned) and any(data is t for t in others):
            layer = self._layer(operation, given, weight)
        if layer is None:
            name = self.fixed[id(learned[0])][0]
            self.watched.add(name, self.module, operation.rsplit("::", maxsplit=1)[-1], others)
        else:
            name = self.fixed[id(weight)][0].removesuffix("weight").removesuffix(".")
            self.watched.add(name, layer, "", [data])

    def _layer(self, operation: str, given: JsonObject, weight: Any) -> nn.Module | None:
        """Return a layer that holds the parameter of an operation, None if there is none.

        A weight that is computed is no parameter of that layer, as those of ``weight_norm``.
        """
        name, _, turns = self.fixed[id(weight)]
        transposed = LAYERS[operation][1] != "weight"
        if "conv" in operation and weight.ndim == 4 and not given.get("transposed"):
            layer: nn.Module = _convolution(given, weight)
        elif "conv" not in operation and weight.ndim == 2:
            outputs, inputs = weight.shape[::-1] if transposed else weight.shape
            layer = nn.Linear(inputs, outputs, bias=False, device="meta")
        else:
            return None
        if turns == transposed:
            layer.weight = self.module.get_parameter(name)
        elif transposed and turns == 0:
            return None  # (in, out): no weight of a Linear
        else:
            del layer.weight
            layer.weight = weight.detach()
        return layer


def _convolution(given: JsonObject, weight: Tensor) -> nn.Conv2d:
    groups, padding = given.get("groups", 1), given.get("padding", 0)
    return nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        (int(weight.shape[2]), int(weight.shape[3])),
        _pair(given.get("stride", 1)),
        padding if isinstance(padding, str) else _pair(padding),
        _pair(given.get("dilation", 1)),
        groups,
        bias=False,
        device="meta",
    )


def _pair(numbers: Any) -> tuple[int, int]:
    many = [int(n) for n in numbers] if isinstance(numbers, list | tuple) else [int(numbers)]
    return (many[0], many[-1])
