"""Runs that are killed: `python -m faults.killed ENVIRONMENT` makes a process for each line it is given, and kills it.

The processes are forks of one that has imported everything and started nothing, which saves them a second or two each.
A line is JSON: `folder`, and `call` (the process kills itself at the call of that number) or `seconds` (it is killed
so long after its first call, whatever it does) or neither. The answer is JSON too: the signal that ended the process,
0 for none, and the calls it has made.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import jax

from faults.injection import Faults
from faults.runs import go_on
from thorndike import algorithms, evaluation  # noqa: F401  imported once, for all forks
from thorndike.runs import load, resume, train  # noqa: F401


class Doomed(Faults):
    """Kills this very process at a call, or some time after the first one."""

    def __init__(self, call: int = -1, seconds: float | None = None) -> None:
        super().__init__(call, lambda: os.kill(os.getpid(), signal.SIGKILL))
        self.seconds = seconds

    def __call__(self, name: str, real: Any, *arguments: Any, **named: Any) -> Any:
        if self.seconds is not None:
            threading.Timer(self.seconds, self.fail).start()
            self.seconds = None
        return super().__call__(name, real, *arguments, **named)


def main(environment: str) -> None:
    jax.config.update("jax_compilation_cache_dir", os.environ["THORNDIKE_TEST_CACHE"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    for line in sys.stdin:
        asked = json.loads(line)
        folder = Path(asked.pop("folder"))
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with Doomed(**asked).injected() as faults:
                go_on(folder, environment)
            os.write(writing, json.dumps(faults.names).encode())
            os._exit(0)
        os.close(writing)
        with open(reading) as file:
            names = json.loads(file.read() or "[]")
        status = os.waitpid(child, 0)[1]
        print(json.dumps({"signal": os.WTERMSIG(status), "status": status, "names": names}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
