"""Faults made on purpose: what a disk, a kill or a flipped bit does to a run. `make faults` has them at length."""
