"""What the sources of evenslice never do, whatever file they are given: looked up in their syntax, so that it stays so."""

import ast
from pathlib import Path

import pytest

import evenslice

SOURCE = Path(evenslice.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
CODE = {"eval", "exec", "compile", "__import__", "breakpoint", "input"}
STARTS = {"os.system", "os.popen", "os.execv", "os.spawnv", "os.startfile", "pty.spawn"}
MODULES = {
    "pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "yaml",
    "subprocess",
    "ctypes",
    "imp",
    "code",
    "runpy",
}
UNPACKING = {"extract", "extractall", "unpack_archive"}
ALLOWED = {  # by file: why
    ("learn/rank.py", "pickle"),  # of its own parent process, over a pipe
    ("learn/ranks.py", "pickle"),  # for its own child processes
    ("learn/ranks.py", "subprocess"),  # the processes of the other devices
    ("model/foreign.py", "importlib"),  # package.module:callable, which the user names
    ("napari/loading.py", "importlib"),  # of evenslice itself
    ("__init__.py", "importlib"),
}


def calls(tree):
    """Yield the calls of a file: the node, and the name as it is written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                alias.name + ".import_module" * (alias.name == "importlib") for alias in node.names
            )
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def option(call, name):
    return next(
        (ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == name), None
    )


def wrongs(name, text):
    """Say what a file does that it must not."""
    tree, found = ast.parse(text), []
    for module in imported(tree):
        top = module.split(".")[0]
        if top in MODULES and (name, top) not in ALLOWED:
            found.append(f"imports {module}")
        if (
            module in ("importlib.import_module", "importlib.util.module_from_spec")
            and (name, "importlib") not in ALLOWED
        ):
            found.append(f"imports {module}")
    for call, function in calls(tree):
        last = function.rpartition(".")[2]
        if function in CODE or function in STARTS:
            found.append(f"calls {function}")
        if (
            function in ("torch.load", "load")
            and "torch" in text
            and function == "torch.load"
            and option(call, "weights_only") != "True"
        ):
            found.append("torch.load without weights_only=True")
        if function in (
            "torch.jit.load",
            "torch.hub.load",
            "torch.package.PackageImporter",
            "np.fromregex",
        ):
            found.append(f"calls {function}")
        if function in ("np.load", "numpy.load") and option(call, "allow_pickle") != "False":
            found.append("np.load without allow_pickle=False")
        if last in UNPACKING:
            found.append(f"calls {function}")
        if (
            option(call, "allow_pickle") == "True"
            or option(call, "trust_remote_code")
            or option(call, "shell") == "True"
        ):
            found.append(f"{function} trusts what it reads")
        if last == "Environment" and option(call, "autoescape") != "True":
            found.append("a template that does not escape")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_no_source_runs_what_it_reads(file):
    assert wrongs(str(file.relative_to(SOURCE)), file.read_text()) == []


WRONG = {
    "pickle": "import pickle",
    "pickle, a part": "from pickle import loads",
    "yaml": "import yaml",
    "subprocess": "import subprocess",
    "importlib": "import importlib",
    "eval": "eval(text)",
    "exec": "exec(text)",
    "system": "import os\nos.system(text)",
    "torch.load": "import torch\ntorch.load(path)",
    "torch.load, of anything": "import torch\ntorch.load(path, weights_only=False)",
    "np.load": "np.load(path)",
    "np.load, of anything": "np.load(path, allow_pickle=True)",
    "object arrays": "zarr.open(path, allow_pickle=True)",
    "extractall": "archive.extractall(folder)",
    "unpack_archive": "shutil.unpack_archive(path)",
    "scripts": "torch.jit.load(path)",
    "the hub of torch": "torch.hub.load(name)",
    "remote code": "AutoModel.from_pretrained(name, trust_remote_code=True)",
    "a shell": "run(text, shell=True)",
    "a page": "Environment(autoescape=False)",
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_seen(case):
    assert wrongs("volume/other.py", WRONG[case])


def test_what_is_allowed_is_still_there():
    used = {
        (file, name.split(".")[0])
        for file, _ in ALLOWED
        for name in imported(ast.parse((SOURCE / file).read_text()))
    }
    assert used >= ALLOWED
