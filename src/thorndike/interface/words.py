"""What users of other libraries type, and what it is called here; numbers as people write them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from typing import Any, Literal

from thorndike.errors import SettingError, UnknownNameError, nearest, shown

# Arguments of a run (not of an algorithm: those are in `hyperparameters.OTHER_WORDS`) in other libraries' words.
RUN_WORDS = {
    "total_timesteps": "steps",
    "n_timesteps": "steps",
    "num_timesteps": "steps",
    "timesteps": "steps",
    "total_steps": "steps",
    "max_steps": "steps",
    "env": "environment",
    "env_id": "environment",
    "env_name": "environment",
    "gym_id": "environment",
    "algo": "algorithm",
    "n_seeds": "seeds",
    "num_seeds": "seeds",
    "random_seed": "seed",
    "log_dir": "run_dir",
    "logdir": "run_dir",
    "log_folder": "run_dir",
    "tensorboard_log": "run_dir",
    "output_dir": "run_dir",
    "save_path": "run_dir",
    "eval_freq": "evaluate_every",
    "evaluation_interval": "evaluate_every",
    "n_eval_episodes": "evaluate_episodes",
    "eval_episodes": "evaluate_episodes",
    "save_freq": "checkpoint_every",
    "checkpoint_freq": "checkpoint_every",
    "env_kwargs": "environment_arguments",
    "info_keywords": "record_info",
    "save_total_limit": "keep_checkpoints",
    "log_interval": "metrics_every",
    "logging_freq": "metrics_every",
    "callback": "on_chunk",
    "callbacks": "on_chunk",
    "verbose": "quiet",
    "progress_bar": "quiet",
    "policy": "network",
    "num_workers": "workers",
    "n_workers": "workers",
    "num_env_runners": "workers",
}

OnFullDisk = Literal["stop", "pause"]  # what a run does that cannot save
OnFault = Literal["raise", "restart"]  # what is done about a worker that fails

MOST = 2**53  # beyond it a float, which `1e6` is, cannot tell one whole number from the next
_NUMBER = re.compile(r"([+-]?\d[\d_]*(?:\.\d*)?(?:[eE]\+?\d+)?)([kKmM]?)")
_FACTORS = {"": 1, "k": 1_000, "m": 1_000_000}


def handed_in(algorithm: Any, network: Any, recipes: dict[str, Any]) -> dict[str, Any]:
    """What of the user's own was handed in again, by the field that it belongs in."""
    for name in recipes:
        if not name.endswith(("network", "memory", "optimizer", "intrinsic")):
            ours = RUN_WORDS.get(name, "environment=, network= and the like that are handed in again")
            raise UnknownNameError(f"no argument '{name}': there is {ours}")
    given = {"algorithm": algorithm, "network": network, **recipes}
    return {name: value for name, value in given.items() if value is not None}


def whole_number(value: Any, name: str, low: int = 0, high: int = MOST) -> int:
    """A count as people write it: 50_000, 5e4, "1e6" or "1M". SettingError where it is none, or out of reach."""
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value.strip())
        value = float(match[1].replace("_", "")) * _FACTORS[match[2].lower()] if match else value
    try:
        number = float(value)
    except Exception:  # whatever a foreign kind of number raises
        number = math.nan
    if not number.is_integer() or isinstance(value, bool):
        raise SettingError(f"{name} must be a whole number, got {shown(value)}")
    if number < low:
        raise SettingError(f"{name} must be at least {low}, got {value}")
    if number > high:
        raise SettingError(f"{name} must be at most {high:,}, got {number:.6g}")
    return int(value)


def spelled_out(text: str) -> str:
    """`1e6`, `1M` and `20k` as digits, where that is a whole number; any other text as it is."""
    match = _NUMBER.fullmatch(text)
    if match is None or not (match[2] or "e" in text.lower()):
        return text
    number = float(match[1].replace("_", "")) * _FACTORS[match[2].lower()]
    return str(int(number)) if number.is_integer() else text


def answer_to_argument(name: str, arguments: Iterable[str], fields: Collection[str], algorithm: str) -> str | None:
    """The answer to an argument of `td.train` that is another library's word or a slip; None where it is neither.

    `arguments` are those there are, `fields` the hyper-parameters of `algorithm`.
    """
    if name in RUN_WORDS:
        return f"no argument '{name}': here it is {RUN_WORDS[name]}"
    if name in fields:
        return f"'{name}' belongs to the algorithm: td.train(td.{algorithm}({name}=...), ...)"
    from thorndike.hyperparameters import first_word, in_our_words

    ours = in_our_words(name, fields, algorithm)
    if ours:
        field = first_word(ours).partition(".")[0]
        how = f", and belongs to the algorithm: td.train(td.{algorithm}({field}=...), ...)" if field in fields else ""
        return f"'{name}' is here {ours}{how}"
    near = nearest(name, arguments)
    return f"no argument '{name}'.{near}" if near else None
