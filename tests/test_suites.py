"""The JAX suites where none is installed, or as if none were: what is answered, what a stranger's folder may name."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from thorndike.environments import make, name_of, suites
from thorndike.errors import EnvironmentFault, MissingExtraError, UnknownNameError
from thorndike.runs.configuration import module_named
from thorndike.settings import recorded


@pytest.mark.parametrize("suite", suites.SUITES)
def test_a_suite_that_is_not_installed_is_answered_with_the_pip_line(suite, monkeypatch):
    known, find = suites.SUITES[suite], importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == known.module else find(name))
    for ask in (lambda: make(f"{suite}:Any-v0", 2), lambda: suites.ids(suite)):
        with pytest.raises(MissingExtraError) as caught:
            ask()
        assert known.module in str(caught.value)
        assert str(caught.value).endswith(known.pip)
    assert not known.installed


def importing(error):
    """A finder of modules by which importing NAVIX raises `error`."""

    class Broken:
        def find_spec(self, name, path, target=None):
            if name == "navix":
                raise error

    return Broken()


def test_a_suite_that_lacks_a_package_of_its_own_is_answered_with_the_pip_line(monkeypatch):
    monkeypatch.setattr(suites.Suite, "installed", True)
    monkeypatch.setattr(sys, "meta_path", [importing(ModuleNotFoundError("No module named 'six'")), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "navix", raising=False)
    monkeypatch.delitem(sys.modules, "thorndike.environments.suites.navix", raising=False)
    with pytest.raises(MissingExtraError, match=r"navix could not be imported \(No module named 'six'\): pip install"):
        make("navix:Navix-Empty-5x5-v0", 2)


def test_a_suite_that_breaks_while_it_is_imported_is_an_environments_fault(monkeypatch):
    monkeypatch.setattr(suites.Suite, "installed", True)
    monkeypatch.setattr(sys, "meta_path", [importing(AttributeError("jax has no core")), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "navix", raising=False)
    monkeypatch.delitem(sys.modules, "thorndike.environments.suites.navix", raising=False)
    with pytest.raises(EnvironmentFault, match="navix could not be imported: AttributeError: jax has no core"):
        make("navix:Navix-Empty-5x5-v0", 2)


def test_gymnax_before_1_is_refused_and_what_overwrites_it_is_named(monkeypatch):
    old = [ModuleType(name) for name in ("gymnax", "gymnax.environments", "gymnax.environments.spaces")]
    environment = ModuleType("gymnax.environments.environment")
    environment.Environment = type("Environment", (), {})
    for module in (*old, environment):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    old[0].environments, old[1].spaces = old[1:]
    monkeypatch.setattr(suites.Suite, "installed", True)
    monkeypatch.delitem(sys.modules, "thorndike.environments.suites.gymnax", raising=False)
    with pytest.raises(MissingExtraError, match=r"before 1\.0.*stable-gymnax.*pip install"):
        make("gymnax:CartPole-v1", 2)


def test_an_unknown_suite_is_answered_with_those_there_are():
    with pytest.raises(UnknownNameError, match="no suite 'dm_control': there are gymnax, pgx"):
        suites.ids("dm_control")


@pytest.mark.parametrize("suite", suites.SUITES)
def test_a_folder_may_name_a_suite_but_no_module_behind_its_prefix(suite):
    assert module_named(f"{suite}:Any-v0") == ""
    assert module_named(f"{suite}:trap:Any-v0") == f"{suite}:trap"


def test_settings_recorded_for_an_id_hold_for_a_suites_too():
    assert recorded("ppo", "gymnax:CartPole-v1") == recorded("ppo", "CartPole-v1")
    assert name_of("gymnax:CartPole-v1") == "CartPole-v1"
