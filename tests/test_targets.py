"""Returns and advantages, held against their definitions: sums over all later steps, in float64, without recursion."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thorndike.core import Transition
from thorndike.sequences import first
from thorndike.targets import (
    discounted_returns,
    generalized_advantages,
    lambda_returns,
    n_step,
    signed_hyperbolic,
    signed_parabolic,
    v_trace,
)

LONGEST, WIDEST = 40, 5
FIELDS = ("values", "next_values", "reward", "terminated", "truncated")


def n_step_return(case, t, n, steps):
    """r_t + gamma r_(t+1) + ... + gamma^(steps-1) r, then gamma^steps V of where that led, unless it terminated."""
    last = t + steps - 1
    rewards = sum(case["gamma"] ** i * case["reward"][t + i, n] for i in range(steps))
    return rewards + case["gamma"] ** steps * (not case["terminated"][last, n]) * case["next_values"][last, n]


def horizon(case, t, n):
    """How many steps from t on belong to one sum: up to an end of an episode or of the rollout."""
    done = (case["terminated"] | case["truncated"])[t:, n]
    return int(np.argmax(done)) + 1 if done.any() else len(done)


def lambda_return(case, t, n):
    """The average of all n-step returns, with weights (1 - lambda) lambda^(n-1) and the rest on the last."""
    lam, last = case["gae_lambda"], horizon(case, t, n)
    partial_returns = sum((1 - lam) * lam ** (k - 1) * n_step_return(case, t, n, k) for k in range(1, last))
    return partial_returns + lam ** (last - 1) * n_step_return(case, t, n, last)


def monte_carlo(case, t, n):
    return n_step_return(case, t, n, horizon(case, t, n))


def by_definition(formula, case):
    shape = case["reward"].shape
    return np.array([[formula(case, t, n) for n in range(shape[1])] for t in range(shape[0])])


def computed(case, dtype=np.float32):
    """(discounted returns, lambda-returns, advantages) of a case, one compiled shape for all.

    A case is padded in front: nothing flows from earlier steps to later ones.
    """
    length, n = case["reward"].shape
    pad = ((LONGEST - length, 0), (0, WIDEST - n))
    arrays = [np.pad(case[name], pad) for name in FIELDS]
    arrays = [x if x.dtype == bool else x.astype(dtype) for x in arrays]
    results = _all(*arrays, dtype(case["gamma"]), dtype(case["gae_lambda"]))
    return [np.asarray(x)[LONGEST - length :, :n] for x in results]


@jax.jit
def _all(values, next_values, reward, terminated, truncated, gamma, gae_lambda):
    flags = terminated, truncated
    return (
        discounted_returns(reward, *flags, next_values, gamma),
        lambda_returns(next_values, reward, *flags, gamma, gae_lambda),
        generalized_advantages(values, next_values, reward, *flags, gamma, gae_lambda),
    )


@st.composite
def cases(draw):
    length, n = draw(st.integers(1, LONGEST)), draw(st.integers(1, WIDEST))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.sampled_from([0.0, 0.05, 0.3, 1.0]))  # of steps that end something: seldom, often, always
    flags = {name: rng.random((length, n)) < share * rng.random() for name in ("terminated", "truncated")}
    numbers = {name: rng.normal(size=(length, n)) for name in ("values", "next_values", "reward")}
    goes_on = ~(flags["terminated"] | flags["truncated"])[:-1]  # there both are the value of one observation
    numbers["next_values"][:-1][goes_on] = numbers["values"][1:][goes_on]
    unit = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
    return numbers | flags | {"gamma": draw(unit), "gae_lambda": draw(unit)}


def assert_close(found, expected, tolerance):
    scale = max(1.0, np.abs(expected).max())
    assert np.abs(found - expected).max() <= tolerance * scale


def rounded(case):
    """The case in the numbers that float32 sees."""
    return {name: x if np.asarray(x).dtype == bool else np.float64(np.float32(x)) for name, x in case.items()}


@settings(max_examples=500, deadline=None)
@given(cases())
def test_every_target_is_its_definition(case):
    case = rounded(case)
    returns, lambdas, advantages = computed(case)
    expected = by_definition(lambda_return, case)
    assert_close(returns, by_definition(monte_carlo, case), 1e-5)
    assert_close(lambdas, expected, 1e-5)
    assert_close(advantages, expected - case["values"], 1e-5)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_every_target_is_its_definition_to_twelve_digits_in_float64(case):
    with jax.enable_x64(True):
        returns, lambdas, advantages = computed(case, np.float64)
    assert returns.dtype == np.float64
    expected = by_definition(lambda_return, case)
    assert_close(returns, by_definition(monte_carlo, case), 1e-12)
    assert_close(lambdas, expected, 1e-12)
    assert_close(advantages, expected - case["values"], 1e-12)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_lambda_0_is_the_one_step_target_and_lambda_1_monte_carlo(case):
    case = rounded(case)
    _, lambdas, advantages = computed(case | {"gae_lambda": 0.0})
    one_step = case["reward"] + case["gamma"] * ~case["terminated"] * case["next_values"]
    assert_close(lambdas, one_step, 1e-6)
    assert_close(advantages, one_step - case["values"], 1e-6)
    returns, lambdas, advantages = computed(case | {"gae_lambda": 1.0})
    np.testing.assert_array_equal(lambdas, returns)
    assert_close(advantages, returns - case["values"], 1e-5)


@settings(max_examples=200, deadline=None)
@given(cases(), st.integers(0, LONGEST))
def test_a_rollout_cut_in_two_gives_the_same_as_the_whole(case, cut):
    """Where the cut part's last step went on, what comes after it is the second part's target, mixed in by lambda."""
    cut = min(cut, len(case["reward"]))
    whole = computed(case)
    late = (
        computed({name: x[cut:] if name in FIELDS else x for name, x in case.items()}) if cut < len(whole[0]) else None
    )
    if late is not None:
        for found, expected in zip(late, whole, strict=True):
            np.testing.assert_array_equal(found, expected[cut:])
    if cut == 0 or late is None:
        return
    for which, lam in ((0, 1.0), (1, case["gae_lambda"]), (2, case["gae_lambda"])):
        early = {name: x[:cut].copy() if name in FIELDS else x for name, x in case.items()}
        goes_on = ~(early["terminated"] | early["truncated"])[-1]
        later = late[min(which, 1)][0]
        bootstrap = (1 - lam) * early["next_values"][-1] + lam * later
        early["next_values"][-1] = np.where(goes_on, bootstrap, early["next_values"][-1])
        assert_close(computed(early)[which], whole[which][:cut], 1e-5)


def v_trace_target(case, t, n):
    """Espeholt et al. (2018), equation 1: V(x_s) + sum over t of gamma^(t-s) (product of c_i, s <= i < t) delta_t."""
    total, product = case["values"][t, n], 1.0
    for k in range(t, t + horizon(case, t, n)):
        ratio = np.exp(case["log_ratio"][k, n])
        following = case["gamma"] * (not case["terminated"][k, n]) * case["next_values"][k, n]
        delta = min(case["rho_bar"], ratio) * (case["reward"][k, n] + following - case["values"][k, n])
        total += case["gamma"] ** (k - t) * product * delta
        product *= case["gae_lambda"] * min(case["c_bar"], ratio)
    return total


def v_trace_advantage(case, t, n):
    """Section 4.2: rho_s (r_s + gamma v_(s+1) - V(x_s)), v of the next step where there is one in the rollout."""
    last = horizon(case, t, n) == 1
    following = case["next_values"][t, n] if last else v_trace_target(case, t + 1, n)
    target = case["reward"][t, n] + case["gamma"] * (not case["terminated"][t, n]) * following
    return min(case["rho_bar"], np.exp(case["log_ratio"][t, n])) * (target - case["values"][t, n])


@jax.jit
def _v_trace(arrays, *numbers):
    return v_trace(*arrays, *numbers)


def traced(case, dtype=np.float32):
    length, n = case["reward"].shape
    pad = ((LONGEST - length, 0), (0, WIDEST - n))
    arrays = [np.pad(case[name], pad) for name in (*FIELDS, "log_ratio")]
    arrays = [x if x.dtype == bool else x.astype(dtype) for x in arrays]
    numbers = [dtype(case[name]) for name in ("gamma", "gae_lambda", "rho_bar", "c_bar")]
    return [np.asarray(x)[LONGEST - length :, :n] for x in _v_trace(arrays, *numbers)]


@st.composite
def off_policy_cases(draw):
    case = draw(cases())
    ratio = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).normal(0, 0.5, case["reward"].shape)
    bound = st.sampled_from([0.5, 1.0, 2.0, np.inf])
    return case | {"log_ratio": ratio, "rho_bar": draw(bound), "c_bar": draw(st.sampled_from([0.0, 0.5, 1.0]))}


@settings(max_examples=200, deadline=None)
@given(off_policy_cases())
def test_v_trace_is_its_definition(case):
    case = rounded(case)
    targets, advantages = traced(case)
    assert_close(targets, by_definition(v_trace_target, case), 1e-5)
    assert_close(advantages, by_definition(v_trace_advantage, case), 1e-5)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_v_trace_of_the_policy_that_acted_is_the_n_step_bellman_target(case):
    """Equation 2, and lambda-returns where lambda is less than 1; the advantages are of one step more."""
    case = rounded(case) | {"rho_bar": 1.0, "c_bar": 1.0, "log_ratio": np.zeros_like(case["reward"])}
    assert_close(traced(case | {"gae_lambda": 1.0})[0], by_definition(monte_carlo, case), 1e-5)
    assert_close(traced(case)[0], by_definition(lambda_return, case), 1e-5)


def test_v_trace_of_two_steps_worked_out_by_hand():
    """gamma 1/2, r = 1, V = 2, V' = 2, ratios 1/2 and 4 (so rho = c = 1/2 and 1): delta_1 = 1 + 1 - 2 = 0, so v_1 = 2;
    delta_0 = 1/2 (1 + 1 - 2) = 0. With r_1 = 3: delta_1 = 2, v_1 = 4, v_0 = 2 + 1/2 1/2 2 = 2.5,
    and the advantages 1/2 (1 + 1/2 4 - 2) = 1/2 and 3 + 1 - 2 = 2."""
    one, flag = jnp.ones((2, 1)), jnp.zeros((2, 1), bool)
    log_ratio = jnp.log(jnp.array([[0.5], [4.0]]))
    for last, expected in ((1.0, [[2, 2], [0, 0]]), (3.0, [[2.5, 4], [0.5, 2]])):
        reward = one.at[1].set(last)
        found = v_trace(2 * one, 2 * one, reward, flag, flag, log_ratio, 0.5, 1.0, 1.0, 1.0)
        np.testing.assert_allclose(jnp.concatenate(found, 1).T, expected, rtol=1e-6)


def test_advantages_of_three_steps_worked_out_by_hand():
    """gamma 1/2, lambda 1/2, r = 1, V = 2, V' = 4, a truncation after the second step:
    delta = 1 + 2 - 2 = 1; A_2 = 1, A_1 = 1 (cut), A_0 = 1 + 1/4."""
    reward, flag = jnp.ones((3, 1)), jnp.zeros((3, 1), bool)
    truncated = flag.at[1].set(True)
    advantages = generalized_advantages(2 * reward, 4 * reward, reward, flag, truncated, 0.5, 0.5)
    np.testing.assert_array_equal(advantages[:, 0], [1.25, 1, 1])
    # The same step a termination: delta_1 = 1 - 2 = -1.
    advantages = generalized_advantages(2 * reward, 4 * reward, reward, truncated, truncated, 0.5, 0.5)
    np.testing.assert_array_equal(advantages[:, 0], [0.75, -1, 1])


def test_a_single_step_is_a_rollout_too():
    reward, flag = jnp.ones((1, 2)), jnp.array([[True, False]])
    np.testing.assert_array_equal(discounted_returns(reward, flag, ~flag, 4 * reward, 0.5), [[1, 3]])


def windows(n, seed, share, batch=200):
    """Random windows [n, B], the observations saying which step they are: [time, copy]."""
    rng = np.random.default_rng(seed)
    terminated, truncated = (rng.random((n, batch)) < share for _ in range(2))
    time, copy = np.meshgrid(np.arange(n), np.arange(batch), indexing="ij")
    place = np.stack([time, copy], -1).astype(np.float32)
    following = {"place": place + np.float32([0.5, 0]), "image": (7 * time + copy).astype(np.uint8)}
    reward = rng.normal(size=(n, batch)).astype(np.float32)
    return Transition({"place": place}, copy, reward, terminated, truncated, following, {"log_prob": reward})


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_n_step_windows_stop_at_the_first_end_of_an_episode(n, gamma):
    compiled = jax.jit(lambda window: first(n_step(window, gamma, n)))
    for seed, share in enumerate((0.0, 0.2, 0.6)):
        window = windows(n, seed, share)
        case = window._asdict() | {"gamma": gamma, "next_values": np.ones_like(window.reward)}
        step = jax.tree.map(np.asarray, compiled(window))
        for b in range(window.reward.shape[1]):
            steps = horizon(case, 0, b)
            value_part = gamma**steps * (not window.terminated[steps - 1, b])
            np.testing.assert_allclose(step.reward[b], n_step_return(case, 0, b, steps) - value_part, atol=2e-6)
            np.testing.assert_allclose(step.discount[b], value_part, rtol=1e-6)
            np.testing.assert_array_equal(step.next_observation["place"][b], [steps - 0.5, b])
            assert step.next_observation["image"][b] == np.uint8(7 * (steps - 1) + b)
        np.testing.assert_array_equal(step.observation["place"], window.observation["place"][0])
        np.testing.assert_array_equal(step.action, window.action[0])
        assert step.next_observation["image"].dtype == jnp.uint8
        assert step.reward.shape == step.discount.shape == (200,)


@pytest.mark.parametrize("n", [1, 3, 5])
def test_the_returns_of_all_steps_of_a_window_are_those_of_the_windows_that_begin_with_them(n):
    window = windows(5, seed=1, share=0.2)
    every = jax.jit(partial(n_step, gamma=0.9, n=n))(window)
    one = jax.jit(lambda window: first(n_step(window, 0.9, n)))
    for t in range(5 - n + 1):
        alone = one(jax.tree.map(lambda x, t=t: x[t : t + n], window._replace(extras={})))
        for x, y in zip(jax.tree.leaves(every), jax.tree.leaves(alone), strict=True):
            assert x.shape[0] == 5 - n + 1
            np.testing.assert_array_equal(x[t], y)


def test_values_are_rescaled_as_the_paper_says_and_back_to_the_last_digits():
    """Pohlen et al. (2018), proposition A.2, in float64."""
    epsilon = 1e-3
    x = np.concatenate([-np.logspace(-6, 6, 40), [0], np.logspace(-6, 6, 40)]).astype(np.float32)
    exact = x.astype(float)
    hyperbolic = np.sign(exact) * (np.sqrt(np.abs(exact) + 1) - 1) + epsilon * exact
    root = (np.sqrt(1 + 4 * epsilon * (np.abs(exact) + 1 + epsilon)) - 1) / (2 * epsilon)
    np.testing.assert_allclose(signed_hyperbolic(x), hyperbolic, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(signed_parabolic(x), np.sign(exact) * (root**2 - 1), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(signed_parabolic(signed_hyperbolic(x)), x, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(signed_hyperbolic)(0.0), 0.5 + epsilon, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(signed_parabolic)(0.0), 1 / (0.5 + epsilon), rtol=1e-6)
