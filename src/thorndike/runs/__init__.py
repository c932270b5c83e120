"""Runs: a run is a folder, or with `run_dir=None` only an object.

config.json      algorithm, every hyper-parameter, environment, seeds, versions
metrics.jsonl    one row a line
checkpoints/     step-000050000/{seed-0.safetensors, ..., manifest.json}
summary.json     once the run has reached its end
"""
