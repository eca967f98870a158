"""Symbolic sizes in exported models: Python expressions that torch evaluates, so only arithmetic is let through."""

import ast
import math
import re

LIMIT = 20_000
SYMPY = {
    "Symbol",
    "Integer",
    "Rational",
    "Float",
    "Half",
    "One",
    "Zero",
    "NegativeOne",
    "Mul",
    "Add",
    "Pow",
    "Max",
    "Min",
    "Mod",
    "floor",
    "ceiling",
    "Abs",
    "Infinity",
    "NegativeInfinity",
    "FloorDiv",
    "ModularIndexing",
    "Where",
    "PythonMod",
    "CleanDiv",
    "CeilToInt",
    "FloorToInt",
    "CeilDiv",
    "LShift",
    "RShift",
    "PowByNatural",
    "FloatPow",
    "FloatTrueDiv",
    "IntTrueDiv",
    "IsNonOverlappingAndDenseIndicator",
    "TruncToFloat",
    "TruncToInt",
    "RoundToInt",
    "RoundDecimal",
    "ToFloat",
    "Identity",
    "Equality",
    "Unequality",
    "Eq",
    "Ne",
    "Lt",
    "Le",
    "Gt",
    "Ge",
    "StrictLessThan",
    "LessThan",
    "StrictGreaterThan",
    "GreaterThan",
    "And",
    "Or",
    "Not",
    "BooleanTrue",
    "BooleanFalse",
    "Piecewise",
    "ExprCondPair",
}
VALUES = {"true", "false", "True", "False", "oo", "int_oo", "S"}
GUARDS = {
    "L",
    "abs",
    "int",
    "float",
    "bool",
    "max",
    "min",
    "inf",
    "math",
    "torch",
    "IsNonOverlappingAndDenseIndicator",
}
GUARDS |= {"cast_symbool_to_symint_guardless"}
PARTS = {
    "torch": {"sym_max", "sym_min", "sym_int", "sym_float", "sym_not", "sym_ite", "sym_sum"},
    "math": {"floor", "ceil", "trunc", "sqrt", "pow", "inf", "nan", "isnan"},
    "L": {"size", "stride", "storage_offset", "dim", "numel", "shape", "ndim"},
}


POWERS = {"Pow", "PowByNatural", "FloatPow", "LShift"}
LARGEST_POWER = 16


def symbols_are_plain(text: str) -> bool:
    """Whether an expression is made only of calls of known functions of sympy, names and numbers."""
    tree = _parsed(text)
    return tree is not None and _is_symbol(tree)


def _parsed(text: str) -> ast.expr | None:
    if len(text) > LIMIT or not text.isascii() or not text.isprintable():
        return None
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_symbol(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        known = isinstance(node.func, ast.Name) and node.func.id in SYMPY
        options = [keyword.value for keyword in node.keywords]
        plain = all(
            isinstance(o, ast.Constant) and isinstance(o.value, bool | int | None) for o in options
        )
        return (
            known
            and plain
            and _is_small(getattr(node.func, "id", ""), node.args)
            and all(map(_is_symbol, node.args))
        )
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _is_symbol(node.operand)
    return _is_constant(node) or (
        isinstance(node, ast.Name) and (node.id in VALUES or _is_size(node.id))
    )


def _is_small(name: str, args: list[ast.expr]) -> bool:
    """Whether a call computes no power of a power, and none beyond the 16th: a few letters could else fill the memory."""
    if name not in POWERS:
        return True
    inner = [node for arg in args for node in ast.walk(arg)]
    nested = any(isinstance(n, ast.Name) and n.id in POWERS for n in inner)
    last = (
        [n.value for n in ast.walk(args[-1]) if isinstance(n, ast.Constant)]
        if len(args) == 2
        else [math.inf]
    )
    return not nested and all(isinstance(v, int | float) and abs(v) <= LARGEST_POWER for v in last)


def _is_constant(node: ast.expr) -> bool:
    """Whether a node is a number or a name; sympy evaluates text once more, so a text must be a name or a number."""
    if not isinstance(node, ast.Constant):
        return False
    value = node.value
    if isinstance(value, str):
        return re.fullmatch(r"-?\w+(\.\d+)?", value) is not None
    return isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**64)


def _is_size(name: str) -> bool:
    return re.fullmatch(r"[a-z]{1,2}\d+", name) is not None


def guard_is_plain(text: str) -> bool:
    """Whether a guard is a comparison of sizes of the inputs and numbers."""
    tree = _parsed(text)
    return (
        tree is not None
        and all(map(_is_guard, ast.walk(tree)))
        and all(map(_is_bounded, ast.walk(tree)))
    )


def _is_bounded(node: ast.AST) -> bool:
    """Whether arithmetic is on numbers only, never repeats a list or a text, and takes no large powers."""
    if not isinstance(node, ast.BinOp):
        return True
    summed = [
        n.args
        for n in ast.walk(node)
        if isinstance(n, ast.Call) and getattr(n.func, "attr", "") == "sym_sum"
    ]
    lists = {id(arg) for args in summed for arg in args}
    keys = {id(n.slice) for n in ast.walk(node) if isinstance(n, ast.Subscript)}
    for inner in ast.walk(node):
        if isinstance(inner, ast.List | ast.Tuple) and id(inner) not in lists:
            return False
        if (
            isinstance(inner, ast.Constant)
            and isinstance(inner.value, str)
            and id(inner) not in keys
        ):
            return False
    if not isinstance(node.op, ast.Pow | ast.LShift):
        return True
    nested = any(
        isinstance(n, ast.Pow | ast.LShift) for n in (*ast.walk(node.left), *ast.walk(node.right))
    )
    power = getattr(node.right, "value", None)
    return not nested and isinstance(power, int | float) and 0 <= power <= LARGEST_POWER


def _is_guard(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return not node.keywords and isinstance(node.func, ast.Name | ast.Attribute)
    if isinstance(node, ast.Name):
        return node.id in GUARDS or _is_size(node.id)
    if isinstance(node, ast.Attribute):
        owner: ast.expr = node.value
        while isinstance(owner, ast.Subscript):
            owner = owner.value
        plain = isinstance(owner, ast.Name) and (owner is not node.value) == (owner.id == "L")
        return plain and isinstance(owner, ast.Name) and node.attr in PARTS.get(owner.id, ())
    if isinstance(node, ast.Constant):
        return _is_constant(node) or node.value is None
    arithmetic = (
        ast.Compare,
        ast.BoolOp,
        ast.BinOp,
        ast.UnaryOp,
        ast.Subscript,
        ast.List,
        ast.Tuple,
    )
    return isinstance(
        node, (*arithmetic, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.Load)
    )
