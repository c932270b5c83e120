"""Runs: train, load and resume them; what of a run is in its folder, and the agents that come out of it."""
