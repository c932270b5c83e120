"""Ways to act for one rollout. They are interchangeable: a mode is a choice of `unroll`."""
