"""Seeds and copies spread over several devices: here over those that a CPU can be divided into."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import thorndike as td

CODE = """
import jax, numpy as np
import thorndike as td
from thorndike import trainer
from thorndike.environments import make

assert jax.device_count() == {devices}
algorithm = td.{algorithm}
chunks = trainer.train(algorithm, lambda: make("CartPole-v1", algorithm.num_environments), {steps}, seeds={seeds},
                       parallel="vmap")
shares = set()
for chunk in chunks:
    arrays = chunk.arrays()
    shares |= {{x.addressable_shards[0].data.shape for x in jax.live_arrays() if x.shape == {whole}}}
print(*shares)
np.savez({out!r}, **{{name: x for name, x in arrays.items() if x.dtype.kind == "f"}})
"""
PPO = "PPO(num_environments=8, rollout_length=16, batch_size=32, epochs=1, network=td.MLP((8,)))"
DQN = "DQN(num_environments=8, rollout_length=2, warmup_steps=64, network=td.MLP((8,)), memory=td.Replay(256, 16))"


def run(out: Path, devices: int, **given) -> str:
    """What a process with so many devices prints; it leaves its numbers in `out`."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(td.__file__).parents[1]),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_ENABLE_X64": "0",
    }
    code = CODE.format(devices=devices, out=str(out), **given)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("algorithm", "seeds", "whole", "share"),
    [(PPO, 1, (8, 4), "(2, 4)"), (DQN, 1, (32, 8, 4), "(32, 2, 4)"), (PPO, 4, (4, 8, 4), "(1, 8, 4)")],
    ids=["copies", "copies and what is remembered", "seeds"],
)  # fmt: skip
def test_shares_are_on_all_devices_and_learn_the_same(tmp_path, algorithm, seeds, whole, share):
    given = {"algorithm": algorithm, "seeds": seeds, "whole": whole, "steps": 512}
    assert run(tmp_path / "four.npz", 4, **given) == share
    run(tmp_path / "one.npz", 1, **given)
    with np.load(tmp_path / "four.npz", allow_pickle=False) as four, np.load(tmp_path / "one.npz") as one:
        assert set(four) == set(one)
        for name in four:
            np.testing.assert_allclose(four[name], one[name], rtol=1e-3, atol=1e-4, err_msg=name)
