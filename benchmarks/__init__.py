"""The figures that OnePrior promises, measured: `python -m benchmarks [NAME ...]`, tables in docs/benchmarks.md.

Every benchmark is a module with `run(options)`; it prints a small table and records benchmarks/results/<name>.json with
the commit, the command, the machine, seeds, standard errors and wall time. Trained runs are kept under runs/ and used
again. All train on ../shared/data/fashion-mnist (`--data`).
"""
