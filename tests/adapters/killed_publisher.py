"""Kill publishers at random instants and look at what they leave: ``python -m tests.adapters.killed_publisher``.

A process of its own, since it forks: FOLDER ROUNDS SEED. Prints how many of the kills left something half done.
"""

import os
import random
import signal
import sys
import time

import torch

from adapters.store import AdapterStore
from tests.adapters.published import SIZE, publish

SEEDS = range(4)


def main(folder: str, rounds: int, seed: int) -> None:
    torch.set_num_threads(1)
    chance = random.Random(seed)
    store = AdapterStore(folder)
    versions = {publish(store, seed=made).version for made in SEEDS}
    start = time.perf_counter()
    for made in SEEDS:
        publish(store, seed=made)
    all_s = time.perf_counter() - start
    half_done = 0
    for _ in range(rounds):
        begun, begins = os.pipe()
        publisher = os.fork()
        if publisher == 0:
            os.write(begins, b"!")
            while True:
                publish(store, seed=chance.choice(SEEDS))
        os.read(begun, 1)
        os.close(begun)
        os.close(begins)
        time.sleep(chance.uniform(0.0, all_s))
        os.kill(publisher, signal.SIGKILL)
        os.waitpid(publisher, 0)

        assert store.names() == ("de",)
        record = store.record("de")
        assert record.version in versions
        store.load(record, size=SIZE)
        half_done += any(path.name.startswith(".") for path in (store.folder / "de").iterdir())
        if chance.random() < 0.5:
            store.sweep(grace_s=0.0)
            assert len(list((store.folder / "de").iterdir())) == 3
            store.load(record, size=SIZE)
    print(half_done)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
