"""Each algorithm broken in five places: believable mistakes in its own lines, or in those that it relies on.

Whatever an algorithm shares with DQN, PPO, SAC or TD3 is broken in `table.py`. The names begin with the algorithm's.
"""

from __future__ import annotations

from table import BEST, DROPOUT, Mutant

DISTRIBUTIONAL = "test_distributional.py::"
LOSSES = f"{DISTRIBUTIONAL}test_losses_and_priorities_are_their_definitions_on_every_combination_of_ends"
DUELING, THREE_STEPS = "one-step-double-dueling", "three-steps"
PROJECTING = f"{DISTRIBUTIONAL}test_projecting_keeps_all_probability_and_the_mean_of_what_is_within"
QUANTILES = f"{DISTRIBUTIONAL}test_quantiles_that_regress_are_those_of_the_samples"
FACTORISED = f"{DISTRIBUTIONAL}test_noise_is_factorised_and_as_large_as_its_spread_says"
WHEN_GREEDY = f"{DISTRIBUTIONAL}test_noise_is_drawn_for_each_act_and_left_out_when_greedy"
OWN_NOISES = f"{DISTRIBUTIONAL}test_the_target_the_choice_and_what_is_learned_have_noise_of_their_own"
DRAWN_LOSSES = f"{DISTRIBUTIONAL}test_the_losses_of_noisy_networks_are_their_definition"

BOOTSTRAPPED = "test_bootstrapped_dqn.py::"
HEADS = f"{BOOTSTRAPPED}test_the_loss_is_the_sum_over_heads_that_each_learn_from_targets_of_their_own[False-1-squared]"

PQN = "test_pqn.py::test_an_update_is_one_step_down_the_error_of_q_lambda[False]"

DISCRETE = "test_discrete_sac.py::test_an_update_is_its_definition_on_every_combination_of_ends"

A2C = "test_a2c.py::test_an_update_is_one_step_down_the_papers_loss[discrete]"

INVERSE_FISHER = "test_trpo.py::test_the_step_goes_along_the_inverse_fisher_matrix_and_as_far_as_the_limit[box]"
LIMIT = "test_trpo.py::test_no_update_diverges_by_more_than_the_limit_and_each_improves_the_surrogate_or_is_none"
NO_STEP = "test_trpo.py::test_a_step_that_cannot_be_taken_leaves_the_policy_as_it_was_bit_for_bit"

IMPALA = "test_impala.py::test_an_update_is_one_step_down_the_papers_loss"

SOFT = "test_soft_critics.py::"
TQC = f"{SOFT}test_tqc_is_its_definition_on_every_combination_of_ends[3]"
LEAST_OF_TWO = f"{SOFT}test_redq_believes_the_least_of_two_critics_drawn_anew_for_each_target[3]"
CLIMBS_THE_MEAN = f"{SOFT}test_the_actor_climbs_the_mean_of_all_critics"
DROPOUT_KEYS = f"{SOFT}test_droqs_units_are_dropped_by_keys_of_their_own_for_targets_losses_and_the_actor"
ONE_BATCH = f"{SOFT}test_crossqs_critics_see_what_was_done_and_what_follows_as_one_batch[3]"
CONSTANTS = f"{SOFT}test_gradients_pass_through_a_batchs_own_statistics_and_not_through_its_correction"
STEADY_TARGETS = f"{SOFT}test_no_optimizer_knows_what_is_known_of_inputs_and_targets_have_no_gradient"
RENORMALIZED = f"{SOFT}test_a_batch_is_normalised_by_itself_and_corrected_to_what_is_known[7]"

FAST = "test_fast_td3.py::"
FAST_TD3 = f"{FAST}test_fast_td3_is_its_definition_on_every_combination_of_ends[1]"

FAMILIES = {
    # --- learning values of choices -----------------------------------------------------------------------------------
    "C51: probability beyond the ends of the range is lost": Mutant(
        "targets.py", "    values = jnp.clip(values, support[0], support[-1])\n", "", PROJECTING
    ),
    "C51: all probability of a return goes to the nearest atom": Mutant(
        "targets.py", "(jnp.clip(1.0 - distance, 0.0, 1.0) *", "((distance <= 0.5) *", PROJECTING
    ),
    "C51: the distribution that follows is the online network's": Mutant(
        "algorithms/c51.py",
        "self.best_following(network, target_network, step",
        "self.best_following(network, network, step",
        f"{LOSSES}[c51-{THREE_STEPS}]",
    ),
    "C51: the best action is that of the likeliest return": Mutant(
        "algorithms/c51.py",
        "(probability * self.unscaled(self.support)[None, None]).sum(-1)",
        "self.unscaled(self.support)[probability.argmax(-1)]",
        f"{BEST}[c51-False]",
    ),
    "C51: priorities have the target's entropy added": Mutant(
        "targets.py",
        "lax.stop_gradient(loss) - jax.scipy.special.entr(target)",
        "lax.stop_gradient(loss) + jax.scipy.special.entr(target)",
        f"{LOSSES}[c51-{THREE_STEPS}]",
    ),
    "QRDQN: levels are the upper ends of the parts, not their middles": Mutant(
        "targets.py", "[None] + 0.5) / count", "[None] + 1.0) / count", QUANTILES
    ),
    "QRDQN: errors above count as those below": Mutant("targets.py", "(error < 0)", "(error > 0)", QUANTILES),
    "QRDQN: levels stand along the samples": Mutant(
        "targets.py", "jnp.abs(tau[:, :, None] -", "jnp.abs(tau[:, None] -", f"{LOSSES}[qrdqn-{THREE_STEPS}]"
    ),
    "QRDQN: the best action is that of the highest quantile": Mutant(
        "algorithms/qrdqn.py",
        "self.unscaled(self.of_actions(network, outputs)).mean(-1)",
        "self.unscaled(self.of_actions(network, outputs)).max(-1)",
        f"{BEST}[qrdqn-False]",
    ),
    "QRDQN: priorities are the mean of errors, not the error of the mean": Mutant(
        "algorithms/qrdqn.py",
        "jnp.abs(target.mean(-1) - quantiles.mean(-1))",
        "jnp.abs(target - quantiles).mean(-1)",
        f"{LOSSES}[qrdqn-{THREE_STEPS}]",
    ),
    "IQN: the first cosine has order 1": Mutant(
        "networks/implicit.py",
        "jnp.arange(self.weight.shape[1], dtype=jnp.float32)\n",
        "jnp.arange(self.weight.shape[1], dtype=jnp.float32) + 1\n",
        f"{BEST}[iqn-False]",
    ),
    "IQN: features and levels are added": Mutant(
        "networks/implicit.py",
        "jax.nn.relu(features)[:, None] * phi",
        "jax.nn.relu(features)[:, None] + phi",
        f"{BEST}[iqn-False]",
    ),
    "IQN: targets are at the levels that learn": Mutant(
        "algorithms/iqn.py",
        "random.uniform(key_tau_prime, ",
        "random.uniform(key_tau, ",
        f"{LOSSES}[iqn-{THREE_STEPS}]",
    ),
    "IQN: one draw of levels for the whole batch": Mutant(
        "algorithms/iqn.py",
        "random.uniform(key_tau, (size, self.num_tau_samples), jnp.float32)",
        "random.uniform(key_tau, (1, self.num_tau_samples), jnp.float32)",
        f"{LOSSES}[iqn-{THREE_STEPS}]",
    ),
    "IQN: the sum is over samples and the mean over quantiles": Mutant(
        "targets.py", "/ kappa).mean(-1).sum(-1)", "/ kappa).sum(-1).mean(-1)", f"{LOSSES}[iqn-{THREE_STEPS}]"
    ),
    "Rainbow: the advantages' mean is over atoms, not over actions": Mutant(
        "algorithms/dqn.py",
        "advantage.mean(1, keepdims=True)",
        "advantage.mean(-1, keepdims=True)",
        f"{BEST}[c51-False]",
    ),
    "Rainbow: noise has no sign": Mutant(
        "networks/noisy.py", "jnp.sign(normal) * jnp.sqrt(jnp.abs(normal))", "jnp.sqrt(jnp.abs(normal))", FACTORISED
    ),
    "Rainbow: the target network has no noise": Mutant(
        "algorithms/dqn.py",
        "networks = perturbed((network, target_network), key)",
        "networks = perturbed(network, key), target_network",
        f"{OWN_NOISES}[True]",
    ),
    "Rainbow: what is learned has the noise of its target": Mutant(
        "algorithms/c51.py",
        "key_following, key_taken = random.split(key)",
        "key_following = key_taken = key",
        f"{DRAWN_LOSSES}[rainbow]",
    ),
    "Rainbow: evaluations act with noise": Mutant(
        "algorithms/dqn.py", "state.network if explore else noiseless(state.network)", "state.network", WHEN_GREEDY
    ),
    "BootstrappedDQN: priors decay with the weights": Mutant(
        "algorithms/bootstrapped_dqn.py",
        "Heads(Head(True, False, False))",
        "Heads(Head(True, True, False))",
        f"{BOOTSTRAPPED}test_no_optimizer_moves_priors[adamw]",
    ),
    "BootstrappedDQN: a head is drawn for each step": Mutant(
        "algorithms/bootstrapped_dqn.py",
        "head = jnp.where(carry.head == 0, drawn, carry.head)",
        "head = drawn",
        f"{BOOTSTRAPPED}test_a_head_is_drawn_with_the_first_step_and_acts_for_the_whole_episode",
    ),
    "BootstrappedDQN: each head learns from the target of its neighbour": Mutant(
        "algorithms/bootstrapped_dqn.py",
        "each(network.each, target_network.each, step",
        "each(network.each, jax.tree.map(lambda x: jnp.roll(x, 1, 0), target_network.each), step",
        HEADS,
    ),
    "BootstrappedDQN: the loss is the mean over heads": Mutant(
        "algorithms/bootstrapped_dqn.py", "return per_sample * self.num_heads, error", "return per_sample, error", HEADS
    ),
    "BootstrappedDQN: masks belong to places in the batch, not in the memory": Mutant(
        "algorithms/bootstrapped_dqn.py",
        "jax.vmap(learns)(batch.index)",
        "jax.vmap(learns)(jnp.arange(batch.index.size))",
        f"{BOOTSTRAPPED}test_each_head_learns_from_the_same_share_of_the_memory_at_every_draw",
    ),
    "PQN: targets believe actions that are not legal": Mutant(
        "algorithms/pqn.py",
        "masks.legal(self.q(state.network, flat(outputs)), masks.of(flat(steps.next_observation)))",
        "self.q(state.network, flat(outputs))",
        PQN,
    ),
    "PQN: the next value is that of the observation acted on": Mutant(
        "algorithms/pqn.py", "steps.next_observation, after)", "steps.observation, after)", PQN
    ),
    "PQN: gamma and lambda change places": Mutant(
        "algorithms/pqn.py", "*ends, self.gamma, self.q_lambda)", "*ends, self.q_lambda, self.gamma)", PQN
    ),
    "PQN: nothing follows a truncation": Mutant(
        "algorithms/pqn.py",
        "(steps.terminated, steps.truncated)\n",
        "(steps.terminated | steps.truncated, steps.truncated)\n",
        PQN,
    ),
    "PQN: every step is on the first minibatch": Mutant(
        "algorithms/pqn.py",
        "jax.tree.map(lambda x: x[:, order], rows)",
        "jax.tree.map(lambda x: x[:, orders[0]], rows)",
        "test_pqn.py::test_targets_are_made_once_and_every_sample_is_learned_from_in_each_epoch",
    ),
    "DiscreteSAC: the mean of the critics is believed": Mutant(
        "algorithms/discrete_sac.py",
        "critic_outputs(critics, observation, carry).min(0)",
        "critic_outputs(critics, observation, carry).mean(0)",
        f"{DISCRETE}[1-None]",
    ),
    "DiscreteSAC: entropy costs": Mutant(
        "algorithms/discrete_sac.py",
        "return -distribution.entropy(), (",
        "return distribution.entropy(), (",
        f"{DISCRETE}[1-None]",
    ),
    "DiscreteSAC: the value is the best choice's": Mutant(
        "algorithms/discrete_sac.py",
        "(distribution.probabilities * value).sum(-1)",
        "value.max(-1)",
        f"{DISCRETE}[1-None]",
    ),
    "DiscreteSAC: the entropy aimed at counts choices that are not legal": Mutant(
        "algorithms/discrete_sac.py",
        "jnp.float32(head.outputs) if mask is None else masks.count(mask)",
        "jnp.float32(head.outputs)",
        "test_discrete_sac.py::test_the_entropy_aimed_at_is_a_share_of_the_most_that_legal_choices_have",
    ),
    "DiscreteSAC: entropy costs between the first and the last of n steps": Mutant(
        "algorithms/discrete_sac.py",
        "        return -distribution.entropy()\n",
        "        return distribution.entropy()\n",
        f"{DISCRETE}[3-0.3]",
    ),
    # --- learning policies from rollouts ------------------------------------------------------------------------------
    "A2C: the entropy's bonus is a cost": Mutant(
        "algorithms/a2c.py", "- self.ent_coef * entropy, metrics", "+ self.ent_coef * entropy, metrics", A2C
    ),
    "A2C: the value learns the advantage": Mutant(
        "algorithms/a2c.py", 'flat(rollout.extras["target"])', 'flat(rollout.extras["advantage"])', A2C
    ),
    "A2C: the policy's loss is the sum over steps": Mutant(
        "algorithms/a2c.py", "* advantage).mean()", "* advantage).sum()", A2C
    ),
    "A2C: a lambda that nobody asked for shortens returns": Mutant(
        "algorithms/a2c.py", "gae_lambda: float = setting(1.0,", "gae_lambda: float = setting(0.95,", A2C
    ),
    "A2C: RMSProp's eps is beside the root": Mutant(
        "optimizers.py",
        "staticmethod(optax.rmsprop)",
        "staticmethod(lambda rate, **fields: optax.rmsprop(rate, eps_in_sqrt=False, **fields))",
        "test_a2c.py::test_rmsprop_steps_as_the_paper_says",
    ),
    "TRPO: the line search does not look at the divergence": Mutant(
        "algorithms/trpo.py", "(better > now) & (divergence <= self.max_kl)", "better > now", f"{LIMIT}[0.5-box]"
    ),
    "TRPO: the line search accepts what does not improve": Mutant(
        "algorithms/trpo.py", "(better > now) & (divergence <= self.max_kl)", "divergence <= self.max_kl", NO_STEP
    ),
    "TRPO: the Fisher matrix is not damped": Mutant(
        "algorithms/trpo.py", "(direction,))[1] + self.cg_damping * direction", "(direction,))[1]", INVERSE_FISHER
    ),
    "TRPO: the longest step lacks its factor of 2": Mutant(
        "algorithms/trpo.py", "jnp.sqrt(2 * self.max_kl /", "jnp.sqrt(self.max_kl /", INVERSE_FISHER
    ),
    "TRPO: the divergence is that of the old policy from the new": Mutant(
        "algorithms/trpo.py", "old.kl(policy(vector))", "policy(vector).kl(old)", f"{LIMIT}[0.5-discrete]"
    ),
    "IMPALA: the ratio is that of the policy that acted to the one that learns": Mutant(
        "algorithms/impala.py",
        'log_prob - steps.extras["log_prob"]',
        'steps.extras["log_prob"] - log_prob',
        IMPALA,
    ),
    "IMPALA: steps are weighted without a limit": Mutant(
        "targets.py", "rho, c = jnp.minimum(rho_bar, ratio),", "rho, c = ratio,", IMPALA
    ),
    "IMPALA: targets and ratios have a gradient": Mutant(
        "algorithms/impala.py", "v_trace(*jax.lax.stop_gradient(seen),", "v_trace(*seen,", IMPALA
    ),
    "IMPALA: advantages are of the next value, not of the next target": Mutant(
        "targets.py", "going_on * (next_value + later) - value)", "going_on * next_value - value)", IMPALA
    ),
    "IMPALA: corrections go on across the ends of episodes": Mutant(
        "targets.py", "later = jnp.where(done, 0.0, excess)", "later = excess", IMPALA
    ),
    # --- learning policies for continuous actions ---------------------------------------------------------------------
    "TQC: as many atoms are dropped of all critics as of one": Mutant(
        "algorithms/tqc.py",
        "self.num_critics * (self.quantiles - self.top_quantiles_to_drop)",
        "self.num_critics * self.quantiles - self.top_quantiles_to_drop",
        TQC,
    ),
    "TQC: the highest atoms of each critic are dropped": Mutant(
        "algorithms/tqc.py",
        "jnp.sort(values.swapaxes(0, 1).reshape(values.shape[1], -1), axis=1)",
        "jnp.sort(values, axis=2).transpose(1, 2, 0).reshape(values.shape[1], -1)",
        TQC,
    ),
    "TQC: atoms are sorted along the batch": Mutant("algorithms/tqc.py", "-1), axis=1)", "-1), axis=0)", TQC),
    "TQC: the entropy's cost is neither discounted nor left out after a termination": Mutant(
        "algorithms/tqc.py",
        "step.discount[:, None] * (value - cost[:, None])",
        "step.discount[:, None] * value - cost[:, None]",
        TQC,
    ),
    "TQC: the actor climbs the least critic": Mutant(
        "algorithms/tqc.py", "values.mean((0, 2))", "values.mean(2).min(0)", TQC
    ),
    "REDQ: targets believe the first critics, not drawn ones": Mutant(
        "algorithms/redq.py",
        "random.permutation(key_drawn, self.num_critics)[",
        "jax.numpy.arange(self.num_critics)[",
        LEAST_OF_TWO,
    ),
    "REDQ: a critic may be drawn twice for one target": Mutant(
        "algorithms/redq.py",
        "random.permutation(key_drawn, self.num_critics)[: self.target_critics]",
        "random.randint(key_drawn, (self.target_critics,), 0, self.num_critics)",
        LEAST_OF_TWO,
    ),
    "REDQ: targets believe the least of all critics": Mutant(
        "algorithms/redq.py", "state._replace(target_critics=critics), step", "state, step", LEAST_OF_TWO
    ),
    "REDQ: the critics of targets are the online ones": Mutant(
        "algorithms/redq.py", "x[drawn], state.target_critics)", "x[drawn], state.critics)", LEAST_OF_TWO
    ),
    "REDQ: the actor climbs the least critic": Mutant(
        "algorithms/redq.py", "values.mean(0)", "values.min(0)", f"{CLIMBS_THE_MEAN}[redq]"
    ),
    "DroQ: targets are made without dropout": Mutant(
        "algorithms/sac.py",
        "thinned = state._replace(target_critics=critics_with_dropout(state.target_critics, for_target))",
        "thinned = state",
        DROPOUT_KEYS,
    ),
    "DroQ: what learns drops the units that its target drops": Mutant(
        "algorithms/sac.py",
        "critics_with_dropout(critics, for_loss)",
        "critics_with_dropout(critics, for_target)",
        DROPOUT_KEYS,
    ),
    "DroQ: units that stay are not scaled up": Mutant(
        "networks/mlp.py", "x / (1 - self.dropout), 0.0)", "x, 0.0)", DROPOUT
    ),
    "DroQ: all critics drop the same units": Mutant(
        "networks/critics.py",
        "jax.vmap(with_dropout)(critics, random.split(key, jax.tree.leaves(critics)[0].shape[0]))",
        "jax.vmap(with_dropout, (0, None))(critics, key)",
        DROPOUT,
    ),
    "DroQ: the actor climbs the least critic": Mutant(
        "algorithms/droq.py", "values.mean(0)", "values.min(0)", f"{CLIMBS_THE_MEAN}[droq]"
    ),
    "CrossQ: what follows is a batch of its own": Mutant(
        "algorithms/crossq.py",
        "jax.vmap(lambda critic: critic.learning(both))(critics)\n",
        "jax.vmap(lambda critic: critic.learning(now))(critics)\n"
        "            after = jax.vmap(lambda critic: critic.learning(following)[0])(critics)\n"
        "            outputs = jnp.concatenate([outputs, after], axis=1)\n",
        ONE_BATCH,
    ),
    "CrossQ: the target has a gradient": Mutant(
        "algorithms/crossq.py", "lax.stop_gradient(target)", "target", STEADY_TARGETS
    ),
    "CrossQ: the next action is of an actor normalised by the batch": Mutant(
        "algorithms/crossq.py",
        "state.head(state.network(step.next_observation))",
        "state.head(state.network.learning(step.next_observation)[0])",
        ONE_BATCH,
    ),
    "CrossQ: a batch's correction has a gradient": Mutant(
        "networks/renormalized.py", "lax.stop_gradient((mean, variance))", "(mean, variance)", CONSTANTS
    ),
    "CrossQ: running statistics are almost those of the last batch": Mutant(
        "networks/renormalized.py",
        "self.momentum * known + (1 - self.momentum) * fresh",
        "self.momentum * fresh + (1 - self.momentum) * known",
        RENORMALIZED,
    ),
    "FastTD3: targets believe the critic with the highest mean": Mutant(
        "algorithms/fast_td3.py", "self.q(outputs).argmin(0)", "self.q(outputs).argmax(0)", FAST_TD3
    ),
    "FastTD3: returns go on after a termination": Mutant(
        "algorithms/fast_td3.py", "step.discount[:, None] * self.support", "self.gamma * self.support", FAST_TD3
    ),
    "FastTD3: the actor climbs the first critic alone": Mutant(
        "algorithms/fast_td3.py", "return critics, carry\n", "return super().climbed(critics, carry)\n", FAST_TD3
    ),
    "FastTD3: how much noise there is is drawn for each step": Mutant(
        "algorithms/fast_td3.py",
        "share = jnp.where(carry.share == 0, drawn, carry.share)",
        "share = drawn",
        f"{FAST}test_an_episode_has_one_noise_and_the_next_one_another",
    ),
    "FastTD3: evaluations have noise": Mutant(
        "algorithms/fast_td3.py",
        "noise if explore else jnp.zeros_like(noise)",
        "noise",
        f"{FAST}test_evaluations_have_no_noise",
    ),
}
