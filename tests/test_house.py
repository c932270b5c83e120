"""The house rules that no reader sees at a glance: who knows whom, how long things are, what is never called."""

from __future__ import annotations

import ast
import graphlib
import io
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Collection
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "thorndike"
FILES = sorted(PACKAGE.rglob("*.py"))

# Whom each module may import, by its first name under thorndike (a folder is a room, and counts as one module).
LEAVES = {"errors", "hyperparameters", "loops", "masks", "names", "schedules", "sequences", "spaces"}
PARTS = LEAVES | {
    "core", "distributions", "episodes", "intrinsic", "memories", "networks", "normalization", "optimizers", "targets",
}  # fmt: skip
MAY_KNOW = {
    "errors": set(),
    "hyperparameters": {"errors"},
    "compilation": set(),  # no leaf for everybody: what is compiled is decided by few
    "persistence": {"errors"},  # nor is this: files are written by few
    "masks": {"errors"},
    "spaces": {"errors", "masks"},
    "core": {"episodes", "loops"},
    "episodes": {"loops"},
    "loops": set(),
    "names": set(),
    "distributions": LEAVES | {"core"},
    "intrinsic": LEAVES | {"core", "networks", "normalization", "optimizers"},
    "memories": LEAVES | {"core"},
    "normalization": LEAVES | {"core"},
    "optimizers": LEAVES,
    "schedules": set(),
    "sequences": set(),
    "targets": LEAVES | {"core"},
    "networks": LEAVES | {"sequences"},
    "algorithms": PARTS,
    "settings": {"algorithms", "core", "intrinsic", "memories", "networks", "optimizers"},
    "unrolls": LEAVES | {"core", "compilation", "environments", "snapshots"},
    "environments": LEAVES | {"core"},
    "snapshots": LEAVES | {"core", "environments"},
    "machine": set(),
    "devices": {"core"},
    "trainer": PARTS | {"compilation", "devices", "snapshots", "algorithms", "unrolls", "environments", "machine"},
    "evaluation": LEAVES | {"core", "compilation", "environments", "episodes", "trainer", "unrolls"},
    "interface": LEAVES | {"algorithms", "environments", "evaluation", "persistence", "settings"},
    "examination": LEAVES | {"algorithms", "compilation", "core", "environments", "interface"},
}
BELOW = set(MAY_KNOW)
# All else sits on top: it may know everything below, and of each other what stands further down in this list.
ON_TOP = ["cli", "learner", "sweeps", "runs"]
# The same inside a room.
IN_RUNS = [
    "train", "resume", "load", "drive", "run", "worlds", "preparation", "folders", "recording", "sizes", "chunks",
    "agents", "export", "onnx_writer", "agent_folders", "settings_files", "configuration", "earlier", "checkpoints",
    "records", "schema", "interrupts",
]  # fmt: skip
FRONT = {"__init__", "__main__"}  # the doors to all of it

THIRD_PARTY = {
    "gymnasium", "envpool", "gymnax", "pgx", "jumanji", "xminigrid", "craftax", "brax", "mujoco_playground", "navix",
    "ale_py", "minatar", "mujoco", "pettingzoo", "ray",
}  # fmt: skip
# gymnasium is also the convention for spaces: those anyone may use.
SPACES_ONLY = {"spaces"}
# The games of ale-py are prepared by Gymnasium's wrappers.
WRAPPING = {"src/thorndike/environments/ale.py": "gymnasium"}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    """The module's first name under thorndike: `algorithms` for all files of that folder."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(tree: ast.AST) -> set[str]:
    """Full dotted names of all that is imported anywhere in a file, in functions too: `from a import b` is a.b."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_from_house(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(tree_of(path)) if name.startswith("thorndike.")}


def code_lines(text: str) -> int:
    """Lines of code: without docstrings, comments and blank lines."""
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        may_have_one = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if may_have_one and ast.get_docstring(node) is not None:
            docstrings |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    nothing = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in nothing:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def lines_in(*names: str) -> int:
    return sum(code_lines((PACKAGE / name).read_text(encoding="utf-8")) for name in names)


def test_code_lines_are_counted_without_docstrings_comments_and_blank_lines():
    text = '''"""Two
lines."""

# why
def f(x):
    """Says."""
    y = """a
b"""  # told

    return x + (
        1
    )
'''
    assert code_lines(text) == 6


# --- who knows whom ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_a_module_knows_only_those_below_it(path):
    name = name_of(path)
    if name in FRONT:
        return
    assert name in BELOW or name in ON_TOP, f"{name} is new: say in this test whom it may know"
    may_know = MAY_KNOW[name] if name in BELOW else BELOW | set(ON_TOP[ON_TOP.index(name) + 1 :])
    assert imported_from_house(path) <= may_know | {name}


def test_no_import_leads_back_to_where_it_began():
    """Imports inside functions count, those for type checkers too."""
    modules = {module_of(path): path for path in FILES}
    knows = {
        name: {known for full in imported(tree_of(path)) if (known := module_in(full, modules)) and known != name}
        for name, path in modules.items()
        if name_of(path) not in FRONT
    }
    assert list(graphlib.TopologicalSorter(knows).static_order())  # CycleError names the circle


def module_of(path: Path) -> str:
    return ".".join(["thorndike", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


def module_in(name: str, modules: Collection[str]) -> str | None:
    """The module of the package that a full name stands in: the name itself, or what it is an attribute of."""
    return next((known for known in (name, name.rpartition(".")[0]) if known in modules), None)


@pytest.mark.parametrize("path", sorted((PACKAGE / "runs").glob("[a-z]*.py")), ids=shown)
def test_a_file_of_runs_knows_only_those_further_down(path):
    names = {name.split(".")[2] for name in imported(tree_of(path)) if name.startswith("thorndike.runs.")}
    assert names <= set(IN_RUNS[IN_RUNS.index(path.stem) + 1 :])


def test_the_contract_rests_on_jax_alone():
    for name in ("core", *MAY_KNOW["core"]):
        names = {name.split(".")[0] for name in imported(tree_of(PACKAGE / f"{name}.py"))}
        assert names <= {"__future__", "collections", "typing", "jax", "thorndike"}


@pytest.mark.parametrize("library", sorted(THIRD_PARTY))
def test_only_one_file_imports_each_environment_library(library):
    knowing = []
    for path in FILES:
        names = {name for name in imported(tree_of(path)) if name.split(".")[0] == library}
        if library == "gymnasium" and not uses_gymnasium_environments(tree_of(path), names):
            continue
        knowing += [shown(path)] if names and WRAPPING.get(shown(path)) != library else []
    assert len(knowing) <= 1, knowing


def uses_gymnasium_environments(tree: ast.Module, names: set[str]) -> bool:
    """Whether more of gymnasium is used than its spaces: `gymnasium.make`, `gymnasium.Env`, ..."""
    if any(name.split(".")[1] not in SPACES_ONLY for name in names if "." in name):
        return True
    attributes = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "gymnasium"
    }
    return bool(attributes - SPACES_ONLY)


# --- how long things are ----------------------------------------------------------------------------------------------


ALGORITHMS = [path for path in FILES if path.parent.name == "algorithms" and path.stem != "__init__"]


PARENTS = {"dqn", "ppo", "sac", "td3"}  # of a family, whose hooks they hold


@pytest.mark.parametrize("path", ALGORITHMS, ids=shown)
def test_an_algorithm_is_a_file_of_at_most_170_lines_and_a_parent_of_210(path):
    assert lines_in(f"algorithms/{path.name}") <= (210 if path.stem in PARENTS else 170)


def test_ppo_reads_from_end_to_end_in_360_lines():
    assert lines_in("algorithms/ppo.py", "core.py", "unrolls/compiled.py") <= 360


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_no_function_is_longer_than_60_lines(path):
    text = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            source = "\n".join(text[node.lineno - 1 : node.end_lineno])
            indentation = len(source) - len(source.lstrip())
            body = "\n".join(line[indentation:] for line in source.splitlines())
            assert code_lines(body) <= 60, f"{node.name} in {shown(path)}"


# --- what is never called ---------------------------------------------------------------------------------------------

COMPILED = ("functional", "classic_control", "deep_sea", "tabular", "toy_text")
PURE = (PARTS | {"algorithms"}) - LEAVES
PURE_FILES = [
    path
    for path in FILES
    if (name_of(path) in PURE and "foreign" not in path.parts)  # what others' frameworks need is another matter
    or shown(path).endswith(("unrolls/compiled.py", *[f"environments/{name}.py" for name in COMPILED]))
]
WORLDLY_MODULES = {"time", "datetime", "logging", "pathlib", "io", "os", "threading", "tempfile", "random", "warnings"}
WORLDLY_CALLS = {"open", "print", "input"}
BORDER = {"jit", "pmap", "device_put", "device_get", "devices", "local_devices", "block_until_ready", "io_callback",
          "pure_callback", "default_device"}  # fmt: skip


@pytest.mark.parametrize("path", PURE_FILES, ids=shown)
def test_no_compiling_device_clock_file_or_logger_inside_the_mathematics(path):
    tree = tree_of(path)
    assert not {name.split(".")[0] for name in imported(tree)} & WORLDLY_MODULES
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            assert node.id not in WORLDLY_CALLS | {"jit"}, f"line {node.lineno}"
        if isinstance(node, ast.Attribute):
            assert node.attr not in BORDER, f"line {node.lineno}"


def test_only_training_and_evaluation_compile_the_loop():
    compiling = {shown(path) for path in FILES if "thorndike.compilation.jit" in imported(tree_of(path))}
    # Beside them: the one act of a host step, a rollout acted elsewhere, an agent's own act, what is exported and never
    # called here, and what is examined, which may be anything.
    names = ("trainer.py", "evaluation.py", "unrolls/host.py", "unrolls/share.py", "runs/agents.py", "runs/export.py",
             "examination/compiled.py")  # fmt: skip
    assert compiling == {f"src/thorndike/{name}" for name in names}


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_everything_is_compiled_through_one_place(path):
    """Elsewhere there is no `jax.jit`: it would be without the options that keep XLA's numbers right."""
    assert compilers(tree_of(path)) == (["jax.jit"] if path.name == "compilation.py" else [])


def compilers(tree: ast.AST) -> list[str]:
    """What in a file compiles otherwise than by `thorndike.compilation.jit`, called or imported."""
    names = {"jit", "pmap", "filter_jit", "filter_pmap"}
    used = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in names]
    used = [name for name in used if not name.startswith("torch.")]  # another library's word
    by_name = imported(tree) - {"thorndike.compilation.jit"}
    return used + sorted(name for name in by_name if name.rpartition(".")[2] in names)


@pytest.mark.parametrize(
    "code",
    ["jax.jit(f)", "@partial(jax.jit, static_argnums=0)\ndef f(x): ...", "from jax import jit", "eqx.filter_jit(f)"],
)
def test_the_gate_sees_what_compiles(code):
    assert compilers(ast.parse(code))


NEVER_IMPORTED = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "yaml",
                  "code", "codeop", "ctypes", "jsonpickle"}  # fmt: skip
NEVER_CALLED = {"eval", "exec", "compile", "__import__", "breakpoint"}
NEVER_ASKED_FOR = {"extractall", "unpack_archive", "serialize_executable", "deserialize_executable", "load_module",
                   "exec_module", "run_path", "system", "popen", "pickle", "unsafe_load", "full_load"}  # fmt: skip
LOADERS = {"np.load", "numpy.load", "jnp.load", "torch.load", "torch.hub.load", "torch.jit.load", "torch.export.load"}
# those of pickles, some only where asked to
ONLY_AS = {"shell": False, "allow_pickle": False, "trust_remote_code": False, "safe_mode": True}  # safe_mode: Keras's


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_nothing_in_the_package_can_run_what_it_reads(path):
    """H1: no reader of code in data, and no shell."""
    assert forbidden(tree_of(path)) == []


def forbidden(tree: ast.AST) -> list[str]:
    """What in a file could run code that comes from outside, by line."""
    found = [f"imports {name}" for name in imported(tree) if name.split(".")[0] in NEVER_IMPORTED]
    found += [f"imports {name}" for name in imported(tree) if NEVER_ASKED_FOR & set(name.split("."))]
    for node in ast.walk(tree):
        where = f"line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Name) and node.id in NEVER_CALLED:
            found.append(f"{where}: {node.id}")
        if isinstance(node, ast.Attribute) and (node.attr in NEVER_ASKED_FOR or ast.unparse(node) in LOADERS):
            found.append(f"{where}: {node.attr}")
        if isinstance(node, ast.keyword) and node.arg in ONLY_AS:
            given = node.value.value if isinstance(node.value, ast.Constant) else None
            if given is not ONLY_AS[node.arg]:
                found.append(f"{where}: {node.arg}=")
        if isinstance(node, ast.Constant) and node.value == "0.0.0.0":
            found.append(f"{where}: binds to every network")
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from dill import loads", "def f():\n    import marshal", "eval('1')", "exec(x)", "np.load(p)",
        "np.save(p, x, allow_pickle=True)", "subprocess.run(c, shell=True)", "os.system(c)", "from os import system",
        "archive.extractall(p)", "from jax.experimental.serialize_executable import serialize", "serve('0.0.0.0')",
        "keras.models.load_model(p, safe_mode=False)", "f = eval", "torch.load(p)",
    ],
)  # fmt: skip
def test_the_gate_sees_what_it_is_there_for(code):
    assert forbidden(ast.parse(code))


# --- what imports cost ------------------------------------------------------------------------------------------------

HEAVY = (
    "jax",
    "jaxlib",
    "equinox",
    "optax",
    "gymnasium",
    "keras",
    "numpy",
    "rich",
    "envpool",
    "flax",
    "haiku",
    "tensorflow",
    "torch",
    "ray",
)


@pytest.mark.parametrize(
    ("code", "light"),
    [("import thorndike", True), ("import thorndike.cli", True), ("from thorndike import DQN", False)],
)
def test_importing_is_light_and_starts_no_backend(code, light):
    loaded = run_python(f"{code}\nimport sys\nprint(*sorted(m for m in {HEAVY} if m in sys.modules))").split()
    assert ("jax" in loaded) != light
    if light:
        assert loaded == []
    else:
        assert run_python(f"{code}\nfrom jax._src import xla_bridge\nprint(xla_bridge._backends)") == "{}"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["trian"]])
def test_the_command_answers_without_importing_jax(arguments):
    report = (
        "import sys\nfrom thorndike.cli import main\n"
        f"sys.argv = ['thorndike', *{arguments}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('jax' in sys.modules, 'gymnasium' in sys.modules)"
    )
    assert run_python(report).splitlines()[-1] == "False False"


def run_python(code: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- what is in the repository ----------------------------------------------------------------------------------------

TEXT = {".py", ".md", ".toml", ".txt", ".json", ".jsonl", ".yml", ".yaml", ".cfg", ".svg", ""}
MACHINE_PATH = re.compile(r"(?<![\w.~$}])/(?:home|root|Users|work|mnt|opt|private)/[\w.-]+|/tmp/\w|[A-Z]:\\\\Users")


def repository_files() -> list[Path]:
    """The files git tracks or would track; in an unpacked archive without git, all that are no build product."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        paths = [p for p in ROOT.rglob("*") if not any(part.startswith(".") for part in p.relative_to(ROOT).parts)]
    return [path for path in paths if path.is_file()]


def test_no_file_names_a_place_on_somebody_s_machine():
    found = []
    for path in repository_files():
        if path.suffix in TEXT and path != Path(__file__):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                found += [f"{shown(path)}:{number}: {line.strip()}" for _ in MACHINE_PATH.findall(line)]
    assert found == []


def test_every_file_of_the_package_says_what_it_is_for():
    for path in FILES:
        docstring = ast.get_docstring(tree_of(path))
        assert docstring, shown(path)
        first = docstring.splitlines()[0]
        assert first.endswith((".", ":")), f"{shown(path)}: {first}"
