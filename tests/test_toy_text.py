"""The compiled toy text against the installed Gymnasium: every probability, reward, flag, mask, limit and argument."""

from __future__ import annotations

import inspect
import json
from functools import partial

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.envs.toy_text import blackjack
from gymnasium.envs.toy_text.frozen_lake import generate_random_map
from jax import random

import thorndike as td
from thorndike import trainer
from thorndike.environments import make, pictures, twins
from thorndike.environments.classic_control import TWINS as CLASSIC
from thorndike.environments.functional import Vectorized
from thorndike.environments.gymnasium import Gymnasium
from thorndike.environments.toy_text import TWINS, Blackjack, CliffWalking, FrozenLake, Taxi
from thorndike.errors import SettingError
from thorndike.settings import RECORDED

pytestmark = pytest.mark.skipif("Taxi-v4" not in gymnasium.registry, reason="Gymnasium before 1.3 had other arguments")

LAKE = ["FHSF", "FFHS", "SXGG"]  # S twice, two goals, a hole on the way, a letter of no meaning; 3 x 4
CASES = {
    "FrozenLake-v1": {},
    "FrozenLake8x8-v1": {},
    "CliffWalking-v1": {},
    "CliffWalkingSlippery-v1": {},
    "Taxi-v4": {},
    "FrozenLake-v1 is_slippery": {"is_slippery": False},
    "FrozenLake-v1 map_name": {"map_name": "8x8"},
    "FrozenLake8x8-v1 map_name": {"map_name": "4x4"},
    "FrozenLake-v1 success_rate": {"success_rate": 0.7},
    "FrozenLake-v1 surely": {"success_rate": 1.0},
    "FrozenLake-v1 reward_schedule": {"reward_schedule": (10, -2.5, -0.25)},
    "FrozenLake-v1 desc": {"desc": LAKE, "reward_schedule": [3, 2, 1]},
    "FrozenLake-v1 generated": {"desc": generate_random_map(6, seed=5), "map_name": None},
    "CliffWalking-v1 is_slippery": {"is_slippery": True},
    "CliffWalkingSlippery-v1 is_slippery": {"is_slippery": False},
    "Taxi-v4 is_rainy": {"is_rainy": True},
    "Taxi-v4 rainy_probability": {"is_rainy": True, "rainy_probability": 0.5},
    "Taxi-v4 dry all the same": {"rainy_probability": 0.5},
}
IDS = list(TWINS)


@pytest.mark.parametrize("case", CASES)
def test_tables_are_gymnasiums_way_by_way(case):
    id, arguments = case.split()[0], CASES[case]
    process, theirs = TWINS[id](**arguments).process, gymnasium.make(id, **arguments).unwrapped
    most = max(len(ways) for actions in theirs.P.values() for ways in actions.values())
    assert process.reward.shape == (len(theirs.P), len(theirs.P[0]), most)
    for state, actions in theirs.P.items():
        for action, ways in actions.items():
            at = state, action, slice(len(ways))
            ours = zip(*(x[at].tolist() for x in (process.probability, process.next_state, process.reward,
                                                  process.terminated)), strict=True)  # fmt: skip
            assert list(ours) == ways
            assert not process.probability[state, action, len(ways) :].any()
    np.testing.assert_array_equal(process.start_probability, theirs.initial_state_distrib)


def step_of(twin):
    """The compiled step, whose draws are ours to choose: the keys' uniform numbers decide between the ways."""
    return jax.jit(jax.vmap(twin.transition))


@pytest.mark.parametrize("id", [id for id in IDS if id != "Blackjack-v1"])
def test_steps_and_observations_are_those_of_the_tables(id):
    """Every state and action, many times: what a compiled step gives is one of Gymnasium's ways, and each is met."""
    twin, theirs = TWINS[id](), gymnasium.make(id).unwrapped
    pairs = np.array([(s, a) for s in theirs.P for a in theirs.P[s]] * (1 if id == "Taxi-v4" else 40))
    following, reward, terminated = step_of(twin)(*pairs.T, random.split(random.key(0), len(pairs)))
    seen = np.asarray(jax.jit(jax.vmap(twin.observe))(following))
    given = set(zip(*map(tuple, pairs.T.tolist()), seen.tolist(), reward.tolist(), terminated.tolist(), strict=True))
    possible = {(s, a, *way[1:]) for s, actions in theirs.P.items() for a, ways in actions.items() for way in ways}
    assert given == possible


@pytest.mark.parametrize("id", IDS)
def test_spaces_dtypes_and_time_limit_are_gymnasiums(id):
    environment, twin = gymnasium.make(id), TWINS[id]()
    assert twin.observation_space == environment.observation_space
    assert twin.action_space == environment.action_space
    assert twin.max_steps == environment.spec.max_episode_steps
    ours, host = make(id, 3), make(f"gymnasium:{id}", 3)
    assert isinstance(ours, Vectorized)
    _, one = ours.reset(random.key(0))
    _, other = host.reset(random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), one) == jax.tree.map(lambda x: (x.shape, x.dtype), other)


@pytest.mark.parametrize("id", IDS)
def test_arguments_and_their_defaults_are_gymnasiums(id):
    spec = gymnasium.spec(id)
    theirs = inspect.signature(load_env_creator(spec.entry_point)).parameters
    expected = {name: parameter.default for name, parameter in theirs.items() if name != "render_mode"} | spec.kwargs
    expected |= {"max_steps": spec.max_episode_steps} | ({"mask_from_info": False} if id == "Taxi-v4" else {})
    ours = {name: parameter.default for name, parameter in inspect.signature(TWINS[id]).parameters.items()}
    assert ours == expected


@pytest.mark.parametrize("id", CLASSIC)
def test_twins_of_classic_control_take_every_argument_but_what_draws(id):
    spec = gymnasium.spec(id)
    theirs = inspect.signature(load_env_creator(spec.entry_point)).parameters
    ours = inspect.signature(CLASSIC[id]).parameters
    expected = {name: parameter.default for name, parameter in theirs.items() if name != "render_mode"}
    assert {name: parameter.default for name, parameter in ours.items()} == expected | {
        "max_steps": spec.max_episode_steps
    }


# --- taxi -------------------------------------------------------------------------------------------------------------


class Scripted:
    """Stands in for Gymnasium's generator: its draws are given beforehand; IndexError beyond the last."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random(self):
        return self.draws.pop(0)

    def choice(self, options):
        return options[self.draws.pop(0)]


@pytest.mark.parametrize("rainy", [False, True])
def test_a_fickle_passenger_wants_to_go_elsewhere_after_the_first_move(rainy):
    """Gymnasium's own steps with every draw it can make, in every state, against the twin's tables."""
    taxi = gymnasium.make("Taxi-v4", fickle_passenger=True, is_rainy=rainy, fickle_probability=0.4).unwrapped
    twin = Taxi(fickle_passenger=True, is_rainy=rainy, fickle_probability=0.4)
    process = twin.process
    for state in range(0, 500, 3):
        for armed, action in np.ndindex(2, 6):
            expected: dict = {}
            ways = taxi.P[state][action]
            for i, (probability, *_) in enumerate(ways):
                below = sum(way[0] for way in ways[:i])
                for change in range(3):
                    taxi.s, taxi.fickle_step = state, bool(armed)
                    generator = taxi._np_random = Scripted(below + probability / 2, change)
                    following, reward, terminated, _, _ = taxi.step(action)
                    outcome = following + 500 * taxi.fickle_step, reward, terminated
                    asked = not generator.draws
                    expected[outcome] = expected.get(outcome, 0) + probability / 3
                    if not asked:
                        expected[outcome] += probability * 2 / 3
                        break
            assert found(process, state + 500 * armed, action) == pytest.approx(expected)
    first = process.start_probability.reshape(2, 500)
    np.testing.assert_allclose(first, np.outer([0.6, 0.4], taxi.initial_state_distrib))
    np.testing.assert_array_equal(process.observations, np.tile(np.arange(500), 2))
    assert twin.observation_space == taxi.observation_space


def found(process, state, action):
    """The probability of each (next state, reward, terminated) by the tables."""
    outcomes: dict = {}
    for k in np.flatnonzero(process.probability[state, action]):
        outcome = tuple(x[state, action, k].item() for x in (process.next_state, process.reward, process.terminated))
        outcomes[outcome] = outcomes.get(outcome, 0) + process.probability[state, action, k]
    return outcomes


@pytest.mark.parametrize("arguments", [{}, {"fickle_passenger": True}])
def test_taxis_masks_are_what_gymnasium_says_in_info(arguments):
    ours = make("Taxi-v4", 2, mask_from_info=True, **arguments)
    host = make("gymnasium:Taxi-v4", 2, mask_from_info=True, **arguments)
    assert isinstance(ours, Vectorized)
    assert isinstance(host, Gymnasium)
    assert ours.observation_space == host.observation_space
    assert ours.action_space == host.action_space
    described = [jax.tree.map(lambda x: (x.shape, x.dtype), world.reset(random.key(0))[1]) for world in (ours, host)]
    assert described[0] == described[1]
    taxi = gymnasium.make("Taxi-v4").unwrapped
    seen = ours.environment.process.observations
    for state in range(len(seen["observation"])):
        np.testing.assert_array_equal(seen["action_mask"][state], taxi.action_mask(state % 500))


def test_the_mask_is_asked_for_as_on_the_host_and_only_where_there_is_one():
    assert "action_mask" in make("Taxi-v4", 1, mask_from_info=True).observation_space.spaces
    assert make(Taxi, 1, mask_from_info=True) == make("Taxi-v4", 1, mask_from_info=True)
    assert make("Taxi-v4", 1, mask_from_info=False) == make("Taxi-v4", 1) == Vectorized(Taxi(), 1)
    with pytest.raises(SettingError, match="mask_from_info is for Gymnasium's environments: FrozenLake-v1 is compiled"):
        make("FrozenLake-v1", 1, mask_from_info=True)
    with pytest.warns(UserWarning, match="Taxi-v4 with render_mode runs on the host"):
        assert isinstance(make("Taxi-v4", 1, mask_from_info=True, render_mode="ansi"), Gymnasium)


# --- blackjack --------------------------------------------------------------------------------------------------------

DECK = {card: blackjack.deck.count(card) / len(blackjack.deck) for card in set(blackjack.deck)}
RULES = [{}, {"sab": False}, {"sab": False, "natural": True}, {"sab": True, "natural": True}]


class Cards(Scripted):
    """Cards that are drawn in this order, whatever deck is asked for them."""

    def choice(self, deck):
        assert deck is blackjack.deck
        return self.draws.pop(0)


def dealt(game, player, dealer, action, cards):
    """A step of Gymnasium's with these hands and cards to come; None where it draws more than there are."""
    game.player, game.dealer, game._np_random = list(player), list(dealer), Cards(*cards)
    try:
        return game.step(action)
    except IndexError:
        return None


def dealers_last_hands(game, card):
    """All that the dealer can come to have from a first card, and with what probability: by Gymnasium's own steps."""
    hands: dict = {}
    waiting = [((second,), DECK[second]) for second in DECK]
    while waiting:
        cards, probability = waiting.pop()
        if dealt(game, [10, 10], [card, cards[0]], 0, cards[1:]) is None:
            waiting += [((*cards, drawn), probability * DECK[drawn]) for drawn in DECK]
        else:
            kind = blackjack.score(game.dealer), blackjack.is_natural(game.dealer)
            _, before = hands.get(kind, (None, 0.0))
            hands[kind] = list(game.dealer), before + probability
    return list(hands.values())


@pytest.fixture(scope="module")
def last_hands():
    game = gymnasium.make("Blackjack-v1").unwrapped
    return {card: dealers_last_hands(game, card) for card in DECK}


def hands_of(total, ace, natural):
    """Cards that make a state of the player's."""
    if natural:
        return [1, 10]
    if ace:
        return [1, total - 11] if total < 21 else [1, 4, 6]
    return [2, total - 2] if total <= 12 else [10, *([total - 10] if total <= 20 else [2, total - 12])]


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_every_probability_of_blackjack_is_gymnasiums(rules, last_hands):
    game, process = gymnasium.make("Blackjack-v1", **rules).unwrapped, Blackjack(**rules).process
    totals, cards, aces = process.observations
    naturals = np.arange(process.states) >= process.states - 10
    for state in range(process.states):
        seen = totals[state], cards[state], aces[state]
        if seen[0] > 21:
            continue  # never acted in
        player, card = hands_of(seen[0], seen[2], naturals[state]), int(seen[1])
        assert blackjack.is_natural(player) == naturals[state]
        expected: dict = {}
        for dealer, probability in last_hands[card]:
            observation, reward, terminated, _, _ = dealt(game, player, dealer, 0, [])
            assert observation == seen
            expected[reward, terminated] = expected.get((reward, terminated), 0) + probability
        stick = {(reward, end): p for (to, reward, end), p in found(process, state, 0).items() if to == state}
        assert stick == pytest.approx(expected)
        expected = {}
        for drawn, probability in DECK.items():
            observation, reward, terminated, _, _ = dealt(game, player, [card, 10], 1, [drawn])
            expected[observation, reward, terminated] = expected.get((observation, reward, terminated), 0) + probability
        hit = {
            ((totals[to], cards[to], aces[to]), reward, end): p
            for (to, reward, end), p in found(process, state, 1).items()
        }
        assert hit == pytest.approx(expected)
        assert not any(naturals[to] for to, *_ in found(process, state, 1))


def test_first_hands_of_blackjack_are_dealt_as_gymnasiums():
    process = Blackjack().process
    expected = np.zeros(process.states)
    states = list(zip(*process.observations, np.arange(process.states) >= process.states - 10, strict=True))
    for (one, p), (two, q), (card, r) in ((a, b, c) for a in DECK.items() for b in DECK.items() for c in DECK.items()):
        total, ace = blackjack._hand_sum_and_usable_ace([one, two])
        expected[states.index((total, card, ace, blackjack.is_natural([one, two])))] += p * q * r
    np.testing.assert_allclose(process.start_probability, expected, atol=1e-15)


# --- whole episodes ---------------------------------------------------------------------------------------------------


def test_episodes_end_at_the_goal_in_a_hole_and_at_the_time_limit():
    """Without ice, along a row of actions: Gymnasium's flags, step by step, to the end of each kind."""
    right, down, left = 2, 1, 0
    ways = {"goal": [down, down, right, right, down, right], "hole": [right, down], "limit": [left] * 100}
    for end, actions in ways.items():
        ours, host = make("FrozenLake-v1", 1, is_slippery=False), make("gymnasium:FrozenLake-v1", 1, is_slippery=False)
        states, step = [world.reset(random.key(0))[0] for world in (ours, host)], jax.jit(ours.step)
        for t, action in enumerate(actions):
            given = jnp.array([action], jnp.int32)
            states[0], one = step(states[0], given, random.key(t))
            states[1], other = host.step(states[1], np.asarray(given), random.key(t))
            jax.tree.map(np.testing.assert_array_equal, one, other)
            last = t + 1 == len(actions)
            assert bool(one.terminated[0]) == (last and end != "limit")
            assert bool(one.truncated[0]) == (last and end == "limit")
            assert float(one.reward[0]) == (last and end == "goal")


def test_a_passenger_may_be_set_down_in_the_very_step_of_the_time_limit():
    environment = Vectorized(Taxi(max_steps=1), 2)
    env_state, _ = environment.reset(random.key(0))
    at_goal = 16 + 0  # at the first stand, the passenger in the taxi and wanting to go there
    env_state = env_state._replace(state=jnp.array([at_goal, at_goal]))
    _, outcome = jax.jit(environment.step)(env_state, jnp.array([5, 0]), random.key(1))
    assert outcome.terminated.tolist() == [True, False]
    assert outcome.truncated.tolist() == [True, True]
    assert outcome.reward.tolist() == [20, -1]


@pytest.mark.parametrize(
    ("id", "best"),
    [
        ("FrozenLake-v1", 0.74), ("FrozenLake8x8-v1", 0.91), ("CliffWalking-v1", -13), ("Taxi-v4", 7.93),
        ("Blackjack-v1", -0.043),
    ],
)  # fmt: skip
def test_the_best_return_is_what_is_known_of_it_and_the_best_policys(id, best):
    """The first two are Gymnasium's numbers, in its registration."""
    process = twins()[id]().process
    assert process.optimal_return == pytest.approx(best, abs=5e-3)
    greedy = np.eye(process.actions)[process.action_values(process.optimal_values(0.999), 0.999).argmax(1)]
    assert process.policy_return(greedy) <= process.optimal_return + 1e-12
    assert process.policy_return(greedy) == pytest.approx(best, abs=0.03)


# --- what a user gives ------------------------------------------------------------------------------------------------


def test_maps_are_taken_in_every_form_that_gymnasium_takes():
    forms = [LAKE, tuple(LAKE), [list(row) for row in LAKE], np.array(LAKE), np.array(LAKE, "c"),
             [row.encode() for row in LAKE]]  # fmt: skip
    assert {FrozenLake(desc=desc) for desc in forms} == {FrozenLake(desc=tuple(LAKE))}
    assert FrozenLake(desc=LAKE, map_name=None).process == FrozenLake(desc=LAKE).process


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"map_name": "5x5"}, "map_name must be one of '4x4', '8x8', got '5x5'"),
        ({"desc": ["SFF", "FG"]}, "desc must be rows of one length with an S"),
        ({"desc": ["FFG"]}, "desc must be rows of one length with an S"),
        ({"desc": "SFFG"}, "desc must be rows of one length with an S"),
        ({"desc": 3}, "desc must be rows of one length with an S"),
        ({"reward_schedule": (1, 0)}, "reward_schedule must be three numbers"),
        ({"reward_schedule": 1}, "reward_schedule must be three numbers"),
        ({"reward_schedule": ("a", 0, 0)}, "reward_schedule must be three numbers"),
        ({"success_rate": 1.5}, "frozen-lake: each row of probability must be probabilities"),
    ],
)
def test_what_makes_no_lake_is_refused_in_words(arguments, says):
    with pytest.raises(SettingError, match=says):
        make("FrozenLake-v1", 1, **arguments)


def test_random_maps_stay_gymnasiums():
    with pytest.warns(UserWarning, match="FrozenLake-v1 with map_name runs on the host.* it draws maps at random"):
        assert isinstance(make("FrozenLake-v1", 1, map_name=None), Gymnasium)
    assert isinstance(make("FrozenLake-v1", 1, map_name=None, desc=LAKE), Vectorized)


@pytest.mark.parametrize("id", IDS)
def test_the_states_of_toy_text_are_drawn_by_gymnasium(id):
    pytest.importorskip("pygame", reason="Gymnasium draws toy text with pygame")
    arguments = {"desc": LAKE} if id.startswith("Frozen") else {"mask_from_info": True} if id == "Taxi-v4" else {}
    stage, twin, seen = pictures.staged(id, True, arguments), make(id, 1, **arguments), []
    env_state, _ = twin.reset(jax.random.key(3))
    for state in (0, 17 if id == "Taxi-v4" else 11):
        seen.append(stage.picture(env_state._replace(state=jnp.array([state]))))
    assert (seen[0] != seen[1]).any()


@pytest.mark.parametrize(
    ("id", "arguments"), [("Taxi-v4", {"mask_from_info": True}), ("FrozenLake-v1", {"desc": LAKE})]
)
def test_runs_on_toy_text_are_compiled_and_resumed_with_their_arguments(id, arguments, tmp_path):
    algorithm = td.REINFORCE(network=td.MLP((8,)), baseline_network=None, rollout_length=16)
    td.train(
        algorithm,
        id,
        steps=128,
        environment_arguments=arguments,
        quiet=True,
        evaluate_every=0,
        run_dir=tmp_path / "run",
    )
    run = td.resume(tmp_path / "run", steps=256, quiet=True)
    assert run.evaluate(3)["episodes"] == 3
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["environment_arguments"] == arguments


def test_twins_are_one_however_they_are_asked_for():
    assert make("FrozenLake8x8-v1", 2) == make(partial(FrozenLake, map_name="8x8", max_steps=200), 2)
    assert make("CliffWalking-v1", 2, max_steps=9) == Vectorized(CliffWalking(max_steps=9), 2)
    assert hash(make("Taxi-v4", 2)) == hash(Vectorized(Taxi(), 2))
    assert isinstance(make("gymnasium:Taxi-v4", 1), Gymnasium)
    assert isinstance(Blackjack().observation_space, spaces.Tuple)


# --- recorded settings ------------------------------------------------------------------------------------------------

ENOUGH = {"FrozenLake-v1": 0.72, "FrozenLake8x8-v1": 0.87, "CliffWalking-v1": -14, "CliffWalkingSlippery-v1": -66,
          "Taxi-v4": 7.85, "Blackjack-v1": -0.05}  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize(
    ("algorithm", "id", "masked"),
    [(*key, masked) for key in RECORDED if key[1] in ENOUGH for masked in (False, True)[: 1 + (key[1] == "Taxi-v4")]],
)
def test_recorded_settings_come_near_the_exact_optimum(algorithm, id, masked):
    """The mean over seeds of what the greedy policy earns, which is computed, not played."""
    settings, arguments = RECORDED[algorithm, id], {"mask_from_info": True} if masked else {}
    learner, twin = settings.algorithm, TWINS[id](**arguments)
    copies, means = Vectorized(twin, learner.num_environments), []
    process = twin.process if twin.max_steps else TWINS[id](max_steps=2_000, **arguments).process
    for chunk in trainer.train(learner, lambda: copies, settings.steps, seeds=4, seed=20, parallel="vmap"):
        if chunk.last:
            policy = learner.policy(chunk.progress.state, 1.0, False)
            seen = jax.tree.map(jnp.asarray, process.observations)
            actions = np.asarray(learner.act(policy, seen, (), random.key(0))[0])
            means.append(process.policy_return(np.eye(process.actions)[actions]))
    assert np.mean(means) >= ENOUGH[id]
