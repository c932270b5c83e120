"""Settings as a file: an algorithm's hyper-parameters as JSON, to be trained with and passed on; no code in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired, TypedDict

from thorndike import persistence
from thorndike.errors import CorruptCheckpointError, RunError, SettingError, ThorndikeError, nearest
from thorndike.hyperparameters import check_registered, to_json
from thorndike.runs import configuration, schema

FORMAT = 1
MAX_BYTES = 1_000_000


class Settings(TypedDict):
    """What the file holds, and nothing else."""

    format: int
    algorithm: dict[str, Any]  # {"type": "DQN", "gamma": 0.98, ...}; a field that is left out has its default
    environment: NotRequired[str]  # what they were found for; nothing is made of it
    steps: NotRequired[schema.Positive]  # how long they were trained for


def save_settings(
    path: str | Path, algorithm: Any, *, environment: str | None = None, steps: int | None = None
) -> Path:
    """Write an algorithm's hyper-parameters as JSON (.json). SettingError where something in it is your own."""
    place = persistence.file_of("file of settings", [".json"], path)
    check_registered(algorithm)
    values = to_json(algorithm)
    if any(configuration.is_own(part) or configuration.is_foreign(part) for part in (values, *values.values())):
        raise SettingError(
            "networks, optimizers and classes of your own cannot be written as JSON: keep the run's folder"
        )
    about = {name: value for name, value in (("environment", environment), ("steps", steps)) if value is not None}
    with persistence.writable(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        persistence.write_json(place, {"format": FORMAT} | about | {"algorithm": values})
    return place


def load_settings(path: str | Path) -> Any:
    """The algorithm whose hyper-parameters a file holds, for `td.train`. Safe on a stranger's file: no code runs.

    SettingError, UnknownNameError or CorruptCheckpointError where it is none, or a value cannot work.
    """
    return read(persistence.folder_of(path))[0]


def read(path: Path) -> tuple[Any, int | None]:
    """The algorithm, and for how many steps it was trained where the file says so."""
    values = persistence.read_json(path, MAX_BYTES)
    try:
        for name in values:
            if name not in Settings.__annotations__:
                raise ValueError(f"it has '{name}'.{nearest(name, Settings.__annotations__)}")
        schema.check(values, Settings, "the file")
        if values["format"] != FORMAT:
            raise ValueError(f"its format is not {FORMAT}, which this version of thorndike reads")
        return configuration.algorithm_from_json(values["algorithm"], {}, path), values.get("steps")
    except RunError as error:
        raise SettingError(f"{path} has a class of somebody's own in it: {error}") from None
    except ThorndikeError as error:
        raise type(error)(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise CorruptCheckpointError(f"{path} is no file of settings: {error}") from None
