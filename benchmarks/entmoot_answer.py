"""ENTMOOT 2.1 from data to answer, in an environment of its own: python entmoot_answer.py DATA.npz TREES DEPTH.

DATA.npz holds x (n, positions), codes from 0 to `codes` - 1, and y (n,), which is maximised: its mean (beta = 0), by
the restricted solver that comes with gurobipy. One line of JSON on stdout: the codes, the seconds, or why it could not.
"""

import json
import sys
import time

import numpy as np
from entmoot import Enting, GurobiOptimizer, ProblemConfig


def answer(path: str, trees: int, depth: int) -> dict:
    """The best point by ENTMOOT, and its seconds."""
    with np.load(path) as file:
        x, y, codes = file["x"], file["y"], int(file["codes"])
    start = time.perf_counter()
    problem = ProblemConfig(rnd_seed=0)
    for k in range(x.shape[1]):
        problem.add_feature("categorical", [str(code) for code in range(codes)], name=f"position {k}")
    problem.add_min_objective()
    train = {"num_boost_round": trees, "max_depth": depth, "min_data_in_leaf": 5, "min_data_per_group": 5}
    uncertainty = {"beta": 0.0, "dist_metric": "l1", "acq_sense": "exploration"}
    model = Enting(problem, {"unc_params": uncertainty, "tree_train_params": {"train_params": train}})
    model.fit(x.astype(str), -y[:, None])
    found = GurobiOptimizer(problem, params={"MIPGap": 0.0, "OutputFlag": 0}).solve(model)
    return {"point": [int(code) for code in found.opt_point], "seconds": time.perf_counter() - start}


if __name__ == "__main__":
    try:
        print(json.dumps(answer(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
