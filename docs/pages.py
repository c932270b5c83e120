"""The pages docs/algorithms/*.md and the table of docs/algorithms.md, made of the code that they describe.

    python docs/pages.py            writes them
    python docs/pages.py --check    says which of them are not as they would be written

Nothing on them is typed by hand: what an algorithm is and when to pick it, its formulas beside the lines that compute
them, every field, and what the recorded settings are known to give.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import math
import sys
import textwrap
from pathlib import Path
from typing import Any

from thorndike import algorithms, core, distributions, names, settings, targets
from thorndike.hyperparameters import is_hyperparameters

DOCS = Path(__file__).parent
CONTRACT = {name for name in (*core.Algorithm.__annotations__, *vars(core.Algorithm)) if not name.startswith("_")}
BESIDE = {"validate", "descent"}  # of every class, and no part of what is learned
SHOWN = {"update"}  # of the contract, where the formulas come together
MOST_LINES = 45  # of a function that is shown
INTRODUCTION = """# Which algorithm

Two questions decide most. Are actions *choices* (Discrete, with a mask too) or *numbers* (a Box with bounds)? Are steps
*cheap* (a compiled or fast environment: more than some thousand a second) or *dear* (a robot, a slow simulator)? Where
steps are dear an algorithm keeps what it has seen and learns from it again and again; where they are cheap, it throws
it away and asks for more. All take [images](environments.md#images) (`network=td.CNN()`), and where the table says so
[networks with a memory](networks.md#with-a-memory). `thorndike list algorithms` shows the same.
"""


def main() -> int:
    made = pages()
    wrong = [name for name, text in made.items() if not (DOCS / name).exists() or (DOCS / name).read_text() != text]
    stale = [path for path in (DOCS / "algorithms").glob("*.md") if f"algorithms/{path.name}" not in made]
    if "--check" in sys.argv:
        print(*(f"docs/{name} is not of today: make docs" for name in wrong), sep="\n")
        return bool(wrong or stale)
    (DOCS / "algorithms").mkdir(exist_ok=True)
    for name in wrong:
        (DOCS / name).write_text(made[name])
    for path in stale:
        path.unlink()
    return 0


def pages() -> dict[str, str]:
    """Every page by its name."""
    made = {f"algorithms/{name}.md": page(algorithms.get(name)) for name in algorithms.ALGORITHMS}
    return {"algorithms.md": chooser()} | made


def chooser() -> str:
    """Which algorithm, by what is to be decided and what a step costs."""
    lines = [INTRODUCTION, "| algorithm | actions | steps | memory | pick it |", "|---|---|---|---|---|"]
    for name, known in names.ALGORITHMS.items():
        memory = "yes" if known.memory else "no"
        lines.append(
            f"| [{name}](algorithms/{name.lower()}.md) | {known.actions} | {known.steps} | {memory} | {known.pick} |"
        )
    return "\n".join([*lines, "", *made_of_code("docs/pages.py"), ""])


def page(cls: Any) -> str:
    """All that there is to say of one algorithm."""
    known = names.ALGORITHMS[cls.__name__]
    first, _, rest = inspect.cleandoc(cls.__doc__ or "").partition("\n")
    parts = [
        f"# {cls.__name__}",
        "",
        first,
        "",
        rest.strip(),
        "",
        f"**Pick it** {known.pick}. Actions: {known.actions}; steps: {known.steps}; networks with a memory: "
        f"{'yes' if known.memory else 'no'}. [All algorithms](../algorithms.md).",
        "",
        "```",
        f"thorndike train {cls.__name__.lower()} {example(cls)}",
        "```",
        "",
        *results(cls),
        "## What it computes",
        "",
        *formulas(cls),
        "## Fields",
        "",
        *fields(cls),
        "",
        *made_of_code(f"src/thorndike/algorithms/{known.file}.py"),
        "",
    ]
    return "\n".join(parts)


def made_of_code(source: str) -> list[str]:
    return [f"*Made of `{source}` by `make docs`.*"]


def example(cls: Any) -> str:
    """An environment that it is known to learn, or one that suits it."""
    known = [id for name, id in settings.RECORDED if name == cls.__name__.lower()]
    numbers = names.ALGORITHMS[cls.__name__].actions == "numbers"
    return known[0] if known else "Pendulum-v1" if numbers else "CartPole-v1"


def results(cls: Any) -> list[str]:
    """What the recorded settings give."""
    rows = [(id, entry) for (name, id), entry in settings.RECORDED.items() if name == cls.__name__.lower()]
    if not rows:
        return []
    lines = [
        "## Recorded settings",
        "",
        "A name (`td.train`, the command) takes these; an object is used as it is.",
        "",
    ]
    lines += [
        "| environment | steps | result | settings, where they are not the fields' defaults |",
        "|---|---|---|---|",
    ]
    for id, entry in rows:
        changed = ", ".join(f"`{name}={default_of(value)}`" for name, value in differences(entry.algorithm))
        lines.append(
            f"| {id + 'GAME' if id.endswith(':') else id} | {entry.steps:,} | {entry.result} | {changed or 'none'} |"
        )
    return [*lines, ""]


def differences(algorithm: Any) -> list[tuple[str, Any]]:
    """The fields of an algorithm that differ from its defaults."""
    default = type(algorithm)()
    names = [field.name for field in dataclasses.fields(algorithm)]
    return [(name, getattr(algorithm, name)) for name in names if getattr(algorithm, name) != getattr(default, name)]


def formulas(cls: Any) -> list[str]:
    """The functions in which it learns, each with what it computes said above the lines that do."""
    lines = []
    for owner in cls.__mro__:
        if not owner.__module__.startswith("thorndike.algorithms"):
            continue
        own = [(name, value) for name, value in vars(owner).items() if inspect.isfunction(value)]
        own = [(name, f) for name, f in own if not name.startswith("__") and getattr(cls, name) is f]
        own = [(name, f) for name, f in own if name in SHOWN or name not in CONTRACT | BESIDE]
        for name, function in own:
            lines += shown(f"{owner.__name__}.{name}", function)
    module = importlib.import_module(cls.__module__)
    for home in (targets, distributions):
        for name, function in vars(module).items():
            if inspect.isfunction(function) and function.__module__ == home.__name__:
                lines += shown(f"{home.__name__.rpartition('.')[2]}.{name}", function)
    return lines


def shown(name: str, function: Any) -> list[str]:
    """A function: what it says it computes, then its lines."""
    source = textwrap.dedent(inspect.getsource(function))
    said = inspect.getdoc(function) or ""
    tree = ast.parse(source).body[0]
    assert isinstance(tree, ast.FunctionDef)
    code = source.splitlines()
    if ast.get_docstring(tree) is not None:
        doc = tree.body[0]
        code = code[: doc.lineno - 1] + code[doc.end_lineno :]
    cut = [*code[:MOST_LINES], "    ..."] if len(code) > MOST_LINES else code
    return [f"### `{name}`", "", *([said, ""] if said else []), "```py", *cut, "```", ""]


def fields(cls: Any) -> list[str]:
    """Every field: its default, its limits, and what the source says beside it."""
    comments: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if owner.__module__.startswith("thorndike.algorithms"):
            comments |= comments_of(owner)
    lines = ["| field | default | limits | |", "|---|---|---|---|"]
    for field in dataclasses.fields(cls):
        lines.append(
            f"| `{field.name}` | `{default_of(field.default)}` | {limits(field)} | {comments.get(field.name, '')} |"
        )
    return lines


def default_of(value: Any) -> str:
    """A value as one writes it: of a recipe what differs from its defaults."""
    if is_hyperparameters(value):
        changed = ", ".join(f"{name}={default_of(part)}" for name, part in differences(value))
        return f"{type(value).__name__}({changed})"
    return repr(value)


def limits(field: dataclasses.Field) -> str:
    """As "above 0, at most 1"."""
    low, high, above = (field.metadata.get(name, bound) for name, bound in BOUNDS.items())
    parts = [f"above {above:g}"] * (above > -math.inf) + [f"at least {low:g}"] * (low > -math.inf)
    return ", ".join(parts + [f"at most {high:,}"] * (high < math.inf))


BOUNDS = {"low": -math.inf, "high": math.inf, "above": -math.inf}


def comments_of(cls: Any) -> dict[str, str]:
    """What stands behind the fields of a class in its source, by field."""
    source = inspect.getsource(cls)
    lines, tree = source.splitlines(), ast.parse(textwrap.dedent(source)).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = lines[(node.end_lineno or node.lineno) - 1]
            found[node.target.id] = text[node.end_col_offset :].partition("#")[2].strip()
    return {name: comment[:1].upper() + comment[1:] for name, comment in found.items()}


if __name__ == "__main__":
    sys.exit(main())
