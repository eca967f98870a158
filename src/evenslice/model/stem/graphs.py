"""Watching an exported graph run: what each operation with a parameter receives of the slices.

A graph of torch.export has no layers left, only operations. Each one in which a parameter meets another tensor counts
as a layer; while it is watched it answers noise that is the same in each run, as layers do in ``watching``.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from evenslice.errors import BadInputError
from evenslice.model.stem.layer_input import looked_at, medians, noise_like
from evenslice.model.stem.probe import Call

aten = torch.ops.aten
JOINING = {"aten::cat", "aten::stack", "aten::concat", "aten::concatenate"}
CONVOLUTIONS = {"aten::conv2d", "aten::convolution", "aten::_convolution"}
PRODUCTS = {
    "aten::linear": (0, 1),
    "aten::mm": (0, 1),
    "aten::addmm": (1, 2),
    "aten::matmul": (0, 1),
}
TURNS = {"aten::t", "aten::transpose", "aten::permute", "aten::numpy_T"}
NAMES = {"aten::detach", "aten::alias", "aten::lift_fresh_copy"}
_Seen = tuple[str, nn.Module, str, tuple[Tensor, ...]]


def watch_graph(module: nn.Module, call: Call, constants: Tensor) -> dict[tuple[str, int], _Seen]:
    """Run an exported graph once on slots that are constants (S,); return what met parameters.

    Raises
    ------
    BadInputError
        If the graph does not bear noise between its operations.
    """
    assert isinstance(module, fx.GraphModule)
    watcher = _Watcher(module)
    try:
        call.run(_Watched(module, watcher), constants)
    except Exception as error:  # a graph may not bear noise between its operations
        raise BadInputError(
            f"the exported network cannot be watched while it runs ({type(error).__name__}: {str(error)[:200]}); expected "
            "plain operations; export the part of the network that starts with the stem"
        ) from error
    return watcher.seen


class _Watched(nn.Module):
    """The network as it is called, run by the watcher."""

    def __init__(self, module: fx.GraphModule, watcher: "_Watcher") -> None:
        super().__init__()
        self.module, self.watcher = module, watcher

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.watcher.run(*tree_leaves((args, kwargs)), enable_io_processing=False)


class _Watcher(fx.Interpreter):
    """Runs a graph; looks at what meets parameters, and answers noise in their place."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[tuple[str, int], _Seen] = {}
        self.draw = torch.Generator().manual_seed(0)
        self.made_of = _origins(module)

    def run_node(self, n: fx.Node) -> Any:
        """Run one operation."""
        learned = [arg for arg in n.all_input_nodes if self.made_of[arg]]
        others = [arg for arg in n.all_input_nodes if self.made_of[arg] is None]
        met = n.op == "call_function" and learned and others and _schema(n) not in JOINING
        if met and any(isinstance(self.env[arg], Tensor) for arg in others):
            self._look(n, learned, others)
            output = super().run_node(n)
            return tree_map(
                lambda x: (
                    noise_like(x, self.draw)
                    if isinstance(x, Tensor) and x.is_floating_point()
                    else x
                ),
                output,
            )
        return super().run_node(n)

    def _look(self, n: fx.Node, learned: list[fx.Node], others: list[fx.Node]) -> None:
        weight, data = _weight_and_data(n)
        layer = None
        if weight in learned and data in others:
            names, layer = self._named(weight), _stand_in(self, n, weight)
            others = [data]
        if layer is None:
            names, layer, operation = (
                self._named(learned[0]),
                self.module,
                _schema(n).split("::")[-1],
            )
        else:
            names, operation = names.removesuffix("weight").removesuffix("."), ""
        for x in tree_leaves([self.env[arg] for arg in others]):
            if looked_at(x):
                turn = sum(key[0] == names for key in self.seen)
                self.seen[names, turn] = (names, layer, operation, medians(x))

    def _named(self, n: fx.Node) -> str:
        return (self.made_of[n] or ("",))[0]


def _origins(module: fx.GraphModule) -> dict[fx.Node, tuple[str, ...] | None]:
    """Return for each node the parameters it is made of, or None if it depends on the input."""
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
    if _schema(n) in PRODUCTS:
        data, weight = PRODUCTS[_schema(n)]
        return (n.args[weight], n.args[data]) if len(n.args) > weight else (None, None)
    return None, None


def _plain(n: fx.Node) -> tuple[fx.Node, int]:
    """Follow a weight to the parameter itself, through other names and turns; return it with the number of turns."""
    turns = 0
    while n.op == "call_function" and _schema(n) in NAMES | TURNS and len(n.all_input_nodes) == 1:
        turns += _schema(n) in TURNS
        n = n.all_input_nodes[0]
    return n, turns


def _stand_in(watcher: _Watcher, n: fx.Node, weight: fx.Node) -> nn.Module | None:
    """Return a layer that holds the parameter of an operation, None if there is no such layer.

    A weight that is computed is no parameter of the layer returned, as those of ``weight_norm`` are none.
    """
    source, turns = _plain(weight)
    value = watcher.env[weight]
    product = _schema(n) in PRODUCTS
    reorder_axes = _schema(n) != "aten::linear" and product
    if product and value.ndim == 2:
        outputs, inputs = value.shape[::-1] if reorder_axes else value.shape
        layer: nn.Module = nn.Linear(inputs, outputs, bias=False, device="meta")
    elif (
        not product
        and value.ndim == 4
        and not (_schema(n) != "aten::conv2d" and _argument(n, 6, "transposed"))
    ):
        layer = _convolution(n, value)
    else:
        return None
    parameter = watcher.fetch_attr(str(source.target)) if source.op == "get_attr" else None
    if isinstance(parameter, nn.Parameter) and turns == reorder_axes:
        layer.weight = parameter
    elif reorder_axes and turns == 0 and source.op == "get_attr":
        return None  # (in, out): no weight of a Linear
    else:
        del layer.weight
        layer.weight = value.detach()
    return layer


def _convolution(n: fx.Node, weight: Tensor) -> nn.Conv2d:
    at = 6 if _schema(n) == "aten::conv2d" else 8
    groups = _argument(n, at, "groups", 1)
    stride, padding, dilation = (
        _argument(n, place, name, default)
        for place, name, default in (
            (3, "stride", (1, 1)),
            (4, "padding", (0, 0)),
            (5, "dilation", (1, 1)),
        )
    )
    pads = padding if isinstance(padding, str) else _pair(padding)
    size = (int(weight.shape[2]), int(weight.shape[3]))
    inputs, outputs = weight.shape[1] * groups, weight.shape[0]
    return nn.Conv2d(
        inputs,
        outputs,
        size,
        _pair(stride),
        pads,
        _pair(dilation),
        groups,
        bias=False,
        device="meta",
    )


def _pair(numbers: Any) -> tuple[int, int]:
    many = [int(n) for n in numbers] if isinstance(numbers, list | tuple) else [int(numbers)]
    return (many[0], many[-1])
