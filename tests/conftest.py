"""How every test runs: strict shapes, and nothing of the user's touched.

JAX reads its own switches from the environment, and the tests are run under two of them as well (`make test-full`):
JAX_DEBUG_KEY_REUSE=1 (no random key is used twice) and JAX_ENABLE_X64=1 (no dtype depends on the default).
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from importlib.metadata import version

os.environ.setdefault("KERAS_BACKEND", "jax")
# The tests compile much and run little. Of the two ways in which XLA has written CPU code, only jaxlib 0.10 has the one
# that compiles in two thirds of the time; `make test-full` runs all of them with neither setting.
COMPILED_QUICKLY = ["--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):
    COMPILED_QUICKLY += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
os.environ.setdefault("XLA_FLAGS", " ".join(COMPILED_QUICKLY))
OWN_CACHE = "THORNDIKE_TEST_CACHE"
MADE_HERE = OWN_CACHE not in os.environ
if MADE_HERE:  # the workers of a parallel run, and commands that tests start, share one
    os.environ[OWN_CACHE] = tempfile.mkdtemp(prefix="thorndike-tests-")
os.environ["XDG_CACHE_HOME"] = os.environ[OWN_CACHE]

import jax
import pytest

from thorndike import compilation

# Before anything starts JAX's backend.
jax.config.update("jax_cpu_enable_async_dispatch", False)
compilation.cache_programs()  # as every run does: what one worker has compiled, the other and the commands need not


@pytest.fixture(autouse=True)
def _strict_ranks(request):
    """No array is silently spread over another's axes; Keras does that inside its layers."""
    before = jax.config.jax_numpy_rank_promotion
    keras = request.node.get_closest_marker("keras")
    jax.config.update("jax_numpy_rank_promotion", "allow" if keras else "raise")
    yield
    jax.config.update("jax_numpy_rank_promotion", before)


KEPT = 30  # tests whose compiled programs are kept
_ended = itertools.count(1)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
    """Let programs go now and then: some thousands of them exhaust the memory maps that Linux grants a process."""
    if next(_ended) % KEPT == 0:
        jax.clear_caches()


def pytest_unconfigure(config):
    if MADE_HERE and not hasattr(config, "workerinput"):  # not in a worker: the others may still be at work
        shutil.rmtree(os.environ[OWN_CACHE], ignore_errors=True)
