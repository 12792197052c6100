"""The demo's work: a hyper-parameter search over scikit-learn's digits, as plain Ray tasks.

Runs as a driver of its own (`python workload.py`), like any user's script. Each line it
prints is one JSON object, which the demo turns into its story.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import product

import ray

GRID = [
    {"hidden": hidden, "alpha": alpha, "rate": rate}
    for hidden, alpha, rate in product((48, 96), (1e-4, 1e-2, 1.0), (1e-3, 1e-2))
]
"""Twelve settings of a small neural network; one CPU each, several times what one node holds."""

FINALISTS = 2
FOLDS = 3


@ray.remote(num_cpus=1)
def score(setting: dict[str, float], fold: int) -> tuple[dict[str, float], float]:
    """Return the share of digits that a network with `setting` reads right in one of three folds."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import StratifiedKFold
    from sklearn.neural_network import MLPClassifier

    images, digits = load_digits(return_X_y=True)
    splits = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(images, digits)
    train, test = list(splits)[fold]
    network = MLPClassifier(
        hidden_layer_sizes=(int(setting["hidden"]),),
        alpha=setting["alpha"],
        learning_rate_init=setting["rate"],
        max_iter=60,
        random_state=0,
    )
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.fit(images[train], digits[train])
    return setting, float(network.score(images[test], digits[test]))


def tell(kind: str, **facts: object) -> None:
    print(json.dumps({"kind": kind, "at_s": time.time(), **facts}), flush=True)


def search() -> list[dict[str, float]]:
    """Score every setting on the first fold and return the best ones."""
    waiting = [score.remote(setting, 0) for setting in GRID]
    tell("submitted", tasks=len(waiting), what="settings to try")
    results = []
    while waiting:
        done, waiting = ray.wait(waiting)
        setting, right = ray.get(done[0])
        results.append((right, setting))
        tell("result", setting=setting, right=right, left=len(waiting))
    results.sort(key=lambda one: -one[0])
    return [setting for _, setting in results[:FINALISTS]]


def finals(settings: list[dict[str, float]]) -> tuple[dict[str, float], float, int]:
    """Score the finalists on the other folds, in a placement group: one bundle on each of two nodes."""
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = ray.util.placement_group([{"CPU": 1}] * len(settings), strategy="STRICT_SPREAD")
    tell("group", bundles=len(settings), strategy="STRICT_SPREAD")
    ray.get(group.ready())
    tasks = [
        score.options(
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
        ).remote(setting, fold)
        for index, setting in enumerate(settings)
        for fold in range(1, FOLDS)
    ]
    tell("submitted", tasks=len(tasks), what="folds of the finalists")
    results = ray.get(tasks)
    ray.util.remove_placement_group(group)
    means = [sum(right for one, right in results if one == setting) / (FOLDS - 1) for setting in settings]
    best = max(range(len(settings)), key=means.__getitem__)
    return settings[best], means[best], len(tasks)


def main() -> int:
    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    setting, right, tasks = finals(search())
    tell("done", tasks=len(GRID) + tasks, setting=setting, right=right)
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
