"""Watching: the episode that is drawn is the agent's own, in a film, a notebook and a terminal."""

from __future__ import annotations

import dataclasses
import sys
from typing import ClassVar

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import thorndike as td
from test_runs import GRADIENT, OPTIONS
from thorndike import cli
from thorndike.environments import make, pictures
from thorndike.interface import watch

Image = pytest.importorskip("PIL.Image", reason="films need Pillow")
QUICK = OPTIONS | {"evaluate_every": 0}


class Lamp(gymnasium.Env):
    """Six steps that grow brighter; it says so in its pictures, blue in another seed's episode."""

    observation_space = spaces.Box(-1, 10, (1,), np.float32)
    action_space = spaces.Discrete(2)
    metadata: ClassVar[dict] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.full(1, self.steps, np.float32), 1.0, self.steps >= 6, False, {}

    def render(self):
        if self.render_mode == "rgb_array":
            return np.full((20, 30, 3), 40 * self.steps, np.uint8)
        return None


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The same, compiled."""

    max_steps: int | None = 6
    observation_space: ClassVar = spaces.Box(-1, 10, (1,), np.float32)
    action_space: ClassVar = spaces.Discrete(2)

    def initial(self, key):
        return jnp.zeros(1)

    def observe(self, state):
        return state

    def transition(self, state, action, key):
        return state + 1, jnp.ones(()), jnp.zeros((), bool)


@dataclasses.dataclass(frozen=True)
class Drawn(Compiled):
    def render(self, state):
        return np.full((20, 30, 3), 40 * state[0], np.uint8)


def brightness(film):
    return [int(np.asarray(image).mean()) for image in film.images]


@pytest.fixture(scope="module")
def lamp(tmp_path_factory):
    return td.train(GRADIENT, Lamp, 64, run_dir=tmp_path_factory.mktemp("lamp") / "run", **QUICK)


def test_a_film_has_every_state_of_an_episode_from_its_first_to_its_last(lamp):
    film = lamp.watch(2)
    assert brightness(film) == [0, 40, 80, 120, 160, 200, 240] * 2
    assert film.returns == [6.0, 6.0]
    assert film.fps == 10
    slow = lamp.watch(fps=60)
    assert brightness(slow) == [0, 80, 160, 240]
    assert slow.fps == 30


def test_a_compiled_environment_draws_its_own_states(tmp_path):
    run = td.train(GRADIENT, Drawn, 64, run_dir=None, **QUICK)
    assert brightness(run.watch()) == [0, 40, 80, 120, 160, 200, 200]  # its last state is another episode's by then
    run = td.train(GRADIENT, Compiled, 64, run_dir=None, **QUICK)
    with pytest.raises(td.UnsuitableError, match=r"Compiled draws nothing: give it render\(state\)"):
        run.watch()


@pytest.mark.parametrize(
    "id", ["CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1", "Acrobot-v1"]
)
def test_the_states_of_twins_are_drawn_by_gymnasium(id, monkeypatch):
    pytest.importorskip("pygame", reason="Gymnasium draws classic control with pygame")
    stage = pictures.staged(id, True, {})
    twin, seen = make(id, 1), []
    env_state, _ = twin.reset(jax.random.key(3))
    seen.append(stage.picture(env_state))
    action = np.ones((1, *twin.action_space.shape), np.int32 if twin.action_space.shape == () else np.float32)
    for t in range(15):
        env_state, _ = twin.step(env_state, action, jax.random.key(t))
    seen.append(stage.picture(env_state))
    assert all(picture.shape[2] == 3 and picture.std() > 0 for picture in seen)
    assert (seen[0] != seen[1]).any()
    np.testing.assert_array_equal(stage.picture(env_state), seen[1])


def test_a_film_is_a_file_and_what_a_notebook_shows(lamp, tmp_path):
    film = lamp.watch()
    for name in ("film.webp", "new/film.gif"):
        with Image.open(film.save(tmp_path / name)) as read:
            assert read.n_frames == 7
            read.seek(1)
            read.load()
            assert read.info["duration"] == 100
            assert read.info["loop"] == 0
    assert film._repr_html_().startswith('<img alt="Film of 7 pictures, return 6.0" src="data:image/webp;base64,')
    with pytest.raises(td.SettingError, match=r"a film is a file \.webp or \.gif, got 'film\.mp4'"):
        film.save(tmp_path / "film.mp4")


def test_large_pictures_and_long_films_are_kept_small(monkeypatch):
    monkeypatch.setattr(watch, "MOST_PICTURES", 3)
    large = np.zeros((900, 600, 3), np.uint8)
    film = watch.filmed(iter(watch.Frame(large, 1, step, 0.0) for step in range(9)), 20.0, live=False)
    assert [image.size for image in film.images] == [(267, 400)] * 3


def test_a_terminal_shows_the_frames_at_their_time_until_it_is_told_to_stop(monkeypatch):
    from rich.console import Console

    def stopped():
        for step in range(4):
            yield watch.Frame(np.full((8, 8, 3), 60 * step, np.uint8), 1, step, float(step))
        raise KeyboardInterrupt

    film = watch.filmed(stopped(), 200.0, live=True)
    assert film.returns == [3.0]
    console = Console(width=40, height=12, force_terminal=True, color_system="truecolor", record=True)
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[:2] = 255
    with console.capture() as shown:
        console.print(watch.Cells(watch.Frame(picture, 2, 7, 1.5), Image))
    lines = shown.get().splitlines()
    assert len(lines) == 11  # as high as the terminal, less a line for the words
    assert "▀" * 20 in lines[0]
    assert "38;2;248;248;248" in lines[0]
    assert "38;2;0;0;0" in lines[9]
    assert "episode 2  step 7  return 1.5" in lines[10]


def test_the_command_writes_a_film_and_answers_what_cannot_be(lamp, tmp_path, capsys, monkeypatch):
    (tmp_path / "my_lamp.py").write_text(
        "from test_watch import Lamp, gymnasium\ngymnasium.register('Lamp-v0', Lamp)\n"
    )
    monkeypatch.chdir(tmp_path)
    environment = ["--environment", "my_lamp:Lamp-v0"]
    out = str(tmp_path / "out.webp")
    assert cli.main(["watch", str(lamp.folder), "--out", out, "--episodes", "2", *environment]) == 0
    assert capsys.readouterr().out == f"Film of 14 pictures, return 6.0, 6.0: {out}\n"
    assert cli.main(["watch", str(lamp.folder), *environment]) == 0
    assert (lamp.folder / watch.FILE).exists()
    capsys.readouterr()
    bad = {
        ("--best",): "no best agent: no evaluation has been played",
        ("--fps", "0"): "fps must be a number above 0",
        ("--episodes", "0"): "episodes must be at least 1",
        ("--out", "film.avi"): "a film is a file .webp or .gif",
    }
    for words, answer in bad.items():
        assert cli.main(["watch", str(lamp.folder), *environment, *words]) == 2
        said = capsys.readouterr().err
        assert answer in said
        assert len(said.strip().splitlines()) == 1
    assert cli.main(["watch", str(lamp.folder)]) == 2
    assert "hand it in again" in capsys.readouterr().err


def test_what_draws_nothing_or_lacks_a_package_says_so(lamp, monkeypatch):
    class Blind(Lamp):
        def render(self):
            return "a lamp"

    run = td.train(GRADIENT, Blind, 64, run_dir=None, **QUICK)
    with pytest.raises(td.UnsuitableError, match=r"Blind draws nothing: .* got str"):
        run.watch()

    class Unequipped(Lamp):
        def render(self):
            raise gymnasium.error.DependencyNotInstalled('run `pip install "gymnasium[classic-control]"`')

    run = td.train(GRADIENT, Unequipped, 64, run_dir=None, **QUICK)
    with pytest.raises(td.MissingExtraError, match=r'pip install "gymnasium\[classic-control\]"'):
        run.watch()
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(td.MissingExtraError, match=r'pip install "thorndike\[watch\]"'):
        lamp.watch()


def test_an_object_is_drawn_as_it_is():
    alone = td.PPO(network=td.MLP((8,)), critic_network=None, num_environments=1, rollout_length=8, batch_size=8)
    run = td.train(alone, Lamp("rgb_array"), 16, run_dir=None, **QUICK)
    assert brightness(run.watch()) == [0, 40, 80, 120, 160, 200, 240]


def test_a_robot_is_drawn_by_the_camera_that_goes_with_it():
    pytest.importorskip("mujoco")
    renderers = []
    for more in ({}, {"camera_id": -1, "default_camera_config": {"trackbodyid": 1}}):
        made = make("gymnasium:HalfCheetah-v5", 1, render_mode="rgb_array", **more)
        made.follow()
        renderers.append(made.copies[0].unwrapped.mujoco_renderer)
        made.close()
    assert renderers[0].camera_id == renderers[0].model.camera("track").id
    assert renderers[1].camera_id == -1  # what somebody asked for stays
