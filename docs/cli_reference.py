"""Write the command-line reference from the commands; mkdocs calls it as a hook.

python docs/cli_reference.py     # prints it
"""

from typing import Any

import typer.main
from typer import Context

from evenslice.cli.app import VERBS, app_of

PAGE = "reference/cli.md"
KINDS = {
    "path": "path",
    "int": "whole number",
    "int range": "whole number",
    "float": "number",
    "text": "text",
}
HEAD = """# The command line

Exit code 0: done, whatever the verdict; 1: a requested check failed (`--fail-above`, `--verify`);
2: bad input or usage, with one line on stderr and no incomplete output; 130: interrupted;
143: SIGTERM. This page is generated from the commands; `evenslice VERB --help` shows the same.
"""


def reference() -> str:
    """Return the page: a section for each command, with its arguments and options."""
    group: Any = typer.main.get_command(app_of(*VERBS))
    context = Context(group, info_name="evenslice")
    return HEAD + "".join(section(command, context) for command in group.commands.values())


def section(command: Any, parent: Context) -> str:
    """Return the section of a command, or those of the commands of a group."""
    context = Context(command, parent=parent, info_name=command.name)
    if hasattr(command, "commands"):
        return "".join(section(one, context) for one in command.commands.values())
    kinds = {"argument": [], "option": []}
    for parameter in command.params:
        if not parameter.hidden:
            kinds[parameter.param_type_name].append(row(parameter, context))
    usage = (
        " ".join(command.get_usage(context).split())
        .removeprefix("Usage: ")
        .replace("{", "")
        .replace("}", "")
    )
    text = f"\n## {context.command_path}\n\n{command.help}\n\n```text\n{usage}\n```\n"
    for kind, rows in kinds.items():
        if rows:
            columns = ["argument", ""] if kind == "argument" else ["option", "takes", ""]
            text += (
                f"\n| {' | '.join(columns)} | default |\n|{'---|' * (len(columns) + 1)}\n"
                + "".join(rows)
            )
    return text


def row(parameter: Any, context: Context) -> str:
    """Return the line of a table about an argument or an option."""
    if parameter.param_type_name == "argument":
        head = [f"`{parameter.metavar or parameter.name.upper()}`"]
    else:
        head = [f"`{parameter.opts[-1]}`", "" if parameter.is_flag else values(parameter, context)]
    cells = (*head, (parameter.help or "").replace(r"\[", "["), default(parameter))
    return (
        "| "
        + " | ".join(cell.replace("|", "&#124;") if "`" not in cell else cell for cell in cells)
        + " |\n"
    )


def values(parameter: Any, context: Context) -> str:
    """Return what an option takes: its choices, its metavar, or the kind of value."""
    words = str(parameter.get_help_record(context)[0]).split(maxsplit=1)[1]
    kind = words.strip("<>")
    return KINDS.get(kind) or ", ".join(f"`{word}`" for word in kind.split("|"))


def default(parameter: Any) -> str:
    """Return the default as it is typed, or that a value is needed."""
    value = getattr(parameter.default, "value", parameter.default)
    if parameter.required:
        return "needed"
    return "" if value is None or value is False or value == [] else f"`{value}`"


def on_files(files: Any, config: Any) -> Any:
    """Add the page to those of the site."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PAGE, content=reference()))
    return files


if __name__ == "__main__":
    print(reference())
