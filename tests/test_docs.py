"""The examples in the documentation run as they stand."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

import thorndike as td
from thorndike.hyperparameters import OTHER_WORDS, first_word
from thorndike.interface.words import RUN_WORDS

DOCS = Path(__file__).parents[1] / "docs"


def examples(name):
    """Every example in Python of a page."""
    return re.findall(r"^```python\n(.*?)^```", (DOCS / name).read_text(encoding="utf-8"), re.M | re.S)


ENVIRONMENTS, LOOPS = examples("environments.md"), examples("your_own_loop.md")


@pytest.mark.parametrize("example", range(len(ENVIRONMENTS)))
def test_an_environment_from_the_documentation_trains(example, monkeypatch):
    train = td.train

    def shortly(algorithm, environment, steps):
        return train(algorithm, environment, steps=1, evaluate_every=0, run_dir=None, quiet=True)

    monkeypatch.setattr(td, "train", shortly)
    names = {"__name__": "example"}
    exec(compile(ENVIRONMENTS[example], f"environments.md, example {example}", "exec", dont_inherit=True), names)
    assert names["run"].summary["steps"] > 0


@pytest.mark.parametrize("example", range(len(LOOPS)))
def test_a_loop_from_the_documentation_learns(example, monkeypatch, tmp_path):
    class Shortly(td.Learner):
        def __init__(self, algorithm, *spaces, steps, **more):
            small = {"warmup_steps": 64} if isinstance(algorithm, td.DQN) else {"rollout_length": 16, "epochs": 1}
            super().__init__(dataclasses.replace(algorithm, **small), *spaces, steps=65, **more)

    monkeypatch.setattr(td, "Learner", Shortly)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    exec(compile(LOOPS[example], f"your_own_loop.md, example {example}", "exec", dont_inherit=True), names)
    assert names["learner"].finished
    assert names["learner"].row["steps"] >= 65


def test_the_pages_of_the_algorithms_are_of_today(monkeypatch):
    """`make docs` writes them: a field, a formula, a result or a whole algorithm that is new is missing until then."""
    monkeypatch.syspath_prepend(str(DOCS))
    made = importlib.import_module("pages").pages()
    written = {str(path.relative_to(DOCS)): path.read_text() for path in (DOCS / "algorithms").glob("*.md")}
    written["algorithms.md"] = (DOCS / "algorithms.md").read_text()
    assert written.keys() == made.keys()
    assert [name for name in made if made[name] != written[name]] == []


def test_the_glossary_says_what_whoever_types_another_library_s_word_is_answered():
    answers = {word: first_word(answer) for word, answer in (RUN_WORDS | OTHER_WORDS).items()}
    lines = (DOCS / "ideas.md").read_text(encoding="utf-8").splitlines()
    rows = [line.split("|")[1:4] for line in lines if line.count("|") == 5]
    typed = [(word, ours) for *theirs, ours in rows for word in re.findall(r"`(\w+)`", "".join(theirs))]
    known = [(answers[word], ours) for word, ours in typed if word in answers]
    wrong = [(answer, ours) for answer, ours in known if f"`{answer}" not in ours]
    assert len(known) > 20
    assert wrong == []
