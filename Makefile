# Everything from a fresh machine that has only Python and make: what a target needs is installed into .venv first.
#
#   make train            train DQN on CartPole-v1 until it balances the pole (make train SEED=1 for another seed)
#   make test             format, lint, types and the tests
#   make test-full        the longer proofs too
#   make test-frameworks  the tests of networks from PyTorch, Keras on every backend, Flax and Haiku, and of exports;
#                         installs these frameworks first, some 3 GB (TORCH=... names another torch to install)
#   make test-worlds      the tests of the JAX suites, Gymnax to MuJoCo Playground; installs them first, some 2 GB
#   make test-elsewhere   the tests of rollouts by Ray's actors; installs Ray first
#   make mutants          plant bugs that other libraries had, or ours might, and see a test fail for each (ARGS="17 31")
#   make faults           kills, full disks, flipped bits, broken environments and long runs; into benchmarks/results/
#   make learning         rerun the learning results in benchmarks/results/
#   make learning-long    rerun those of continuous control, many hours (make learning-long ARGS="--rows Pendulum")
#   make speed            rerun the comparison of speed with other libraries (make speed ARGS=--quick to look)
#   make minatar          PPO and DQN on MinAtar beside Rejax, compiled both (with what test-worlds installs)
#   make atari            DQN on an Atari game beside stable-baselines3, an hour (make atari ARGS="--game Breakout")
#   make deep-sea         bootstrapped DQN and DQN in Deep Sea at all of bsuite's sizes, hours (ARGS="--sizes 10 20")
#   make repeat-first     PPO with a GRU where the first of 52 cards is to be remembered, a quarter of an hour
#   make exploration      rewards for what is new, and none, where exploration is hard
#   make workers          DQN where steps are slow, in worker processes, beside stable-baselines3's
#   make sweep            a sweep beside as many seeds of one setting, in time and in programs compiled
#   make tune             settings that a search finds, beside the defaults on seeds that it has not seen
#   make networks         rerun the comparison of one network in every framework, with what test-frameworks installs
#   make ray              PPO on HalfCheetah by one, two and three of Ray's actors (ARGS=--learn: a whole run)
#   make docs             write docs/algorithms.md and a page for each algorithm, of the code
#   make clean            remove what the above have installed (runs/ and benchmarks/results/ stay)

PYTHON ?= python3
SEED ?= 0
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
FRAMEWORKS := .venv-frameworks
WORLDS := .venv-worlds
ELSEWHERE := .venv-elsewhere
# On Linux PyPI's is a build for CUDA, of gigabytes; that for CPUs is in PyTorch's own index, to which PIP_EXTRA_INDEX_URL
# can point pip (TORCH=torch==2.13.0+cpu then).
TORCH ?= torch==2.13.0
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

# Where this is set, Python compiles every file anew at every start: importing jax takes seconds longer.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train test check test-full test-frameworks test-worlds test-elsewhere faults mutants learning learning-long \
  speed minatar atari deep-sea repeat-first exploration workers sweep tune ray networks docs clean

train: $(VENV)/core
	$(BIN)/thorndike train dqn CartPole-v1 --seed $(SEED) $(ARGS)

test: check
	$(BIN)/pytest -n 2 --dist worksteal $(ARGS)

check: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The whole suite, with programs compiled as they are for users and an hour for a test, and its quick part once more in
# 64 bit and once under JAX's check that no key is used twice.
test-full: check
	XLA_FLAGS= $(BIN)/pytest -n 2 --dist worksteal -m "not faults" --timeout 3600 $(ARGS)
	JAX_ENABLE_X64=1 $(BIN)/pytest -n 2 --dist worksteal $(ARGS)
	JAX_DEBUG_KEY_REUSE=1 $(BIN)/pytest -n 2 --dist worksteal $(ARGS)

# Keras has one backend in a process.
KERAS_TESTS := tests/frameworks/test_keras_backends.py tests/frameworks/test_one_network_everywhere.py
test-frameworks: $(FRAMEWORKS)/installed
	$(FRAMEWORKS)/bin/pytest -n 2 --dist worksteal tests/frameworks tests/test_foreign_networks.py $(ARGS)
	KERAS_BACKEND=tensorflow $(FRAMEWORKS)/bin/pytest -n 2 --dist worksteal $(KERAS_TESTS) $(ARGS)
	KERAS_BACKEND=torch $(FRAMEWORKS)/bin/pytest -n 2 --dist worksteal $(KERAS_TESTS) $(ARGS)

# NAVIX is not among the suites: it brings pytest, pylint and wandb with it. Installed by hand, its tests run too.
test-worlds: $(WORLDS)/installed
	$(WORLDS)/bin/pytest -n 2 --dist worksteal tests/worlds $(ARGS)

# Not side by side: each test starts processes of its own.
test-elsewhere: $(ELSEWHERE)/installed
	$(ELSEWHERE)/bin/pytest tests/elsewhere $(ARGS)

# A test of the tests, some twenty minutes on two cores; without ARGS it writes benchmarks/results/mutants.md.
mutants: $(VENV)/dev
	$(BIN)/python tests/mutants/run.py $(ARGS)

# One process: it measures what processes hold. Programs are optimised, as they are for users.
faults: check
	XLA_FLAGS= $(BIN)/pytest -m faults tests/faults $(ARGS)

learning: $(VENV)/core
	$(BIN)/python benchmarks/learning.py $(ARGS)

learning-long: $(VENV)/environments
	$(BIN)/python benchmarks/learning.py --control --seed 0 $(ARGS)

# The other libraries are installed by the script, each into $(PEERS)/NAME.
speed: $(VENV)/environments
	$(BIN)/python benchmarks/speed.py $(ARGS)

minatar: $(WORLDS)/installed
	$(WORLDS)/bin/python benchmarks/minatar.py $(ARGS)

atari: $(VENV)/environments
	$(BIN)/python benchmarks/atari.py $(ARGS)

ray: $(ELSEWHERE)/installed
	$(ELSEWHERE)/bin/python benchmarks/ray_actors.py $(ARGS)

docs: $(VENV)/core
	$(BIN)/python docs/pages.py

deep-sea: $(VENV)/core
	$(BIN)/python benchmarks/deep_sea.py $(ARGS)

repeat-first: $(VENV)/core
	$(BIN)/python benchmarks/repeat_first.py $(ARGS)

# The picture is drawn with matplotlib, which the tests' tools bring.
exploration: $(VENV)/dev
	$(BIN)/python benchmarks/exploration.py $(ARGS)

workers: $(VENV)/core
	$(BIN)/python benchmarks/workers.py $(ARGS)

sweep: $(VENV)/core
	$(BIN)/python benchmarks/sweep.py $(ARGS)

# Optuna is among the tests' tools.
tune: $(VENV)/dev
	$(BIN)/python benchmarks/tune.py $(ARGS)

networks: $(FRAMEWORKS)/installed
	$(FRAMEWORKS)/bin/python benchmarks/networks.py $(ARGS)

$(VENV)/core: pyproject.toml | $(BIN)/python
	@echo "installing thorndike into $(VENV) (once, about a minute)"
	@$(BIN)/python $(PIP_INSTALL) -e .
	@touch $@

$(VENV)/environments: pyproject.toml | $(BIN)/python
	@echo "installing thorndike, EnvPool and MuJoCo into $(VENV) (once, a minute or two)"
	@$(BIN)/python $(PIP_INSTALL) -e ".[envpool,mujoco]"
	@touch $@ $(VENV)/core

$(VENV)/dev: pyproject.toml | $(BIN)/python
	@echo "installing thorndike and its tests' tools into $(VENV) (once, a minute or two)"
	@$(BIN)/python $(PIP_INSTALL) -e ".[dev]"
	@touch $@ $(VENV)/core

$(FRAMEWORKS)/installed: pyproject.toml tests/frameworks/requirements.txt | $(FRAMEWORKS)/bin/python
	@echo "installing thorndike, torch, TensorFlow, Flax, Haiku and ONNX Runtime into $(FRAMEWORKS) (once, some minutes)"
	@$(FRAMEWORKS)/bin/python $(PIP_INSTALL) -e ".[flax,haiku,keras]" -r tests/frameworks/requirements.txt "$(TORCH)" || \
	  { echo "the frameworks cannot be installed: pip needs a package index to take them from"; exit 1; }
	@touch $@

$(WORLDS)/installed: pyproject.toml tests/worlds/requirements.txt | $(WORLDS)/bin/python
	@echo "installing thorndike and the JAX suites into $(WORLDS) (once, some minutes)"
	@$(WORLDS)/bin/python $(PIP_INSTALL) -e ".[gymnax,pgx,jumanji,xminigrid,craftax,brax,playground,atari,envpool]" \
	  -r tests/worlds/requirements.txt || \
	  { echo "the suites cannot be installed: pip needs a package index to take them from"; exit 1; }
	@touch $@

$(ELSEWHERE)/installed: pyproject.toml | $(ELSEWHERE)/bin/python
	@echo "installing thorndike, its tests' tools and Ray into $(ELSEWHERE) (once, some minutes)"
	@$(ELSEWHERE)/bin/python $(PIP_INSTALL) -e ".[dev,ray]"
	@touch $@

%/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "thorndike needs Python 3.11 or newer; say which one to use: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $* || { rm -rf $*; exit 1; }

clean:
	rm -rf $(VENV) $(PEERS) $(FRAMEWORKS) $(WORLDS) $(ELSEWHERE) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
