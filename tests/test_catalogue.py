"""`thorndike list environments`: what is installed, what is one install away, and every id of what is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys

import gymnasium
import pytest

import thorndike as td
from thorndike import cli
from thorndike.environments import advice, catalogue, twins

FAKE = """
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv
gymnasium.register("MiniGrid-Fake-v0", entry_point=CartPoleEnv)
gymnasium.register("MiniGrid-Vector-v0", vector_entry_point=CartPoleEnv)
"""


@pytest.fixture
def listed(capsys):
    """The lines of `thorndike list environments`, with words after it."""

    def run(*words):
        assert cli.main(["list", "environments", *words]) == 0
        return capsys.readouterr().out.splitlines()

    return run


@pytest.fixture
def minigrid(tmp_path, monkeypatch):
    """A package minigrid of our own, not yet imported; what it holds is the argument."""

    def install(text):
        (tmp_path / "minigrid.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()

    before = set(gymnasium.registry)
    monkeypatch.delitem(sys.modules, "minigrid", raising=False)
    yield install
    sys.modules.pop("minigrid", None)
    for id in set(gymnasium.registry) - before:
        del gymnasium.registry[id]


def test_it_fits_a_screen_or_two_and_ends_with_how_to_see_more(listed):
    lines = listed()
    assert len(lines) < 45
    assert max(map(len, lines)) < 140
    assert lines[0].split() == ["installed", "ids", "for", "example", "runs", "recorded", "settings"]
    assert any(line.startswith("one install away") for line in lines)
    assert "list environments WORD" in lines[-1]
    (mine,) = [line for line in lines if line.startswith("compiled twins")]
    assert mine.split()[2:5] == [str(len(twins())), "CartPole-v1", "compiled"]
    assert "dqn" in mine


def test_what_is_installed_is_looked_up_and_not_imported():
    code = (
        "import sys\nfrom thorndike import cli\nassert cli.main(['list', 'environments']) == 0\n"
        "print(*(name for name in ('envpool', 'mujoco', 'pygame', 'matplotlib', 'shimmy') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == ""


def test_each_family_is_installed_or_has_a_line_that_installs_it():
    families = {family.name: family for family in catalogue.families()}
    for name, family in families.items():
        assert family.pip == "" or family.pip.startswith('pip install "'), name
    assert families["Gymnasium: classic control"].pip == ""
    for name, module in (("Gymnasium: Box2D", "Box2D"), ("Gymnasium: MuJoCo", "mujoco"), ("EnvPool", "envpool")):
        assert (families[name].pip == "") == (importlib.util.find_spec(module) is not None)


def test_the_examples_of_what_is_there_can_be_made():
    for family in catalogue.families():
        if not family.pip and family.quick:
            assert family.example in family.ids()
            td.make(family.example, 1).close()


def test_every_example_is_of_its_own_package_and_none_of_another():
    for package in advice.PACKAGES:
        assert advice.package_of(package.example) is package
    assert advice.to_install("Meta-World/MT1") == 'pip install "metaworld", then write metaworld:Meta-World/MT1'


def test_a_word_shows_every_id_of_a_family_with_its_recorded_settings(listed):
    lines = listed("Gymnasium: classic")
    assert lines[0].split() == ["environment", "runs", "recorded", "settings"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    mode, *names = rows["gymnasium:CartPole-v1"]
    assert mode == "host"
    assert {"dqn", "ppo", "reinforce"} <= {name.strip(",") for name in names}
    assert rows["CartPole-v0"] == ["host"]
    assert len(rows) == len([s for s in gymnasium.registry.values() if "classic_control" in str(s.entry_point)])


def test_a_word_that_names_no_family_finds_ids(listed):
    ids = [line.split()[0] for line in listed("frozenlake")[1:]]
    assert "FrozenLake8x8-v1" in ids
    assert all("frozenlake" in id.lower() for id in ids)
    if importlib.util.find_spec("envpool"):
        assert "envpool:FrozenLake-v1" in ids


def test_what_is_not_installed_is_answered_with_its_line(listed):
    if importlib.util.find_spec("panda_gym"):
        pytest.skip("panda-gym is installed")
    (line,) = listed("panda")[1:]
    assert line.split("  ")[0] == "panda_gym:PandaReach-v3"
    assert line.endswith('not installed: pip install "panda-gym"')
    assert listed("PandaReach")[1:] == [line]


def test_a_package_is_imported_only_when_it_is_asked_for(listed, minigrid):
    minigrid(FAKE)
    (line,) = [line for line in listed() if line.startswith("MiniGrid and BabyAI")]
    assert "many" in line
    listed("frozenlake")  # which is looked for among what is quick to find
    assert "minigrid" not in sys.modules
    for word in ("minigrid", "MiniGrid-Fa"):
        ids = [line.split()[0] for line in listed(word)[1:]]
        assert "minigrid:MiniGrid-Fake-v0" in ids
        assert "minigrid:MiniGrid-Vector-v0" not in ids  # of which there is no single copy
    td.make("minigrid:MiniGrid-Fake-v0", 1).close()


def test_a_package_that_cannot_be_imported_is_an_error_with_its_line(capsys, minigrid):
    minigrid("raise OSError('no display')")
    assert cli.main(["list", "environments", "minigrid"]) == 2
    said = capsys.readouterr().err
    assert "minigrid cannot be imported (OSError: no display)" in said
    assert 'pip install "minigrid"' in said


def test_ids_that_a_user_registers_are_shown(listed):
    gymnasium.register("OfMyOwn-v0", entry_point=lambda: None)
    try:
        assert any(line.startswith("registered by others") for line in listed())
        assert listed("ofmyown")[1:] == ["OfMyOwn-v0   host"]
    finally:
        del gymnasium.registry["OfMyOwn-v0"]
