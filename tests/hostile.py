"""Run folders as a stranger, a bad disk or a slip of the hand would leave them: each made by code from a whole one.

A case is a function of the folder to spoil and of a place outside, which nothing may touch: its file `secret`, its
folder `elsewhere`, and its module `trap`, which makes the file `canary` when it runs.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Case = Callable[[Path, Path], Any]


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a sealed JSON file and seal it again; what `change` returns, if anything, takes its place."""
    value = json.loads(path.read_text())
    value.pop("digest", None)
    value = change(value) or value
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(value | {"digest": digest}))


def steps_of(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("step-*"))


def newest(folder: Path) -> Path:
    return steps_of(folder)[-1]


def prepare_outside(outside: Path) -> None:
    (outside / "elsewhere").mkdir(parents=True)
    (outside / "elsewhere" / "precious").write_text("mine")
    (outside / "secret").write_text("mine too")
    (outside / "trap.py").write_text(f"open({str(outside / 'canary')!r}, 'w').close()")


# Something else in the place of a file or folder

PLACES: dict[str, Callable[[Path], Path]] = {
    "config": lambda run: run / "config.json",
    "metrics": lambda run: run / "metrics.jsonl",
    "summary": lambda run: run / "summary.json",
    "lock": lambda run: run / ".lock",
    "checkpoints": lambda run: run / "checkpoints",
    "incoming": lambda run: run / "checkpoints" / ".incoming",
    "deleted": lambda run: run / "checkpoints" / ".deleted-12345678",
    "checkpoint": newest,
    "manifest": lambda run: newest(run) / "manifest.json",
    "arrays": lambda run: newest(run) / "seed-0.safetensors",
}
FOLDERS = {"checkpoints", "incoming", "deleted", "checkpoint"}


def replace(path: Path) -> Path:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return path


def a_link(place: Callable[[Path], Path], target: str) -> Case:
    return lambda run, outside: replace(place(run)).symlink_to(outside / target)


def a_hard_link(place: Callable[[Path], Path]) -> Case:
    return lambda run, outside: os.link(outside / "secret", replace(place(run)))


def a_fifo(place: Callable[[Path], Path]) -> Case:
    return lambda run, outside: os.mkfifo(replace(place(run)))


def a_folder(place: Callable[[Path], Path]) -> Case:
    return lambda run, outside: replace(place(run)).mkdir()


def a_file(place: Callable[[Path], Path]) -> Case:
    return lambda run, outside: replace(place(run)).write_text("no folder")


IN_PLACES: dict[str, Case] = {}
for name, place in PLACES.items():
    IN_PLACES[f"{name}: a link"] = a_link(place, "elsewhere" if name in FOLDERS else "secret")
    IN_PLACES[f"{name}: a link to nothing"] = a_link(place, "nothing")
    IN_PLACES[f"{name}: a FIFO"] = a_fifo(place)
    IN_PLACES[f"{name}: the other kind"] = a_file(place) if name in FOLDERS else a_folder(place)
    if name not in FOLDERS:
        IN_PLACES[f"{name}: a hard link"] = a_hard_link(place)


# JSON


def text(path: Callable[[Path], Path], written: str | bytes) -> Case:
    data = written if isinstance(written, bytes) else written.encode()
    return lambda run, outside: path(run).write_bytes(data)


def changed(path: Callable[[Path], Path], change: Callable[[Any], Any]) -> Case:
    return lambda run, outside: rewrite(path(run), change)


def configured(**values: Any) -> Case:
    return changed(PLACES["config"], lambda config: config.update(values))


def algorithm(**values: Any) -> Case:
    return changed(PLACES["config"], lambda config: config["algorithm"].update(values))


def of_manifest(**values: Any) -> Case:
    return changed(PLACES["manifest"], lambda manifest: manifest.update(values))


def of_seed(**values: Any) -> Case:
    return changed(PLACES["manifest"], lambda manifest: manifest["seeds"]["0"].update(values))


ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\n" * 40
BOX = {"type": "Box", "shape": [4], "dtype": "float32", "low": 0, "high": 1}
CHOICES = {"type": "Discrete", "n": 2, "start": 0, "dtype": "int64"}
PARSED = {
    "nothing": "",
    "a list": "[1]",
    "deep": "[" * 100_000,
    "deep and closed": '{"a":' * 500 + "1" + "}" * 500,
    "no numbers": '{"format": NaN}',
    "a number of 5,000 digits": '{"format": 1' + "0" * 5_000 + "}",
    "no text": b"\xff\xfe\x00" * 99,
    "large": b" " * 33_000_000 + b"{}",
}
JSON: dict[str, Case] = {f"config: {name}": text(PLACES["config"], written) for name, written in PARSED.items()}
JSON |= {f"manifest: {name}": text(PLACES["manifest"], written) for name, written in PARSED.items()}
JSON |= {
    "a class of somebody's": algorithm(type="Popen"),
    "no class at all": algorithm(type=["DQN"]),
    "a field of somebody's": algorithm(hook="os.system"),
    "a field called self": algorithm(self=1),
    "code for a number": algorithm(learning_rate="__import__('os').system('touch canary')"),
    "escapes for a number": algorithm(learning_rate=ESCAPES),
    "a table for a number": algorithm(gamma={"type": "MLP"}),
    "absurdly many layers": algorithm(network={"type": "MLP", "sizes": [4] * 3_000}),
    "absurdly wide": algorithm(network={"type": "MLP", "sizes": [2**50]}),
    "sizes of text": algorithm(network={"type": "MLP", "sizes": ["a"]}),
    "sizes in each other": algorithm(network={"type": "MLP", "sizes": [[4]]}),
    "absurdly many copies": algorithm(num_environments=10**12),
    "no whole number": algorithm(rollout_length=1e300),
    "an algorithm that is a list": configured(algorithm=[1]),
    "an environment that is a number": configured(environment=5),
    "a module": configured(environment="trap:CartPole-v1"),
    "a module behind a prefix": configured(environment="gymnasium:trap:CartPole-v1"),
    "a module for evaluations": configured(evaluation_environment="trap:X-v0", evaluation_environment_is_id=True),
    "escapes for an environment": configured(environment=ESCAPES),
    "an argument that is ours": configured(environment_arguments={"num_environments": 3}),
    "arguments that are text": configured(environment_arguments="continuous"),
    "steps without end": configured(steps=10**30),
    "no steps": configured(steps=0),
    "steps in part": configured(steps=1.5),
    "true steps": configured(steps=True),
    "absurdly many seeds": configured(seeds=10**9),
    "a negative seed": configured(seed=-1),
    "a history of text": configured(history=["begun"]),
    "a history of other kinds": configured(history=[{"at": 1, "steps": 1, "versions": {}}]),
    "a key of somebody's": configured(callback="trap"),
    "an id that is a list": configured(id=[1]),
    "a space of bounds without end": configured(observation_space=BOX | {"shape": [2**40]}),
    "a space with fewer bounds": configured(observation_space=BOX | {"low": [0.0]}),
    "a space of somebody's": configured(observation_space={"type": "Graph"}),
    "choices without end": configured(observation_space=CHOICES | {"n": 2**31 - 1}),
    "nothing to do": configured(action_space=CHOICES | {"n": 0}),
    "a format of the future": configured(format=99),
    "a manifest of the future": of_manifest(format=99),
    "a manifest without seeds": of_manifest(seeds={}),
    "a manifest with a seed that is none": changed(
        PLACES["manifest"], lambda manifest: manifest["seeds"].update({"-1": manifest["seeds"]["0"]})
    ),
    "a configuration that is a number": of_manifest(configuration=5),
    "iterations without end": of_manifest(iterations=2**70),
    "seconds of text": of_manifest(seconds={"total": ESCAPES}),
    "arrays elsewhere": of_seed(file="../../../../outside/secret"),
    "arrays at the root": of_seed(file="/etc/passwd"),
    "an iteration without end": of_seed(iteration=2**63),
    "a size of text": of_seed(size="large"),
    "results of text": of_seed(results={"recent": ["a"], "evaluated": None}),
    "metrics of text": of_seed(metrics={"lines": "many", "sha256": ""}),
    "summary of escapes": text(PLACES["summary"], json.dumps({"algorithm": ESCAPES})),
    "summary of a list": text(PLACES["summary"], "[]"),
}  # fmt: skip


# Arrays


class Touches:
    """A pickle of it runs a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def arrays(made: Callable[[bytes, Path], bytes]) -> Case:
    """Other bytes in every file of arrays, with the digest and size that they have."""

    def case(run: Path, outside: Path) -> None:
        for step in steps_of(run):
            path = step / "seed-0.safetensors"
            path.write_bytes(data := made(path.read_bytes(), outside))
            about = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            rewrite(step / "manifest.json", lambda manifest, about=about: manifest["seeds"]["0"].update(about))

    return case


def header(change: Callable[[dict], Any]) -> Case:
    def made(data: bytes, outside: Path) -> bytes:
        end = 8 + int.from_bytes(data[:8], "little")
        head = json.loads(data[8:end])
        written = json.dumps(change(head) or head).encode()
        return len(written).to_bytes(8, "little") + written + data[end:]

    return arrays(made)


def npz(data: bytes, outside: Path) -> bytes:
    file = io.BytesIO()
    np.savez(file, weights=np.array([Touches(outside / "canary")], object))
    return file.getvalue()


def of_another_iteration(data: bytes, outside: Path) -> bytes:
    end = 8 + int.from_bytes(data[:8], "little")
    start, stop = (end + offset for offset in json.loads(data[8:end])["iteration"]["data_offsets"])
    return data[:start] + b"\xff" * (stop - start) + data[stop:]


def first(head: dict, **values: Any) -> None:
    head[next(name for name in head if name.startswith("state/parameters"))].update(values)


ARRAYS: dict[str, Case] = {
    "a pickle": arrays(lambda data, outside: pickle.dumps(Touches(outside / "canary"))),
    "objects of numpy": arrays(npz),
    "no bytes": arrays(lambda data, outside: b""),
    "zeros": arrays(lambda data, outside: bytes(len(data))),
    "a header of ten gigabytes": arrays(lambda data, outside: (10**10).to_bytes(8, "little") + data[8:]),
    "a header longer than the file": arrays(lambda data, outside: (len(data) + 1).to_bytes(8, "little") + data[8:]),
    "a header that is no JSON": arrays(lambda data, outside: data[:8] + b"x" * (len(data) - 8)),
    "a header nested without end": arrays(lambda data, outside: (10**6).to_bytes(8, "little") + b"[" * 10**6),
    "no arrays": header(lambda head: {"__metadata__": {}}),
    "another shape": header(lambda head: first(head, shape=[1, 1])),
    "a shape without end": header(lambda head: first(head, shape=[2**62, 4])),
    "a shape of text": header(lambda head: first(head, shape=["a"])),
    "another dtype": header(lambda head: first(head, dtype="I32")),
    "a dtype of nobody": header(lambda head: first(head, dtype="OBJECT")),
    "a dtype that numpy has not": header(lambda head: first(head, dtype="F8_E4M3")),
    "bytes before the file": header(lambda head: first(head, data_offsets=[-8, 8])),
    "bytes beyond the file": header(lambda head: first(head, data_offsets=[0, 2**60])),
    "bytes backwards": header(lambda head: first(head, data_offsets=[100, 0])),
    "another iteration": arrays(of_another_iteration),
    "numbers that are none": arrays(lambda data, outside: data[:-400] + b"\xff" * 400),
}


# Metrics


def lines(made: Callable[[], str]) -> Case:
    return lambda run, outside: (run / "metrics.jsonl").write_text(made())


def wide(steps: int) -> str:
    """A row of 900 columns that no other row has."""
    return json.dumps({"seed": 0, "steps": steps} | {f"{steps}-{i}": 0 for i in range(900)})


METRICS: dict[str, Case] = {
    "metrics: no text": lambda run, outside: (run / "metrics.jsonl").write_bytes(bytes(range(256)) * 40),
    "metrics: lists": lines(lambda: "[1, 2]\n" * 9),
    "metrics: deep": lines(lambda: '{"seed": 0, "steps": 1, "x": ' + "[" * 90_000 + "\n"),
    "metrics: a long line": lines(lambda: '{"seed": 0, "steps": 1, "x": "' + "x" * 10**6 + '"}\n'),
    "metrics: large numbers": lines(lambda: f'{{"seed": 0, "steps": {2**70}, "loss": {10**400}}}\n'),
    "metrics: text": lines(lambda: json.dumps({"seed": 0, "steps": 1, "evaluation_mean": ESCAPES}) + "\n"),
    "metrics: half an evaluation": lines(lambda: '{"seed": 0, "steps": 8, "evaluation_steps": 5}\n'),
    "metrics: nulls": lines(lambda: '{"seed": 0, "steps": 8, "evaluation_steps": null, "evaluation_longest": null}\n'),
    "metrics: columns without end": lines(lambda: "\n".join(map(wide, range(50)))),
    "metrics: emptied": lines(str),
    "metrics: gone": lambda run, outside: (run / "metrics.jsonl").unlink(),
}  # fmt: skip
CASES = IN_PLACES | JSON | ARRAYS | METRICS
