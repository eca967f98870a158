"""Watching an exported graph: each operation in which a parameter meets a tensor is a layer."""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from evenslice.model.stem.probe import WatchedInputs

JOINING = {"aten::cat", "aten::stack", "aten::concat", "aten::concatenate"}
CONVOLUTIONS = {"aten::conv2d", "aten::convolution", "aten::_convolution"}
PRODUCTS = {  # places of the data and of the weight among the arguments
    "aten::linear": (0, 1),
    "aten::mm": (0, 1),
    "aten::addmm": (1, 2),
    "aten::matmul": (0, 1),
}
TRANSPOSES = {"aten::t", "aten::transpose", "aten::permute", "aten::numpy_T"}
ALIASES = {"aten::detach", "aten::alias", "aten::lift_fresh_copy"}


class GraphWatcher(nn.Module):
    """An exported network that is run operation by operation, and keeps what meets parameters."""

    def __init__(self, module: nn.Module, watched: WatchedInputs) -> None:
        super().__init__()
        assert isinstance(module, fx.GraphModule)
        self.module = module
        self.interpreter = _Interpreter(module, watched)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph."""
        inputs = tree_leaves((args, kwargs))
        return self.interpreter.run(*inputs, enable_io_processing=False)


class _Interpreter(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, watched: WatchedInputs) -> None:
        super().__init__(module)
        self.watched = watched
        self.made_of = _origins(module)

    def run_node(self, n: fx.Node) -> Any:
        """Run one operation; answer noise where a parameter met another tensor."""
        learned = [arg for arg in n.all_input_nodes if self.made_of[arg]]
        others = [arg for arg in n.all_input_nodes if self.made_of[arg] is None]
        meets = n.op == "call_function" and learned and _schema(n) not in JOINING
        if not meets or not any(isinstance(self.env[arg], Tensor) for arg in others):
            return super().run_node(n)
        weight, data = _weight_and_data(n)
        layer = None
        if weight in learned and data in others:
            layer = self._layer(n, weight)
        if layer is None:
            self._add(learned[0], self.module, _schema(n).split("::")[-1], others)
        else:
            self._add(weight, layer, "", [data])
        return tree_map(self.watched.noise, super().run_node(n))

    def _add(self, n: fx.Node, layer: nn.Module, operation: str, inputs: list[fx.Node]) -> None:
        name = (self.made_of[n] or ("",))[0]
        if not operation:
            name = name.removesuffix("weight").removesuffix(".")
        tensors = tree_leaves([self.env[arg] for arg in inputs])
        self.watched.add(name, layer, operation, tensors)

    def _layer(self, n: fx.Node, weight: fx.Node) -> nn.Module | None:
        """Return a layer that holds the parameter of an operation, None if there is none.

        A weight that is computed is no parameter of that layer, as those of ``weight_norm``.
        """
        value, product = self.env[weight], _schema(n) in PRODUCTS
        transposed = product and _schema(n) != "aten::linear"
        if product and value.ndim == 2:
            outputs, inputs = value.shape[::-1] if transposed else value.shape
            layer: nn.Module = nn.Linear(inputs, outputs, bias=False, device="meta")
        elif product or value.ndim != 4 or (_argument(n, 6, "transposed") is True):
            return None
        else:
            layer = _convolution(n, value)
        source, turns = weight, 0
        while _schema(source) in ALIASES | TRANSPOSES and len(source.all_input_nodes) == 1:
            turns += _schema(source) in TRANSPOSES
            source = source.all_input_nodes[0]
        stored = source.op == "get_attr"
        parameter = self.fetch_attr(str(source.target)) if stored else None
        if isinstance(parameter, nn.Parameter) and turns == transposed:
            layer.weight = parameter
        elif transposed and turns == 0 and stored:
            return None  # (in, out): no weight of a Linear
        else:
            del layer.weight
            layer.weight = value.detach()
        return layer


def _origins(module: fx.GraphModule) -> dict[fx.Node, tuple[str, ...] | None]:
    """Return for each node the parameters it is made of, None if it depends on the input."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    made_of: dict[fx.Node, tuple[str, ...] | None] = {}
    for n in module.graph.nodes:
        parts = [made_of[arg] for arg in n.all_input_nodes]
        if n.op == "get_attr":
            made_of[n] = (str(n.target),) if str(n.target) in parameters else ()
        elif n.op == "placeholder" or any(part is None for part in parts):
            made_of[n] = None
        else:
            made_of[n] = tuple(dict.fromkeys(name for part in parts for name in part or ()))
    return made_of


def _schema(n: fx.Node) -> str:
    return n.target._schema.name if isinstance(n.target, torch._ops.OpOverload) else str(n.target)


def _argument(n: fx.Node, place: int, name: str, default: Any = None) -> Any:
    return n.args[place] if len(n.args) > place else n.kwargs.get(name, default)


def _weight_and_data(n: fx.Node) -> tuple[Any, Any]:
    """Return the nodes of the weight and of the input of a convolution or a matrix product."""
    if _schema(n) in CONVOLUTIONS:
        return _argument(n, 1, "weight"), _argument(n, 0, "input")
    data, weight = PRODUCTS.get(_schema(n), (0, len(n.args)))
    return (n.args[weight], n.args[data]) if len(n.args) > weight else (None, None)


def _convolution(n: fx.Node, weight: Tensor) -> nn.Conv2d:
    groups = _argument(n, 6 if _schema(n) == "aten::conv2d" else 8, "groups", 1)
    stride, padding = _argument(n, 3, "stride", 1), _argument(n, 4, "padding", 0)
    return nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        (int(weight.shape[2]), int(weight.shape[3])),
        _pair(stride),
        padding if isinstance(padding, str) else _pair(padding),
        _pair(_argument(n, 5, "dilation", 1)),
        groups,
        bias=False,
        device="meta",
    )


def _pair(numbers: Any) -> tuple[int, int]:
    many = [int(n) for n in numbers] if isinstance(numbers, list | tuple) else [int(numbers)]
    return (many[0], many[-1])
