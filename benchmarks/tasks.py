"""What benchmarks/speed.py measures: tasks, who takes part in each, and what each is held to."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Any

OURS, SB3, SBX, REJAX = "thorndike", "stable-baselines3", "sbx", "rejax"
CONTRIB = "sb3-contrib"  # RecurrentPPO
MEMORYLESS = "no memory"  # ours, with an MLP of the same width
LIMIT = "floating-point limit"


@dataclasses.dataclass(frozen=True)
class Aim:
    """Something that a task is held to; without a floor it is only reported."""

    against: str  # a library, the floating-point limit, or what a time is of
    floor: float | None = None
    goal: float | None = None
    unit: str = "x"  # "x": times as fast, "%": share of a rate, "s": seconds at most
    what: str = "steps_per_second"  # of a measurement; "compile" and what is in seconds should be small

    @property
    def name(self) -> str:
        compiling = "compiling, " if self.what == "compile" else ""
        return f"{compiling}{self.against}"

    def value(self, best: dict[str, dict[str, float]]) -> float | None:
        """What was reached, of the best medians by library (or limit); None where something was not measured."""
        try:
            ours = best[OURS][self.what]
            if self.unit == "s":
                return ours
            theirs = best[self.against][self.what]
        except KeyError:
            return None
        return theirs / ours if self.what == "compile" else ours / theirs * (100 if self.unit == "%" else 1)

    def verdict(self, value: float | None) -> str:
        if value is None:
            return "not measured"
        if self.floor is None or self.goal is None:
            return "reported"
        sign = -1 if self.unit == "s" else 1
        reached = [sign * value >= sign * aim for aim in (self.floor, self.goal)]
        return "goal reached" if all(reached) else "floor reached" if reached[0] else "MISSED"


@dataclasses.dataclass(frozen=True)
class Task:
    """What is measured. Steps differ by library so that each learns for some four to seven seconds."""

    name: str  # for --tasks
    title: str
    aims: tuple[Aim, ...]
    algorithm: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    ours: str = ""  # the environment's id here
    theirs: str = ""  # and elsewhere
    spaces: tuple[int, int] = (0, 0)  # numbers in an observation; actions, or their dimensions
    steps: dict[str, int] = dataclasses.field(default_factory=dict)  # by library, those of the warm-up apart
    subprocesses: bool = False  # whether copies in processes of their own are worth a try elsewhere
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Entrant:
    """Who takes turns in a task: a library in one configuration, or what else is compared."""

    library: str
    note: str
    python: str
    script: str
    job: dict[str, Any]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.library}, {self.note}" if self.note else self.library


CLEANRL = {
    "sizes": [64, 64], "num_environments": 4, "rollout_length": 128, "batch_size": 128, "epochs": 4,
    "learning_rate": 2.5e-4, "learning_rate_end": 0.0, "gamma": 0.99, "gae_lambda": 0.95, "clip_range": 0.2,
    "clip_value": True, "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5,
}  # fmt: skip
EIGHT_COPIES = CLEANRL | {"num_environments": 8, "batch_size": 256}
CONTINUOUS = CLEANRL | {
    "num_environments": 8, "rollout_length": 256, "batch_size": 64, "epochs": 10, "learning_rate": 3e-4, "ent_coef": 0.0
}  # fmt: skip
DQN = {
    "sizes": [64, 64], "num_environments": 1, "rollout_length": 1, "updates_per_rollout": 1, "batch_size": 128,
    "capacity": 10_000, "warmup_steps": 128, "learning_rate": 2.5e-4, "gamma": 0.99, "target_period": 500,
    "epsilon_start": 1.0, "epsilon_end": 0.05, "exploration_fraction": 0.5, "max_grad_norm": 10.0,
}  # fmt: skip
SAC = {
    "sizes": [256, 256], "num_environments": 1, "rollout_length": 1, "updates_per_rollout": 1, "batch_size": 256,
    "capacity": 100_000, "warmup_steps": 256, "learning_rate": 3e-4, "gamma": 0.99, "tau": 0.005,
}  # fmt: skip
TD3 = {
    "sizes": [400, 300], "num_environments": 1, "batch_size": 100, "policy_delay": 2, "capacity": 100_000,
    "warmup_steps": 256, "learning_rate": 1e-3, "gamma": 0.99, "tau": 0.005, "exploration_noise": 0.1,
    "target_noise": 0.2, "target_noise_clip": 0.5,
}  # fmt: skip
RECURRENT = EIGHT_COPIES | {"sizes": [64]}  # a layer of 64 behind a cell of 64, in actor and critic
IMAGES = {"image": True, "sizes": [512]}  # the network of Mnih et al. (2015)
PPO_IMAGES = EIGHT_COPIES | IMAGES | {"rollout_length": 32, "batch_size": 64}
DQN_IMAGES = DQN | IMAGES | {"batch_size": 32, "rollout_length": 4, "capacity": 5_000, "learning_rate": 1e-4}

# What explains a goal that is missed; docs/performance.md has more.
SMALL_CALLS = (
    "Why not faster: at 2x64 the matrix products are a third to a half of the time. The rest is small calls of XLA, "
    "hundreds an iteration at one to ten microseconds each; on two threads the second one is woken for them in vain"
)
SAME_PRODUCTS = (
    "Why not faster: more than half of the time goes into the matrix products, for which XLA and torch take "
    "about as many core-seconds; three times torch would be more than these cores can multiply"
)
ON_GYMNASIUM = "stable-baselines3 and SBX play on Gymnasium's own environment: they have none that compiles"
SBX_PPO = "SBX: does not clip the value's step; clips the gradients of actor and critic each for itself"
REJAX_PPO = (
    "Rejax: clips every element of the gradients instead of their norm; bootstraps nothing where an episode is cut "
    "short, which spares it a value of each next observation"
)

TASKS = [
    Task(
        "ppo-cartpole",
        "PPO CartPole, compiled, CleanRL's settings (4 x 128, 4 minibatches of 128, 4 epochs, separate 2x64 tanh)",
        (
            Aim(SB3, 10, 14),
            Aim(REJAX, 1, 1.5),
            Aim(REJAX, 2, 2, what="compile"),
            Aim(SBX),
            Aim(LIMIT, unit="%"),
        ),
        "ppo", CLEANRL, "CartPole-v1", "CartPole-v1", (4, 2),
        {OURS: 400_000, SB3: 20_000, SBX: 20_000, REJAX: 400_000},
        notes=(
            ON_GYMNASIUM,
            SBX_PPO,
            REJAX_PPO,
            SMALL_CALLS,
            "On one thread a minibatch takes some 110 microseconds, of which 80 are matrix products and 11 tanh: half "
            "as fast again as Rejax is out of reach for these kernels",
            "Compiling: of ours, a third is the program that makes the first state, which Rejax has in its only one; "
            "the rest is mostly XLA's generator of kernels, five milliseconds for each of some 180",
        ),
    ),
    Task(
        "dqn-cartpole",
        "DQN CartPole, compiled, 2x64 ReLU, batch 128, one update a step, one environment",
        (Aim(SB3, 8, 12), Aim(REJAX, 4, 4), Aim(SBX), Aim(LIMIT, unit="%")),
        "dqn", DQN, "CartPole-v1", "CartPole-v1", (4, 2),
        {OURS: 32_000, SB3: 2_500, SBX: 3_000, REJAX: 16_000},
        notes=(
            ON_GYMNASIUM,
            "SBX: does not clip gradients",
            SMALL_CALLS,
            "Four times Rejax is the floating-point limit itself, give or take a tenth: nothing but matrix products",
            "Rejax: squared instead of Huber loss; clips every element of the gradients instead of their norm; draws "
            "batches without replacement",
        ),
    ),
    Task(
        "dqn-memory",
        "DQN CartPole as above, with a memory of 100,000 steps instead of 10,000",
        (Aim(REJAX), Aim(LIMIT, unit="%")),
        "dqn", DQN | {"capacity": 100_000}, "CartPole-v1", "CartPole-v1", (4, 2),
        {OURS: 24_000, REJAX: 3_000},
        notes=("Rejax: draws batches without replacement, for which it goes through the whole memory at every update",),
    ),
    Task(
        "ppo-gymnasium",
        "PPO gymnasium:CartPole-v1, 8 copies x 128, minibatches of 256, 4 epochs, separate 2x64 tanh",
        (Aim(SB3, 2, 3), Aim(SBX), Aim(LIMIT, unit="%")),
        "ppo", EIGHT_COPIES, "gymnasium:CartPole-v1", "CartPole-v1", (4, 2),
        {OURS: 100_000, SB3: 32_000, SBX: 32_000},
        notes=(SBX_PPO,),
    ),
    *(
        Task(
            f"ppo-{name}",
            f"PPO CartPole, compiled, with {title} of 64 and a layer of 64 behind it in actor and critic, 8 copies x "
            "128, minibatches of 256 in sequences of 16, 4 epochs; beside the same without memory, 2x64 tanh",
            aims,
            "ppo", RECURRENT | {"recurrent": kind}, "CartPole-v1", "CartPole-v1", (4, 2),
            {OURS: 50_000, MEMORYLESS: 200_000} | steps,
            notes=(why,),
        )
        for name, title, kind, aims, steps, why in (
            (
                "lstm", "an LSTM", "LSTM", (Aim(CONTRIB, 10, 10), Aim(MEMORYLESS, 25, 25, unit="%")), {CONTRIB: 4_000},
                "Why not faster: with the LSTM a step multiplies 4.8 times as many numbers as without, so that 21 % of "
                "the rate is what the same arithmetic gives; its products are small, one step after the other",
            ),
            (
                "mingru", "a linear recurrence", "MinGRU", (Aim(MEMORYLESS, 50, 50, unit="%"),), {},
                "Why not faster: gates and recurrence are a third of an update; without them it would still take 1.6 "
                "times as long as the update without memory",
            ),
        )
    ),
    Task(
        "sac-pendulum",
        "SAC Pendulum, compiled, 2x256 ReLU, batch 256, one update a step, learned temperature, capacity 100,000",
        (Aim(SB3, 2.2, 3), Aim(SBX, 1.1, 1.4), Aim(REJAX), Aim(LIMIT, 65, 85, unit="%")),
        "sac", SAC, "Pendulum-v1", "Pendulum-v1", (3, 1),
        {OURS: 800, SB3: 220, SBX: 450, REJAX: 500},
        notes=(
            ON_GYMNASIUM,
            "Rejax: draws batches without replacement; an episode cut short counts as terminated",
            "Why not faster: of the two threads' time two fifths are matrix products and a fifth is Adam, targets and "
            "other work element by element; the rest is waiting for each other between the small ones of these calls",
        ),
    ),
    Task(
        "ppo-halfcheetah",
        "PPO HalfCheetah-v5, 8 copies x 256 (ours on envpool:HalfCheetah-v5, the others on Gymnasium's), minibatches "
        "of 64, 10 epochs, separate 2x64 tanh",
        (Aim(SB3, 2.5, 2.5), Aim(SBX), Aim(LIMIT, unit="%")),
        "ppo", CONTINUOUS, "envpool:HalfCheetah-v5", "HalfCheetah-v5", (17, 6),
        {OURS: 60_000, SB3: 10_000, SBX: 10_000},
        subprocesses=True,
        notes=("Neither observations nor rewards are normalised, by anyone", SBX_PPO),
    ),
    Task(
        "td3-halfcheetah",
        "TD3 HalfCheetah-v5 (ours on envpool:HalfCheetah-v5, the others on Gymnasium's), 400-300 ReLU, batch 100, one "
        "step of the critics a step, policy delay 2",
        (Aim(SB3, 2, 2), Aim(SBX), Aim(LIMIT, unit="%")),
        "td3", TD3, "envpool:HalfCheetah-v5", "HalfCheetah-v5", (17, 6),
        {OURS: 1_000, SB3: 500, SBX: 800},
        notes=(
            "SBX: the targets follow at every step of the critics, not at every second",
            "Why not faster: learning takes four fifths of the time, and three quarters of that are XLA's products of "
            "these layers on 100 rows, at 60 to 80 % of the rate that the quickest library has for each alone",
        ),
    ),
    Task(
        "ppo-images",
        "PPO on 84x84x4 images (entrants/catch.py, on Gymnasium), 8 copies x 32, minibatches of 64, 4 epochs, "
        "actor and critic with convolutions of their own (Mnih et al., 2015)",
        (Aim(SB3, 3, 3),),
        "ppo", PPO_IMAGES, "catch:Catch-v0", "catch:Catch-v0",
        steps={OURS: 2_560, SB3: 2_560},
        notes=(SAME_PRODUCTS,),
    ),
    Task(
        "dqn-images",
        "DQN on 84x84x4 images (entrants/catch.py, on Gymnasium), convolutions (Mnih et al., 2015), batch 32, "
        "one update every four steps",
        (Aim(SB3, 3, 3),),
        "dqn", DQN_IMAGES, "catch:Catch-v0", "catch:Catch-v0",
        steps={OURS: 800, SB3: 800},
        notes=(SAME_PRODUCTS,),
    ),
    Task(
        "dqn-seeds",
        "Four DQN seeds side by side, all their steps counted, over one seed alone, by the clock on the wall",
        (Aim("one seed", 1.6, 1.9, what="wall_rate"), Aim("one seed on one XLA thread", what="wall_rate")),
        "dqn", DQN, "CartPole-v1", steps={OURS: 24_000},
    ),
    Task(
        "cold-start",
        "From the shell to the summary: thorndike train ppo CartPole-v1 --steps 100_000",
        (
            Aim("first time, nothing compiled yet", 15, 15, unit="s", what="first"),
            Aim("again, compiled programs kept", 7, 7, unit="s", what="again"),
        ),
    ),
]  # fmt: skip
COMMAND = ["train", "ppo", "CartPole-v1", "--steps", "100_000"]


def entrants(task: Task, pythons: dict[str, str], share: float) -> list[Entrant]:
    """Who takes turns: every library in each configuration that may be its best."""
    ours = {"python": sys.executable, "script": "run_thorndike.py"}
    if task.name == "cold-start":
        return [Entrant(OURS, "", sys.executable, "run_command.py", {"arguments": COMMAND})]
    if task.name == "dqn-seeds":
        one = job(task, OURS, share)
        four, alone = Entrant(OURS, "4 seeds", **ours, job=one | {"seeds": 4}), Entrant("one seed", "", **ours, job=one)
        quicker = dataclasses.replace(alone, library="one seed on one XLA thread", environment={"NPROC": "1"})
        return [four, alone, quicker]
    jobs = {library: job(task, library, share) for library in task.steps}
    chosen = [Entrant(OURS, "", **ours, job=jobs[OURS])]
    if MEMORYLESS in jobs:
        plain = {name: value for name, value in task.settings.items() if name != "recurrent"} | {"sizes": [64, 64]}
        chosen.append(Entrant(MEMORYLESS, "", **ours, job=jobs[MEMORYLESS] | {"settings": plain}))
    threads = sorted({1, min(2, os.cpu_count() or 1), os.cpu_count() or 1})
    baselines = {"script": "run_baselines.py"}
    chosen += [
        Entrant(library, f"torch threads {n}", pythons[SB3], **baselines, job=jobs[library] | {"threads": n})
        for library in (SB3, CONTRIB)
        if library in jobs
        for n in threads
    ]
    if SB3 in jobs and task.subprocesses:
        apart = jobs[SB3] | {"threads": 1, "subprocesses": True}
        chosen.append(Entrant(SB3, "torch threads 1, copies in processes", pythons[SB3], **baselines, job=apart))
    for library, script in ((SBX, "run_baselines.py"), (REJAX, "run_rejax.py")):
        if library in jobs:
            chosen.append(Entrant(library, "", pythons[library], script, jobs[library]))
    # What JAX takes all cores for may be quicker on one; ours is tried so where nothing else takes its time.
    alone = (SBX, REJAX) if ":" in task.ours else (OURS, MEMORYLESS, SBX, REJAX)
    return chosen + [
        dataclasses.replace(entrant, note="XLA threads 1", environment={"NPROC": "1"})
        for entrant in chosen
        if entrant.library in alone
    ]


def job(task: Task, library: str, share: float) -> dict[str, Any]:
    """What a script is given."""
    common = {"library": library, "algorithm": task.algorithm, "settings": task.settings}
    return common | {"ours": task.ours, "theirs": task.theirs, "steps": int(task.steps[library] * share)}
