"""A test of the tests: does a test fail for each bug of table.py and families.py, planted in a copy of the package?

    python tests/mutants/run.py                 all of them; writes benchmarks/results/mutants.md
    python tests/mutants/run.py 17 31 greedy    those of these numbers, or with these words in what they do

The tests named beside the mutants must pass on the package as it is: this is looked at first.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from families import FAMILIES
from table import BUGS, CORE, SURVIVORS, Mutant

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "mutants.md"
SECONDS = 600  # that the tests of one mutant may take
PASSED, FAILED = 0, 1  # pytest's exit codes; any other says that the tests could not be run


class Case(NamedTuple):
    """A mutant, and what it stands for."""

    name: str  # the bug's number, "survivor" or "family"
    what: str
    mutant: Mutant


class Verdict(NamedTuple):
    killed: bool
    by: str  # the test that failed first and what it said, or why there is none
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("chosen", nargs="*", help="numbers of bugs, or words of what mutants do (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="mutants side by side (default: 2)")
    arguments = parser.parse_args()
    stale = list(misfits())
    if stale:
        print("the table is stale:", *stale, sep="\n  ")
        return 2
    cases = [case for case in all_cases() if is_chosen(case, arguments.chosen)]
    with workplace() as place, ThreadPoolExecutor(arguments.jobs) as pool:
        print(f"{len(cases)} mutants; first their tests without any", flush=True)
        broken = [line for line in pool.map(lambda ids: unbroken(place, ids), by_file(cases)) if line]
        if broken:
            print("these fail without any mutant:", *broken, sep="\n  ")
            return 2
        verdicts = {}
        for case, verdict in zip(cases, pool.map(lambda case: met(place, case), cases), strict=True):
            verdicts[case] = verdict
            print(told(case, verdict), flush=True)
    print(score(verdicts))
    if not arguments.chosen:
        RESULTS.write_text(report(verdicts), encoding="utf-8")
    return 0 if all(verdict.killed for verdict in verdicts.values()) else 1


def all_cases() -> list[Case]:
    of_bugs = [Case(str(bug.number), bug.what, mutant) for bug in BUGS for mutant in bug.mutants]
    tables = {"survivor": SURVIVORS, "family": FAMILIES}
    return of_bugs + [Case(name, *one) for name, table in tables.items() for one in table.items()]


def is_chosen(case: Case, chosen: Collection[str]) -> bool:
    return not chosen or any(word == case.name or (not word.isdigit() and word in case.what) for word in chosen)


def misfits() -> Iterator[str]:
    """What in the table fits the package and its tests no more."""
    for case in all_cases():
        mutant = case.mutant
        path = ROOT / "src" / "thorndike" / mutant.path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text.count(mutant.old) != 1:
            yield f"{case.name}: {mutant.path} has {text.count(mutant.old)} times {mutant.old!r}"
        elif error := syntax_error(text.replace(mutant.old, mutant.new)):
            yield f"{case.name}: {mutant.path} with {mutant.new!r} is no Python: {error}"
        for id in mutant.tests.split():
            file, _, test = id.partition("::")
            path = ROOT / "tests" / file
            if not path.exists() or f"\ndef {test.partition('[')[0]}(" not in path.read_text(encoding="utf-8"):
                yield f"{case.name}: there is no test {id}"


def syntax_error(text: str) -> str:
    """What is wrong with a module's text; "" where nothing is. Every test would fail, whatever it is about."""
    try:
        compile(text, "mutant", "exec")
    except SyntaxError as error:
        return str(error)
    return ""


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder for copies of the package, and for what the tests share."""
    with tempfile.TemporaryDirectory(prefix="thorndike-mutants-") as place:
        (Path(place) / "programs").mkdir()
        yield Path(place)


def by_file(cases: Collection[Case]) -> list[list[str]]:
    """The tests of all cases, those of a file together."""
    files: dict[str, dict[str, None]] = collections.defaultdict(dict)
    for case in cases:
        for id in case.mutant.tests.split():
            files[id.partition("::")[0]][id] = None
    return [list(ids) for ids in files.values()]


def unbroken(place: Path, ids: Collection[str]) -> str:
    """Which of some tests fails on the package as it is; "" where none does."""
    code, output = pytest(place, ROOT / "src", ids)
    return "" if code == PASSED else first_failure(output)


def met(place: Path, case: Case) -> Verdict:
    """What becomes of a mutant."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=place) as folder:
        source = shutil.copytree(ROOT / "src", Path(folder) / "src")
        path = source / "thorndike" / case.mutant.path
        path.write_text(path.read_text(encoding="utf-8").replace(case.mutant.old, case.mutant.new), encoding="utf-8")
        code, output = pytest(place, source, case.mutant.tests.split())
    by = {PASSED: "survived", None: "took too long"}.get(code, first_failure(output))
    return Verdict(code == FAILED, by, time.monotonic() - began)


def pytest(place: Path, source: Path, ids: Collection[str]) -> tuple[int | None, str]:
    """The exit code (None: out of time) and output of tests of the package in `source`."""
    shared = {"THORNDIKE_TEST_CACHE": str(place / "programs"), "HYPOTHESIS_STORAGE_DIRECTORY": str(place / "examples")}
    environment = shared | dict(os.environ) | {"PYTHONPATH": str(source), "COLUMNS": "300"}  # wide: nothing is cut
    options = ["-x", "-q", "--tb=line", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *(f"tests/{id}" for id in ids)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None, ""
    return process.returncode, output


def first_failure(output: str) -> str:
    """The test that failed and what it said, or the last line where none did."""
    found = re.search(r"^(?:FAILED|ERROR) tests/(.+)", output, re.MULTILINE)
    return found[1] if found else (output.strip() or "no output").splitlines()[-1]


def told(case: Case, verdict: Verdict) -> str:
    word = "killed  " if verdict.killed else "SURVIVED"
    return f"{word} {case.name:>8}  {case.mutant.path:<32} {verdict.seconds:5.1f} s  {verdict.by:.160}"


def score(verdicts: dict[Case, Verdict]) -> str:
    """In one line: how many bugs have all of their mutants killed."""
    killed: dict[tuple[str, str], bool] = {}
    for case, verdict in verdicts.items():
        killed[case.name, case.what] = killed.get((case.name, case.what), True) and verdict.killed
    parts = {
        "core": [died for (name, _), died in killed.items() if name.isdigit() and int(name) <= CORE],
        "all bugs": [died for (name, _), died in killed.items() if name.isdigit()],
        "former survivors": [died for (name, _), died in killed.items() if name == "survivor"],
        "mistakes in each algorithm": [died for (name, _), died in killed.items() if name == "family"],
    }
    said = [f"{name} {sum(those)} of {len(those)}" for name, those in parts.items() if those]
    return f"killed: {', '.join(said)}; mutants {sum(v.killed for v in verdicts.values())} of {len(verdicts)}"


def report(verdicts: dict[Case, Verdict]) -> str:
    """The page of results."""
    lines = [
        "# A test of the tests",
        "",
        "Bugs that libraries of this field really had, planted in copies of this package (`tests/mutants/table.py`),",
        f"one at a time, and met by a few of the quick tests. Bugs 1 to {CORE} are the core. A bug is killed when, for",
        "each of its mutants, a test fails. `make mutants` runs this again and writes this page.",
        "",
        f"**{score(verdicts).capitalize()}.**",
        "",
        "| | where | the bug | mutants in | killed by |",
        "|---|---|---|---|---|",
    ]

    def row(number: str, where: str, what: str, cases: list[Case]) -> str:
        paths = dict.fromkeys(case.mutant.path for case in cases)
        tests = dict.fromkeys(
            _code(_test(verdicts[case].by)) if verdicts[case].killed else "**survived**" for case in cases
        )
        return f"| {number} | {where} | {what} | {', '.join(map(_code, paths))} | {', '.join(tests)} |"

    for bug in BUGS:
        cases = [case for case in verdicts if case.name == str(bug.number)]
        if cases:
            lines.append(row(str(bug.number), bug.where, bug.what, cases))
        else:
            lines.append(f"| {bug.number} | {bug.where} | {bug.what} | | does not apply: {bug.reason} |")
    headings = {
        "survivor": "Changes of this package that its tests once did not see:",
        "family": "Each algorithm, broken in five places of its own (`tests/mutants/families.py`); what it shares with "
        "DQN, PPO, SAC or TD3 is above:",
    }
    for name, heading in headings.items():
        lines += ["", heading, "", "| the change | in | killed by |", "|---|---|---|"]
        for case, verdict in verdicts.items():
            if case.name == name:
                by = _code(_test(verdict.by)) if verdict.killed else "**survived**"
                lines.append(f"| {case.what} | {_code(case.mutant.path)} | {by} |")
    return "\n".join(lines) + "\n"


def _test(by: str) -> str:
    """The test's name, without its parameters and what it said."""
    return re.split(r"\[| - ", by)[0]


def _code(text: str) -> str:
    return f"`{text}`"


if __name__ == "__main__":
    sys.exit(main())
