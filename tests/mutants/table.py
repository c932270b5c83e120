"""The mutants: bugs that other libraries of this field really had, planted in ours by changing one piece of text each.

Bugs 1 to 40 are the core. Where a bug cannot be planted, `reason` says why. SURVIVORS are changes of our own code that
its tests once did not see.
"""

from __future__ import annotations

from typing import NamedTuple

CORE = 40


class Mutant(NamedTuple):
    """A change of the package: `old`, which stands once in `path`, becomes `new`; some test of `tests` must fail."""

    path: str  # below src/thorndike
    old: str
    new: str
    tests: str  # ids below tests/, separated by spaces


class Bug(NamedTuple):
    number: int
    where: str  # it was found: a project's issue or commit
    what: str
    mutants: tuple[Mutant, ...] = ()
    reason: str = ""  # there are no mutants


# Tests that several mutants are met by.
LOOPS = "test_training.py::test_the_compiled_and_the_host_loop_are_the_same_run"
RESUMED = "test_training.py::test_a_run_resumed_in_the_middle_ends_where_the_uninterrupted_one_does"
TRUE_SUCCESSOR = "::test_next_observation_is_what_the_action_led_to_and_never_a_reset"
COMPILED_SUCCESSOR, HOST_SUCCESSOR = f"test_functional.py{TRUE_SUCCESSOR}", f"test_gymnasium.py{TRUE_SUCCESSOR}"
LIMIT = "test_functional.py::test_truncation_comes_at_the_limit_alone_whether_or_not_the_task_ended"
N_STEP = "test_targets.py::test_n_step_windows_stop_at_the_first_end_of_an_episode"
THREE_STEPS = "test_targets.py::test_advantages_of_three_steps_worked_out_by_hand"
ONE_STEP = "test_targets.py::test_a_single_step_is_a_rollout_too"
ROLLOUT = "test_ppo.py::test_a_rollouts_targets_are_lambda_returns_and_its_advantages_what_those_are_above_the_values"
ACTED_AND_LEARNED = (
    "test_recurrent_algorithms.py::test_the_log_probabilities_that_ppo_learns_from_are_those_acted_with_and_targets_see_"
    "the_carry_after_a_step"
)
OWN_LOSSES = "test_ppo.py::test_reinforces_policy_and_baseline_learn_from_losses_of_their_own"
PPO_LOSS = "test_ppo.py::test_the_loss_is_its_definition"
SAC_LOSS = "test_continuous_control.py::test_sac_is_its_definition_on_every_combination_of_ends"
DQN_LOSS = "test_dqn.py::test_loss_is_its_definition_on_every_combination_of_ends"
DQN_WEIGHTS = "test_dqn.py::test_doubling_one_weight_adds_exactly_that_samples_gradient"
WEIGHTS = "test_continuous_control.py::test_doubling_one_weight_doubles_that_samples_part_of_the_loss"
HARD_COPY = "test_dqn.py::test_target_network_is_the_online_one_of_the_last_period_in_every_leaf"
SLOW_COPY = "test_continuous_control.py::test_targets_follow_slowly_in_every_leaf_and_share_no_buffer"
REPLAY = "test_memories.py::test_replay_gives_back_what_happened"
FRAMES = "test_frames.py::test_what_is_drawn_of_frames_is_what_is_drawn_of_whole_images"
PRIORITIES = "test_memories.py::test_prioritized_gives_back_what_happened_and_knows_every_priority"
NEW_WINDOW = "test_memories.py::test_a_new_window_gets_the_highest_priority_so_far_with_the_exponent_applied_once"
AS_ACTED = "test_normalization.py::test_a_trajectory_is_normalised_as_it_was_acted_and_known_afterwards"
COUNT = "test_normalization.py::test_the_count_goes_on_where_float32_and_int32_stop"
DQN_RATE = "test_dqn.py::test_the_learning_rate_scales_the_step_and_falls_linearly_to_its_end"
RATE = "test_the_learning_rate_falls_linearly_to_its_end"
KEYS = "test_training.py::test_an_iteration_acts_with_keys_of_the_runs_key_and_its_own_number"
GREEDY = "test_evaluation.py::test_every_episode_is_greedy_and_another_one"
STATISTICS = "test_evaluation.py::test_statistics_over_seeds_are_their_definitions"
COUNTED = "test_gymnasium.py::test_the_returns_that_are_counted_are_those_that_the_environment_sums"
SAME_KEY = "test_gymnasium.py::test_the_same_key_gives_the_same_run_and_another_key_another"
HANDED_OUT = "test_agents.py::test_the_network_handed_out_acts_like_the_agent_on_raw_observations"
BEST = "test_distributional.py::test_the_best_action_is_that_of_the_best_mean"
RAINBOW = "test_distributional.py::test_rainbow_has_six_parts_and_is_without_one_still_rainbow"
ONE_CG_STEP = (
    "test_trpo.py::test_one_step_of_the_conjugate_gradient_is_along_the_gradient_and_the_longest_of_the_search_that_"
    "fits_is_taken"
)
IN_A_ROW = "test_recurrent_algorithms.py::test_a_memory_learns_from_rollouts_in_sequences_or_from_the_whole"
KNOWN_TO_IMPALA = "test_impala.py::test_every_step_is_known_once_and_windows_are_normalised_by_what_is_known"
DROPOUT = (
    "test_soft_critics.py::test_dropout_leaves_out_that_share_of_sums_for_each_critic_by_itself_and_keeps_their_mean"
)

BUGS = [
    # --- episode ends, truncation, autoreset --------------------------------------------------------------------------
    Bug(
        1, "stable-baselines3#934", "the successor of a truncated step is the next episode's first observation",
        (
            Mutant(
                "unrolls/compiled.py",
                "            outcome.next_observation, extras,",
                "            outcome.observation, extras,",
                f"{LOOPS}[dqn]",
            ),
            Mutant(
                "unrolls/host.py",
                "outcome.truncated, outcome.next_observation)",
                "outcome.truncated, outcome.observation)",
                f"{LOOPS}[dqn]",
            ),
            Mutant(
                "memories/frames.py",
                "after[:-1]])).all(range(2, before.ndim))",
                "after[:-1]])).all(range(2, before.ndim)) | True",
                f"{FRAMES}[colours]",
            ),
        ),
    ),
    Bug(
        2, "cleanrl#460, lerobot#918", "the final observation is ignored, or a slot that was never written is read",
        (
            Mutant(
                "environments/functional.py",
                "terminated, truncated, reached[1])",
                "terminated, truncated, observation)",
                COMPILED_SUCCESSOR,
            ),
            Mutant(
                "environments/gymnasium.py",
                "Step(self._observation, reward, terminated, truncated, following)",
                "Step(self._observation, reward, terminated, truncated, self._observation)",
                HOST_SUCCESSOR,
            ),
            Mutant(
                "environments/envpool.py",
                "Step(self._observation, reward, terminated, truncated, following)",
                "Step(self._observation, reward, terminated, truncated, self._observation)",
                "test_envpool.py::test_no_first_observation_is_ever_what_an_action_led_to",
            ),
            Mutant(
                "memories/rings.py",
                "jnp.maximum(stored(ring) - window + 1, 0)",
                "(len(ring.steps.reward) - window + 1)",
                f"{REPLAY}[17-2-3-1]",
            ),
            Mutant(
                "memories/frames.py",
                "(behind + count[-1:] > slots)",
                "(behind + count[-1:] > slots + 1)",
                f"{FRAMES}[alike]",
            ),
        ),
    ),
    Bug(
        3, "ray#59958", "truncation is treated as termination; terminal rewards are dropped",
        (
            Mutant(
                "targets.py",
                "value = reward + gamma * (1.0 - terminated) * later",
                "value = reward + gamma * (1.0 - done) * later",
                ONE_STEP,
            ),
            Mutant(
                "targets.py",
                "delta = reward + gamma * (1.0 - terminated) * next_values - values",
                "delta = (1.0 - terminated) * (reward + gamma * next_values) - values",
                THREE_STEPS,
            ),
        ),
    ),
    Bug(
        4, "mujoco_playground#305, brax#641", "the reset overwrites the final observation",
        (
            Mutant(
                "environments/gymnasium.py",
                "    observation = jax.tree.map(np.copy, observation)\n",
                "",
                HOST_SUCCESSOR,
            ),
        ),
    ),
    Bug(
        5, "cleanrl#499, Mighty#108", "the step after an end is a dummy reset step, stored as if it were one",
        (
            Mutant(
                "environments/gymnasium.py",
                "self._observation = self._with_first(following, over, answer.first) if over else following",
                "self._observation = following",
                HOST_SUCCESSOR,
            ),
        ),
    ),
    Bug(
        6, "Gymnasium#914, #1130", "copies are reset one step early, or not cleared in the step of their reset",
        (
            Mutant("environments/functional.py", "steps >= limit\n", "steps >= limit - 1\n", LIMIT),
            Mutant(
                "environments/functional.py",
                "            return _where(done, fresh, reached)",
                "            return _where(done, (fresh[0]._replace(steps=steps), fresh[1]), reached)",
                LIMIT,
            ),
        ),
    ),
    Bug(
        7, "tensorflow/agents#939", "an n-step return spills over a time limit into the next episode",
        (
            Mutant(
                "targets.py",
                "        done = step.terminated | step.truncated\n        reward",
                "        done = step.terminated\n        reward",
                N_STEP,
            ),
            Mutant(
                "learner.py",
                "last.truncated | (left & ~rollout.done)",
                "last.truncated",
                "test_learner.py::test_episodes_that_were_left_end_where_they_were_left",
            ),
        ),
    ),
    Bug(
        8, "skrl#449, torchrl#1911", "terminated and truncated are taken to exclude each other",
        (
            Mutant(
                "targets.py",
                "step.reward, gamma * (1.0 - step.terminated)\n",
                "step.reward, gamma * (1.0 - (step.terminated & ~step.truncated))\n",
                N_STEP,
            ),
            Mutant(
                "targets.py",
                "step.reward, gamma * (1.0 - step.terminated)\n",
                "step.reward, gamma * (1.0 - (step.terminated | step.truncated))\n",
                N_STEP,
            ),
        ),
    ),
    Bug(
        9, "dopamine c443e88, purejaxrl#20", "time limits are recorded as terminations, or ignored in the advantages",
        (
            Mutant(
                "environments/functional.py",
                "reward.astype(jnp.float32), terminated, truncated, reached[1])",
                "reward.astype(jnp.float32), done, truncated, reached[1])",
                LIMIT,
            ),
            Mutant(
                "targets.py",
                "(delta, terminated | truncated), reverse=True)",
                "(delta, terminated), reverse=True)",
                THREE_STEPS,
            ),
            Mutant(
                "environments/old_gym.py",
                "False if cut else done, bool(cut and done)",
                "done, bool(cut and done)",
                "test_old_gym.py::test_an_end_by_a_time_limit_is_a_truncation_and_any_other_a_termination",
            ),
        ),
    ),
    # --- returns, advantages, targets ---------------------------------------------------------------------------------
    Bug(
        10, "stable-baselines3#185", "advantages are off by one at the last value",
        (Mutant("targets.py", "lax.scan(back, jnp.zeros_like(delta[0]), ", "lax.scan(back, delta[-1], ", THREE_STEPS),),
    ),
    Bug(
        11, "Stoix#142, #148, #160", "V(s_(t+1)) is that of what is acted on next, a reset at an end",
        (
            Mutant(
                "algorithms/ppo.py",
                "parameters.value(following)",
                "jnp.roll(parameters.value(outputs), -1, 0)",
                ROLLOUT,
            ),
        ),
    ),
    Bug(
        12, "torchrl b28e4a462", "a second path to the same returns reads the reset's value at truncations",
        (
            Mutant(
                "algorithms/reinforce.py",
                "value[:, 0], following[..., 0]",
                "value[:, 0], jnp.roll(value.reshape(ended.shape), -1, 0)",
                OWN_LOSSES,
            ),
        ),
    ),
    Bug(
        13, "cleanrl#337", "value targets are made of stale advantages",
        (Mutant("algorithms/ppo.py", '"target": advantage + value}', '"target": value}', ROLLOUT),),
    ),
    Bug(
        14, "cleanrl#494, rejax d8bf47a", "the lambda branch is not masked at an end",
        (
            Mutant(
                "targets.py",
                "jnp.where(done, next_value, (1 - gae_lambda) * next_value + gae_lambda * later)",
                "(1 - gae_lambda) * next_value + gae_lambda * later",
                ROLLOUT,
            ),
        ),
    ),
    Bug(
        15, "stable-baselines3#77", "SAC's entropy term is not masked at terminations",
        (
            Mutant(
                "algorithms/sac.py",
                "step.reward + step.discount * (value - cost)",
                "step.reward + step.discount * value - self.gamma * cost",
                SAC_LOSS,
            ),
        ),
    ),
    Bug(
        16, "cleanrl#379, Mighty#126", "(B,) minus (B, 1) is broadcast to (B, B)",
        (
            Mutant(
                "algorithms/sac.py",
                "return (ent_coef * log_prob - value).mean()",
                "return (ent_coef * log_prob[:, None] - value).mean()",
                SAC_LOSS,
            ),
            Mutant(
                "algorithms/ppo.py",
                "return outputs[1 if self.critic else 0][..., -1]",
                "return outputs[1 if self.critic else 0][..., -1:]",
                PPO_LOSS,
            ),
        ),
    ),
    # --- replay, priorities, n-step -----------------------------------------------------------------------------------
    Bug(
        17, "rejax 8bcc169, 463e32a", "a memory is full only if its head lands exactly on 0",
        (
            Mutant(
                "memories/rings.py",
                "(ring.head + length) % rows, jnp.minimum(ring.size + length, rows)",
                "(h := (ring.head + length) % rows), jnp.where((ring.size == rows) | (h == 0), rows, h)",
                f"{REPLAY}[17-5-2-38]",
            ),
        ),
    ),
    Bug(
        18, "flashbax#50, #51", "windows cross the write head",
        (
            Mutant(
                "memories/rings.py",
                "jnp.maximum(stored(ring) - window + 1, 0)",
                "stored(ring)",
                f"{REPLAY}[17-5-2-38]",
            ),
        ),
    ),
    Bug(
        19, "flashbax#58", "priorities are made like the whole numbers that index them: 0.7 becomes 0",
        (
            Mutant(
                "memories/prioritized.py",
                "jnp.broadcast_to(jnp.where(whole, ring.highest, 0.0)[:, None], index.shape)",
                "jnp.where(whole[:, None], jnp.full_like(index, ring.highest), 0)",
                f"{PRIORITIES}[9-4-2-12]",
            ),
        ),
    ),
    Bug(
        20, "torchrl#3925, #2215, #2242", "the exponent is applied twice to new priorities; the highest is not tracked",
        (
            Mutant(
                "memories/prioritized.py",
                "jnp.where(whole, ring.highest, 0.0)",
                "jnp.where(whole, ring.highest**self.alpha, 0.0)",
                NEW_WINDOW,
            ),
            Mutant(
                "memories/prioritized.py",
                "highest=jnp.maximum(ring.highest, priority.max())",
                "highest=ring.highest",
                NEW_WINDOW,
            ),
        ),
    ),
    Bug(
        21, "dopamine 4f657b9", "importance weights do not reach the gradient",
        (
            Mutant("algorithms/dqn.py", "(weight * per_sample).mean()", "per_sample.mean()", DQN_WEIGHTS),
            Mutant(
                "algorithms/sac.py",
                "(weight * squared).mean()",
                "squared.mean()",
                f"{WEIGHTS}[sac]",
            ),
            Mutant(
                "algorithms/td3.py",
                "(flat(weight) * per_sample).mean()",
                "per_sample.mean()",
                f"{WEIGHTS}[td3]",
            ),
        ),
    ),
    Bug(
        22, "acme ff23ae2", "the keys of what was drawn lose their upper bits, so that its priorities never change",
        (
            Mutant(
                "memories/prioritized.py",
                "sums = _set(ring.sums, index, priority)\n",
                "sums = ring.sums\n",
                NEW_WINDOW,
            ),
            Mutant(
                "memories/prioritized.py",
                'index = batch.index\n',
                'index = batch.index.astype(jnp.int8)\n',
                "test_memories.py::test_windows_are_drawn_in_proportion_to_their_priorities[600-0.3]",
            ),
        ),
    ),
    Bug(
        23, "FastTD3#6, #7", "windows mix copies; an n-step bootstrap is discounted by gamma instead of gamma^n",
        (
            Mutant(
                "targets.py",
                "discount = gamma * jnp.where(done, 1.0 - step.terminated, discount)",
                "discount = jnp.where(done, gamma * (1.0 - step.terminated), discount)",
                N_STEP,
            ),
            Mutant(
                "memories/rings.py",
                "start[None] + n * jnp.arange(window",
                "start[None] + jnp.arange(window",
                f"{REPLAY}[17-5-2-38]",
            ),
        ),
    ),
    # --- networks, targets, distributions, random numbers -------------------------------------------------------------
    Bug(
        24, "stable-baselines3#198", "online and target networks share arrays, or some of them are never copied",
        (
            Mutant(
                "algorithms/dqn.py",
                "target_network = jax.tree.map(jnp.copy, network)",
                "target_network = network",
                HARD_COPY,
            ),
            Mutant(
                "algorithms/sac.py", "jax.tree.map(jnp.copy, critics), *rest", "critics, *rest", f"{SLOW_COPY}[sac]"
            ),
            Mutant(
                "algorithms/td3.py", "jax.tree.map(jnp.copy, (actor, critics))", "actor, critics", f"{SLOW_COPY}[td3]"
            ),
            Mutant(
                "algorithms/sac.py",
                "following = optax.incremental_update(critics, state.target_critics, self.tau)",
                "following = jax.tree.map(\n"
                "            lambda x, y: optax.incremental_update(x, y, self.tau) if x.ndim > 2 else y,\n"
                "            critics, state.target_critics)",
                f"{SLOW_COPY}[sac]",
            ),
        ),
    ),
    Bug(
        25, "cleanrl#323, stable-baselines3#1463", "the target network is updated at other times than the setting says",
        (
            Mutant(
                "algorithms/dqn.py",
                "state.target_network, updates, self.target_period",
                "state.target_network, state.updates, self.target_period",
                HARD_COPY,
            ),
            Mutant(
                "algorithms/dqn.py", "state.updates + 1\n", "state.updates + self.num_environments\n", HARD_COPY
            ),
        ),
    ),
    Bug(
        26, "Stoix 26938ea", "the two critics are one",
        (
            Mutant(
                "networks/critics.py",
                "recipe.init(key, seen, outputs))(random.split(key, count))",
                "recipe.init(key, seen, outputs))(jnp.stack([key] * count))",
                "test_continuous_control.py::test_the_two_critics_differ_at_the_start_and_stay_different[sac]",
            ),
        ),
    ),
    Bug(
        27, "cleanrl#281, #260, #299", "TD3's target noise is one vector for the batch; actions are not centred",
        (
            Mutant(
                "algorithms/td3.py",
                "self.target_noise * random.normal(key, action.shape)",
                "self.target_noise * random.normal(key, (1, *action.shape[1:]))",
                "test_continuous_control.py"
                "::test_td3_blurs_every_action_of_a_target_by_itself_and_by_no_more_than_the_clip",
            ),
            Mutant(
                "spaces.py",
                "scaled = _aligned(middle, action) + _aligned(half_width, action) * action",
                "scaled = _aligned(half_width, action) * action",
                "test_probe_environments.py::test_a_lopsided_actions_optimum_is_reached_through_the_real_bounds",
            ),
        ),
    ),
    Bug(
        28, "ray#14878, torchrl#4080", "log-probabilities explode where tanh saturates",
        (
            Mutant(
                "distributions.py",
                "return 2 * (math.log(2) - u - jax.nn.softplus(-2 * u))",
                "return jnp.log(1 - jnp.tanh(u) ** 2 + 1e-6)",
                "test_distributions.py::test_tanh_normal_is_exact_where_tanh_saturates",
            ),
            Mutant(
                "distributions.py",
                "return jnp.tanh(u), _total(_log_density(noise, self.log_std) - _log_slope(u), self.event_axes)",
                "return jnp.tanh(u), self.log_prob(jnp.tanh(u))",
                "test_distributions.py::test_log_prob_of_a_sample_is_exact_where_tanh_saturates",
            ),
        ),
    ),
    Bug(
        29, "dopamine 7315342", "the target takes the largest value of the whole batch",
        (
            Mutant(
                "algorithms/dqn.py",
                "return pick(of_actions, masks.legal(q, masks.of(step.next_observation)).argmax(-1))",
                "return jnp.full((q.shape[0], 1), of_actions.max())",
                f"{DQN_LOSS}[1-squared-True]",
            ),
        ),
    ),
    Bug(
        30, "acme 30d04ef, 687f701", "the recurrent state is stored after the step instead of before",
        (
            Mutant("algorithms/ppo.py", '"carry": carry}', '"carry": after}', f"{ACTED_AND_LEARNED}[LSTM]"),
            Mutant(
                "algorithms/ppo.py", "steps.next_observation, after)",
                'steps.next_observation, steps.extras["carry"])', f"{ACTED_AND_LEARNED}[LSTM]",
            ),
        ),
    ),
    Bug(
        31, "sbx#46, xland-minigrid#42, mujoco_playground#349", "random keys are used twice",
        (
            Mutant(
                "core.py",
                "    keys = random.split(key, algorithm.updates_per_rollout)",
                "    keys = jnp.stack([key] * algorithm.updates_per_rollout)",
                "test_training.py::test_every_update_of_a_rollout_draws_and_learns_with_keys_of_its_own",
            ),
            Mutant(
                "environments/functional.py",
                "random.wrap_key_data(reset_key, impl=kind), 1)",
                "random.wrap_key_data(reset_key, impl=kind), 0)",
                "test_functional.py::test_moving_and_resetting_draw_different_numbers",
            ),
            Mutant("unrolls/compiled.py", "step_key = random.fold_in(key, t)", "step_key = key", f"{KEYS}[]"),
            Mutant("unrolls/host.py", "random.fold_in(key, t)", "key", f"{KEYS}[gymnasium:]"),
        ),
    ),
    # --- normalisation, schedules, seeds, counters --------------------------------------------------------------------
    Bug(
        32, "cleanrl#532, rl-baselines3-zoo#275, IsaacLab#2635",
        "statistics of observations are not saved, or evaluation uses others",
        (
            Mutant(
                "algorithms/dqn.py",
                "noiseless(state.network), epsilon, state.statistics.observations)",
                "noiseless(state.network), epsilon, ())",
                f"{HANDED_OUT}[dqn-True]",
            ),
            Mutant(
                "algorithms/ppo.py",
                "Policy(parameters, state.statistics.observations,",
                "Policy(parameters, jax.tree.map(jnp.zeros_like, state.statistics[0]),",
                f"{HANDED_OUT}[ppo-True]",
            ),
            Mutant(
                "snapshots.py",
                "if is_key else jnp.array(found))",
                'if is_key else jnp.array(found) * ("statistics" not in name))',
                f"{RESUMED}[ppo]",
            ),
        ),
    ),
    Bug(
        33, "brax ca7649c, stable-baselines3#1954", "the count of running statistics overflows, or sticks at 2^24",
        (
            Mutant(
                "normalization.py",
                "    seen = moments.seen + jnp.minimum(",
                "    seen = (moments.seen.astype(jnp.float32)).astype(jnp.uint32) + jnp.minimum(",
                COUNT,
            ),
            Mutant(
                "normalization.py",
                "jnp.minimum(jnp.uint32(new), jnp.uint32(MOST) - moments.seen)",
                "jnp.uint32(new)",
                "test_normalization.py::test_the_count_stops_at_its_largest_instead_of_starting_anew",
            ),
            Mutant(
                "normalization.py",
                "weight = new / seen.astype(jnp.float32)",
                "weight = new / seen.astype(jnp.int32).astype(jnp.float32)",
                COUNT,
            ),
        ),
    ),
    Bug(
        34, "stable-baselines3#1028", "advantages of a minibatch of one are not a number",
        (
            Mutant(
                "targets.py",
                "(advantage.std() + 1e-8)",
                "(advantage.std(ddof=1) + 1e-8)",
                "test_ppo.py::test_tiny_minibatches_are_finite[1]",
            ),
        ),
    ),
    Bug(
        35, "acme 44d28ae, purejaxrl#6", "the learning rate, or its schedule, does not reach the optimizer",
        (
            Mutant("optimizers.py", ".rule(rate, **vars(self))", ".rule(1e-3, **vars(self))", DQN_RATE),
            *(
                Mutant(
                    "optimizers.py",
                    "own = optimizer.descent(falling(algorithm.learning_rate, algorithm.learning_rate_end, fraction))",
                    "own = optimizer.descent(algorithm.learning_rate)",
                    test,
                )
                for test in (DQN_RATE, *(f"test_ppo.py::{RATE}[{name}]" for name in ("ppo", "reinforce")))
            ),
            Mutant(
                "algorithms/sac.py",
                "self.optimizer.descent(falling(rate, self.learning_rate_end, fraction))",
                "self.optimizer.descent(rate)",
                "test_continuous_control.py::test_the_learning_rates_fall_to_their_end[sac]",
            ),
            Mutant(
                "algorithms/td3.py",
                "falling(self.learning_rate if rate is None else rate, self.learning_rate_end, fraction)",
                "self.learning_rate if rate is None else rate",
                "test_continuous_control.py::test_the_learning_rates_fall_to_their_end[td3]",
            ),
        ),
    ),
    Bug(
        36, "ray#46986, cleanrl#238", "all copies of the environment, or all runs, have the same seed",
        (
            Mutant(
                "environments/repeating.py",
                "for part in (run_seed, copy, episode):",
                "for part in (run_seed, episode):",
                "test_gymnasium.py::test_no_two_copies_begin_alike",
            ),
            Mutant(
                "environments/functional.py",
                "self._begun(random.split(key, self.num_environments))",
                "self._begun(jnp.stack([key] * self.num_environments))",
                "test_functional.py::test_every_copy_and_every_episode_draws_its_own_randomness",
            ),
            Mutant(
                "environments/envpool.py",
                "[episode_seed(self._run_seed, self.first_copy + i, 0) for i",
                "[episode_seed(self._run_seed, 0, 0) for i",
                "test_envpool.py::test_runs_of_neighbouring_seeds_share_no_episode",
            ),
            Mutant(
                "trainer.py",
                "random.split(random.key(seed), 3)",
                "random.split(random.key(42), 3)",
                "test_evaluation.py::test_no_key_of_an_evaluation_is_one_of_training_or_of_another_evaluation",
            ),
        ),
    ),
    Bug(
        37, "brax#655, ray#28289, stable-baselines3#392",
        "the optimizer, the count of steps, or the temperature is not what was saved",
        (
            Mutant(
                "snapshots.py",
                "if is_key else jnp.array(found))",
                'if is_key else jnp.array(found) * ("optimizer" not in name))',
                f"{RESUMED}[dqn]",
            ),
            Mutant(
                "snapshots.py",
                "if is_key else jnp.array(found))",
                'if is_key else jnp.array(found) * ("log_ent_coef" not in name))',
                f"{RESUMED}[sac]",
            ),
            Mutant(
                "trainer.py",
                "        self.iteration = int(np.max(self.progress.iteration))",
                "        self.progress = self.progress._replace(iteration=0 * self.progress.iteration)\n"
                "        self.iteration = 0",
                f"{RESUMED}[reinforce]",
            ),
        ),
    ),
    # --- checkpoints, reporting, parity -------------------------------------------------------------------------------
    Bug(
        38, "orbax#605, keras#23609, maxtext#5260", "a save fails unnoticed, or half a checkpoint is taken for a whole",
        (
            Mutant(
                "runs/recording.py",
                "            except OSError as error:\n",
                "            except OSError as error:\n                break\n",
                "faults/test_full_disk.py::test_a_disk_that_refuses_is_told_with_what_is_safe_and_how_to_go_on",
            ),
            Mutant(
                "runs/checkpoints.py",
                'digest(path) != entry["sha256"]',
                'digest(path) == ""',
                "test_checkpoints.py"
                "::test_damage_is_noticed_and_the_one_before_is_used_with_a_warning_that_names_both",
            ),
        ),
    ),
    Bug(
        39, "Gymnasium#1624, #1018, envpool#299", "returns are wrong after the first episode, or across truncations",
        (
            Mutant("episodes.py", "jnp.where(step[1], 0.0, reward)", "reward", COUNTED),
            Mutant(
                "episodes.py",
                "done = terminated | truncated  # [T, N]",
                "done = terminated",
                COUNTED,
            ),
            Mutant(
                "evaluation.py",
                "np.where(running, reward[t], 0.0)",
                "reward[t]",
                f"{GREEDY}[compiled]",
            ),
        ),
    ),
    Bug(
        40, "gymnax, MountainCarContinuous-v0", "the inelastic wall is at the wrong end",
        (
            Mutant(
                "environments/classic_control.py",
                "stopped = (position == low) & (velocity < 0)",
                "stopped = (position == high) & (velocity < 0)",
                "test_twins.py::test_float32_is_exact_at_the_mountain_cars_wall_and_goal",
            ),
        ),
    ),
    # --- more ---------------------------------------------------------------------------------------------------------
    Bug(
        41, "gymnax f960cd4", "every episode is one step too long",
        (Mutant("environments/functional.py", "steps >= limit\n", "steps > limit\n", LIMIT),),
    ),
    Bug(
        42, "gymnax 6ff8969, fe60e28, 7f652e2; pgx#835", "an angle is not wrapped, an action means another one",
        (
            Mutant(
                "environments/classic_control.py",
                "angle = (theta + math.pi) % (2 * math.pi) - math.pi",
                "angle = theta",
                "test_twins.py::test_every_flag_reward_and_observation_is_gymnasiums_in_float64",
            ),
            Mutant(
                "environments/classic_control.py",
                "velocity = velocity + ((action - 1) * 0.001 +",
                "velocity = velocity + (action * 0.001 +",
                "test_twins.py::test_every_flag_reward_and_observation_is_gymnasiums_in_float64",
            ),
        ),
    ),
    Bug(43, "MinAtar and gymnax", "the same name means other rules", reason="no environment of MinAtar is ours"),
    Bug(
        44, "gym#1790, dopamine#177, envpool#370", "frame skipping reads a stale frame",
        reason="no environment or wrapper of ours skips frames",
    ),
    Bug(
        45, "envpool#239, #344; Gymnasium#166", "an explicit reset is not honoured",
        (
            Mutant(
                "environments/repeating.py",
                "self._episode = np.zeros(self.num_environments, np.int64)",
                'self._episode = getattr(self, "_episode", np.zeros(self.num_environments, np.int64))',
                f"{SAME_KEY}[gymnasium:CartPole-v1]",
            ),
        ),
    ),
    Bug(
        46, "Gymnasium#832, #1561; brax#575", "rewards and flags are computed from the state before the step",
        (
            Mutant(
                "environments/classic_control.py",
                "-jnp.cos(theta1) - jnp.cos(theta2 + theta1) > 1.0",
                "-jnp.cos(state[0]) - jnp.cos(state[1] + state[0]) > 1.0",
                "test_twins.py::test_every_flag_reward_and_observation_is_gymnasiums_in_float64",
            ),
        ),
    ),
    Bug(
        47, "Gymnasium#1526, #1668", "statistics of rewards leave steps out",
        (
            Mutant(
                "normalization.py",
                "update(scale.returns, returns))",
                "update(scale.returns, returns[-1:]))",
                "test_normalization.py::test_rewards_are_divided_by_the_spread_of_discounted_returns[0.9]",
            ),
            Mutant(
                "core.py",
                "        state, memory = remember(algorithm, state, memory, trajectory)\n    else",
                "        memory = algorithm.memory.add(memory, trajectory)\n    else",
                "test_training.py::test_every_step_is_known_once_to_what_normalises_warming_up_included",
            ),
        ),
    ),
    Bug(
        48, "Gymnasium#1466, #351", "a key is missing in the info of some steps",
        (
            Mutant(
                "environments/masked.py",
                "info.get(MASK) if isinstance(info, Mapping) else None",
                "info[MASK]",
                "test_masks.py::test_a_mask_may_be_missing_after_the_last_step_and_only_there",
            ),
        ),
    ),
    Bug(
        49, "stable-baselines3#1150, #2175, #1474", "more steps than were asked for; intervals counted in calls",
        (
            Mutant(
                "trainer.py",
                "return -(-int(steps) // ",
                "return 1 + (int(steps) // ",
                "test_evaluation.py::test_a_run_on_the_host_makes_few_copies_once_and_no_step_too_many[short]",
            ),
            Mutant(
                "runs/configuration.py",
                "round(interval / trainer.steps_per_iteration(self.algorithm))",
                "interval",
                "test_runs.py::test_rows_of_metrics_bear_the_words_of_the_design",
            ),
        ),
    ),
    Bug(
        50, "stable-baselines3, changes of 2.0.0 and 2.4.0", "loading changes a setting",
        (
            Mutant(
                "hyperparameters.py",
                'for name, item in value.items() if name != "type"}',
                'for name, item in value.items() if name not in ("type", "target_period")}',
                "test_runs.py::test_no_setting_changes_by_being_written_and_read[DQN]",
            ),
        ),
    ),
    Bug(
        51, "tianshou#65; stable-baselines3#40, #486; lerobot#4558", "a memory stores other types than the space has",
        (
            Mutant(
                "memories/rings.py",
                "jnp.zeros((rows, n, *x.shape), x.dtype)",
                "jnp.zeros((rows, n, *x.shape), jnp.float32)",
                f"{REPLAY}[17-5-2-38]",
            ),
        ),
    ),
    Bug(
        52, "Gymnasium#1616, #1622, #1663", "whether a value is within its space overflows in narrow integers",
        (
            Mutant(
                "spaces.py",
                "if low < limits.min or high > limits.max:",
                "if (array.astype(dtype) < limits.min).any() or (array.astype(dtype) > limits.max).any():",
                "test_spaces.py::test_a_value_that_breaks_its_spaces_word_is_refused_in_plain_text",
            ),
        ),
    ),
    Bug(
        53, "Gymnasium#1419, gym#1544, torchrl#3464", "too few actions hang; nothing ends after an error",
        (
            Mutant(
                "environments/repeating.py",
                "if action.shape != (self.num_environments, *self.action_space.shape):",
                "if False:",
                "test_gymnasium.py::test_actions_that_are_not_finite_or_too_few_are_refused",
            ),
        ),
    ),
    Bug(
        54, "stable-baselines3#1890, tianshou#436", "what an environment raised comes without its place",
        (
            Mutant(
                "environments/copies.py",
                "raise self.fault(i, told(error, checking)) from error",
                "raise",
                "test_gymnasium.py::test_a_step_that_breaks_its_word_is_named_by_copy_seed_and_step",
            ),
        ),
    ),
    Bug(55, "stable-baselines3#2176; Gymnasium#1444, #1527", "recorders keep frames", reason="there is no video"),
    Bug(
        56, "torchrl#3052; ray#21718, #8469, #9964", "memory grows with every step or evaluation",
        (
            Mutant(
                "environments/repeating.py",
                "deque(maxlen=LONGEST_REPEAT)",
                "deque()",
                "test_gymnasium.py"
                "::test_an_episode_that_is_too_long_to_be_repeated_begins_anew_and_the_short_one_goes_on",
            ),
            Mutant(
                "unrolls/host.py",
                "@functools.lru_cache(maxsize=16)\n",
                "",
                "test_evaluation.py::test_programs_of_the_host_are_compiled_once_however_many_evaluations",
            ),
        ),
    ),
    Bug(
        57, "torchrl#3966, #4030, #4089, #2158", "what is saved is an alias of what goes on; counters are not saved",
        (
            Mutant(
                "snapshots.py",
                "np.array(array) if copy else array",
                "array",
                "test_checkpoints.py::test_arrays_are_copied_where_they_are_to_be_kept_and_only_there",
            ),
            Mutant(
                "environments/repeating.py",
                '"episode": self._episode.copy()',
                '"episode": 0 * self._episode',
                "test_gymnasium.py::test_a_restored_run_goes_on_exactly[gymnasium:CartPole-v1]",
            ),
        ),
    ),
    Bug(
        58, "stable-baselines3#136, #558", "episodes are reset twice; the first observation is not counted",
        (
            Mutant(
                "environments/copies.py",
                "            answer = self.environments[i].reset(seed=seed)\n",
                "            answer = [self.environments[i].reset(seed=seed) for _ in range(2)][1]\n",
                HOST_SUCCESSOR,
            ),
            Mutant(
                "normalization.py",
                "update(statistics.observations, trajectory.observation)",
                "update(statistics.observations, trajectory.next_observation)",
                AS_ACTED,
            ),
        ),
    ),
    Bug(
        59, "Stoix 8943593, gymnax 69f1e9e", "weak types are compiled for once more",
        (
            Mutant(
                "environments/functional.py",
                "    return lax.convert_element_type(x, x.dtype)",
                "    return x",
                "test_functional.py::test_numbers_have_32_bits_and_strong_types_even_under_x64",
            ),
        ),
    ),
    Bug(
        60, "stable-baselines3#227, #150", "metrics are not what they are called",
        (
            Mutant(
                "algorithms/dqn.py",
                "optax.l2_loss(error), jnp.abs(error)",
                "optax.l2_loss(error), error",
                f"{DQN_LOSS}[1-squared-True]",
            ),
            Mutant(
                "algorithms/ppo.py",
                "(jnp.abs(ratio - 1) > clip_range).mean()",
                "(ratio - 1 > clip_range).mean()",
                PPO_LOSS,
            ),
        ),
    ),
    Bug(
        61, "tianshou#1287", "a step that was rejected is taken (there TRPO's line search, here PPO's `target_kl`)",
        (
            Mutant(
                "algorithms/ppo.py",
                "jax.tree.map(lambda *x: jnp.where(near, *x), stepped, (parameters, moments))",
                "stepped",
                "test_ppo.py"
                "::test_a_rollout_is_left_before_the_step_of_a_minibatch_too_far_from_the_policy_that_acted",
            ),
        ),
    ),
    Bug(62, "gymnax, its `test_reset`", "a test asserts nothing", reason="a bug of tests: this score is the answer"),
]  # fmt: skip

SURVIVORS = {
    "evaluation explores": Mutant(
        "evaluation.py", "jnp.float32(1), explore=False)", "jnp.float32(1), explore=True)", GREEDY
    ),
    "every batch of an evaluation plays the same episodes": Mutant(
        "evaluation.py", "random.fold_in(key, batch)", "random.fold_in(key, 0)", f"{GREEDY}[compiled]"
    ),
    "the standard deviation lacks its degree of freedom": Mutant(
        "evaluation.py", "means.std(ddof=1)", "means.std()", STATISTICS
    ),
    "the interquartile mean is cut elsewhere": Mutant(
        "evaluation.py", "ordered.shape[-1] // 4", "ordered.shape[-1] // 5", STATISTICS
    ),
    "the interval holds 90 %": Mutant("evaluation.py", "[2.5, 97.5]", "[5, 95]", STATISTICS),
    "evaluation has training's key": Mutant(
        "evaluation.py",
        "random.fold_in(keys_of(seed)[2], iteration)",
        "random.fold_in(keys_of(seed)[1], iteration)",
        "test_evaluation.py::test_no_key_of_an_evaluation_is_one_of_training_or_of_another_evaluation",
    ),
    "every iteration has the same key": Mutant(
        "core.py", "random.fold_in(key, progress.iteration)", "random.fold_in(key, 0)", KEYS
    ),
    "compiled iterations have the start's key": Mutant(
        "trainer.py", "for keys in (start_keys, run_keys)\n", "for keys in (start_keys, start_keys)\n", f"{KEYS}[]"
    ),
    "iterations on the host have the start's key": Mutant(
        "trainer.py",
        "        start_key, self.key, _ = keys_of(seed)\n",
        "        start_key = self.key = keys_of(seed)[0]\n",
        f"{KEYS}[gymnasium:]",
    ),
    "importance weights of DQN are without effect": Mutant(
        "algorithms/dqn.py", "(weight * per_sample).mean()", "per_sample.mean()", DQN_WEIGHTS
    ),
    "rewards are scaled with old statistics": Mutant(
        "normalization.py",
        "Statistics(statistics.observations, known.rewards)",
        "Statistics(statistics.observations, statistics.rewards)",
        AS_ACTED,
    ),
    "successors are not normalised": Mutant(
        "normalization.py",
        "next_observation=normalize(statistics.observations, batch.next_observation)",
        "next_observation=batch.next_observation",
        AS_ACTED,
    ),
    "PPO's value target lacks the value": Mutant(
        "algorithms/ppo.py", '"target": advantage + value}', '"target": advantage}', ROLLOUT
    ),
    "REINFORCE's baseline learns through the policy's loss": Mutant(
        "algorithms/reinforce.py", "jax.lax.stop_gradient(returns - expected)", "returns - expected", OWN_LOSSES
    ),
    "the mode of a squashed Gaussian is not squashed": Mutant(
        "distributions.py",
        "        return jnp.tanh(self.mean)\n",
        "        return self.mean\n",
        "test_distributions.py::test_log_prob_of_a_tanh_normals_sample_is_that_of_the_sample",
    ),
    "C51 chooses by means of rescaled returns": Mutant(
        "algorithms/c51.py",
        "self.unscaled(self.support)[None, None]",
        "self.support[None, None]",
        f"{BEST}[c51-True]",
    ),
    "IQN chooses by means of rescaled quantiles": Mutant(
        "algorithms/iqn.py",
        "self.unscaled(self.of_actions(network, outputs)).mean(-1)",
        "self.unscaled(self.of_actions(network, outputs).mean(-1))",
        f"{BEST}[iqn-True]",
    ),
    "IQN's layers behind the levels have no noise": Mutant(
        "networks/implicit.py",
        "noisy=recipe.noisy",
        "noisy=False",
        "test_distributional.py::test_implicit_quantiles_are_noisy_behind_the_levels_too",
    ),
    "Rainbow's networks are not noisy": Mutant("algorithms/rainbow.py", ", noisy=True", "", RAINBOW),
    "Rainbow's networks do not duel": Mutant(
        "algorithms/rainbow.py", "dueling: bool = True", "dueling: bool = False", RAINBOW
    ),
    "Rainbow's returns are of one step": Mutant("algorithms/rainbow.py", "window=3, alpha", "window=1, alpha", RAINBOW),
    "Rainbow acts at random as well": Mutant(
        "algorithms/rainbow.py", "epsilon_start: float = setting(0.0,", "epsilon_start: float = setting(1.0,", RAINBOW
    ),
    "bootstrapped DQN masks the steps of another window": Mutant(
        "algorithms/bootstrapped_dqn.py",
        "jnp.tile(mask, (step.reward.shape[0], 1))",
        "jnp.repeat(mask, step.reward.shape[0], axis=0)",
        "test_bootstrapped_dqn.py::test_each_head_learns_from_the_same_share_of_the_memory_at_every_draw",
    ),
    "TRPO's advantages stay as they are": Mutant(
        "algorithms/trpo.py", "            advantage = standardized(advantage)\n", "            pass\n", ONE_CG_STEP
    ),
    "TRPO's conjugate gradient takes as many steps as it likes": Mutant(
        "algorithms/trpo.py", "maxiter=self.cg_steps", "maxiter=15", ONE_CG_STEP
    ),
    "TRPO halves steps, however they are to shrink": Mutant(
        "algorithms/trpo.py", "size * self.line_search_shrink", "size * 0.5", ONE_CG_STEP
    ),
    "IMPALA's entropies have no weights": Mutant(
        "algorithms/impala.py",
        "(weight[None] * distribution.entropy())",
        "distribution.entropy()",
        "test_impala.py::test_an_update_is_one_step_down_the_papers_loss",
    ),
    "layers of one size drop the same units": Mutant(
        "networks/mlp.py",
        "random.fold_in(self.key, i), 1",
        "self.key, 1",
        DROPOUT,
    ),
    "a batch is shifted without a limit": Mutant(
        "networks/renormalized.py",
        "jnp.clip((fresh[0] - means[i]) / usual, -LARGEST_SHIFT, LARGEST_SHIFT)",
        "(fresh[0] - means[i]) / usual",
        "test_soft_critics.py::test_a_batch_is_normalised_by_itself_and_corrected_to_what_is_known[7]",
    ),
    "A2C learns what a memory does one step at a time": Mutant(
        "algorithms/a2c.py",
        "return self.rollout_length if remembers",
        "return 1 if remembers",
        f"{IN_A_ROW}[a2c-shape3]",
    ),
    "PQN learns what a memory does one step at a time": Mutant(
        "algorithms/pqn.py", "return self.sequence_length if", "return 1 if", f"{IN_A_ROW}[pqn-shape2]"
    ),
    "TRPO's critic learns from the first minibatch alone": Mutant(
        "algorithms/trpo.py",
        "lambda x: x[:, order], rows",
        "lambda x: x[:, orders[0]], rows",
        "test_trpo.py::test_the_critic_alone_is_fitted_by_minibatches_and_its_optimizer",
    ),
    "IMPALA knows nothing of what it has seen": Mutant(
        "algorithms/impala.py",
        "state._replace(statistics=normalization.observe(state.statistics, trajectory, self.gamma))",
        "state",
        KNOWN_TO_IMPALA,
    ),
    "IMPALA learns from steps that are not normalised": Mutant(
        "algorithms/impala.py", "normalization.apply(state.statistics, batch.steps)", "batch.steps", KNOWN_TO_IMPALA
    ),
    "parts of one network drop the same units": Mutant(
        "networks/mlp.py", "_dropping(part, random.fold_in(key, i))", "_dropping(part, key)", DROPOUT
    ),
}
