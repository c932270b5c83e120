"""What to write instead: of ids whose package is not installed, and of environments that do not fit as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from gymnasium import spaces

from thorndike.errors import UnsuitableError
from thorndike.spaces import stored


class Package(NamedTuple):
    """A well-known package of environments, which registers them when its module is imported."""

    name: str
    ids: str  # a regular expression for their beginnings
    module: str  # "" where there is nothing to import
    pip: str
    example: str  # an id
    id: str = "{module}:{id}"  # as it is written with the module
    also: str = ""  # a module that it needs beside its own


PACKAGES = (
    Package(
        "Atari (ale-py)",
        r"ALE/|\w+(NoFrameskip|Deterministic)-v\d|(Asterix|BeamRider|Breakout|Enduro|Freeway|MontezumaRevenge|MsPacman|"
        r"Pong|Qbert|Seaquest|SpaceInvaders)(-ram)?-v\d",
        "ale_py",
        "gymnasium[atari]",
        "ALE/Pong-v5",
    ),
    Package("MiniGrid and BabyAI", r"(MiniGrid|BabyAI)-", "minigrid", "minigrid", "MiniGrid-Empty-5x5-v0"),
    Package("MiniWorld", r"MiniWorld-", "miniworld", "miniworld", "MiniWorld-Hallway-v0"),
    Package(
        "highway-env",
        r"(highway|merge|roundabout|parking|intersection|racetrack|exit|two-way|lane-keeping|u-turn)(-\w+)*-v\d",
        "highway_env",
        "highway-env",
        "highway-v0",
    ),
    Package(
        "Gymnasium-Robotics",
        r"Fetch(Reach|Push|Slide|PickAndPlace)|Hand(Reach|Manipulate)|AdroitHand|(Point|Ant)Maze_|FrankaKitchen",
        "gymnasium_robotics",
        "gymnasium-robotics",
        "FetchReach-v4",
    ),
    Package("Meta-World", r"Meta-World/", "metaworld", "metaworld", "Meta-World/MT1"),
    Package(
        "dm_control",
        r"dm_control/",
        "shimmy",
        "shimmy[dm-control]",
        "dm_control/cartpole-swingup-v0",
        also="dm_control",
    ),
    Package(  # procgen itself registers in the old gym
        "Procgen", r"procgen-", "", "thorndike[envpool]", "procgen-coinrun-v0", "envpool:{game}Easy-v0"
    ),
    Package("panda-gym", r"Panda(Reach|Push|Slide|PickAndPlace|Stack|Flip)", "panda_gym", "panda-gym", "PandaReach-v3"),
    Package("Flappy Bird", r"FlappyBird-", "flappy_bird_gymnasium", "flappy-bird-gymnasium", "FlappyBird-v0"),
    Package("ViZDoom", r"Vizdoom", "vizdoom.gymnasium_wrapper", "vizdoom", "VizdoomBasic-v1"),
    Package("PyFlyt", r"PyFlyt/", "PyFlyt.gym_envs", "PyFlyt", "PyFlyt/QuadX-Hover-v4"),
)


def package_of(id: str) -> Package | None:
    """The well-known package that an id without a module's name belongs to."""
    return next((package for package in PACKAGES if re.match(package.ids, id)), None)


def written(id: str) -> str:
    """An id with its module's name before it, where it is of a well-known package: "minigrid:MiniGrid-Empty-5x5-v0"."""
    package = package_of(id)
    game = id.split("-")[1].capitalize() if "-" in id else id
    return package.id.format(module=package.module, id=id, game=game) if package else id


def to_install(id: str) -> str:
    """What to do where the package of `id` is not installed; "" where it is of none that is well known."""
    package = package_of(id)
    return f'pip install "{package.pip}", then write {written(id)}' if package else ""


def newest_version(id: str, known: Iterable[str]) -> str:
    """The newest of the `known` ids that differ from `id` in their version alone; "" where there is none."""
    name, _, version = id.rpartition("-v")
    others = [other for other in known if other.rpartition("-v")[0] == name and other.rpartition("-v")[2].isdigit()]
    newest = max(others, key=lambda other: int(other.rpartition("-v")[2]), default="")
    return newest if version.isdigit() and newest != id else ""


def for_observations(space: Any, maker: str) -> str:
    """How to make observations fit that do not: `maker` is the call that makes the environment."""
    fitting = [name for name in space.spaces if _fits(space[name])] if isinstance(space, spaces.Dict) else []
    if fitting:
        return f"leave it out: lambda: gymnasium.wrappers.FilterObservation({maker}, {sorted(fitting)})"
    return f"make numbers of it: lambda: gymnasium.wrappers.TransformObservation({maker}, function, space)"


def for_actions(space: Any, maker: str) -> str:
    """How to act by choices or numbers where the environment wants something else."""
    if isinstance(space, spaces.MultiDiscrete):
        count, start = space.nvec.ravel().tolist(), space.start.ravel().tolist()
        more = f", start={start}" if any(start) else ""
        function, flat = f"lambda a: a.reshape{space.shape}", f"gymnasium.spaces.MultiDiscrete({count}{more})"
    else:
        function, flat = "function", "space"
    return f"act through a wrapper: lambda: gymnasium.wrappers.TransformAction({maker}, {function}, {flat})"


def check_keeps_no_statistics(environment: Any) -> None:
    """Raise UnsuitableError where a wrapper normalises by statistics of its own, which differ from copy to copy."""
    layer = environment
    while isinstance(attributes := getattr(layer, "__dict__", None), dict) and "env" in attributes:
        for name, value in attributes.items():
            if type(value).__name__ == "RunningMeanStd" and getattr(layer, "update_running_mean", True):
                setting = "normalize_observations" if name.startswith("obs") else "normalize_rewards"
                raise UnsuitableError(
                    f"{type(layer).__name__} keeps statistics that evaluation, checkpoints and agents would lack: "
                    f"leave it out and set {setting}=True in the algorithm"
                )
        layer = attributes["env"]


def _fits(space: Any) -> bool:
    try:
        stored(space)
    except UnsuitableError:
        return False
    return True
