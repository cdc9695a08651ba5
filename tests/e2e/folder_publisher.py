"""Publishes what it is told to, into a folder: ``python -m tests.e2e.folder_publisher STORE SIZE LAYERS FINGERPRINT``.

Reads lines ``NAME FOLDER``, where FOLDER holds adapter.json, weights and vocab; answers each with a line.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from adapters.store import AdapterStore


def main(store: str, hidden_size: int, layer_count: int, fingerprint: str) -> None:
    torch.set_num_threads(1)
    adapters = AdapterStore(store)
    print("ready", flush=True)
    for line in sys.stdin:
        name, folder = line.split()
        record, weights, vocab = [(Path(folder) / part).read_bytes() for part in ("adapter.json", "weights", "vocab")]
        files = {"weights": weights, "vocab": vocab}
        staged = adapters.stage(
            name, record, files, hidden_size=hidden_size, layer_count=layer_count, fingerprint=fingerprint
        )
        adapters.commit(staged, hidden_size=hidden_size, layer_count=layer_count)
        print(staged.version, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
