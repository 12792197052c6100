"""The driver of test_ray_train.py: Ray Train's own elastic trainer, until its last step.

    python -m tests.integration.train.ray_train_driver STORAGE

Its last line says in JSON how it went.
"""

from __future__ import annotations

import json
import sys

import ray

from examples.elastic_ray_train import Config, outcome, trainer

CONFIG = Config(steps=600, seconds=0.3, save_every=20)


def main() -> None:
    ray.init(address="auto", log_to_driver=False)
    result = trainer(CONFIG, storage=sys.argv[1]).fit()
    progress, accuracy = outcome(result.checkpoint)
    print(json.dumps({**vars(progress), "accuracy": accuracy}), flush=True)


if __name__ == "__main__":
    main()
