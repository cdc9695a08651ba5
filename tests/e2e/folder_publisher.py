"""Publishes what it is told to, into a folder.

    python -m tests.e2e.folder_publisher STORE WIDTH LAYERS FEED_FORWARD FINGERPRINT

Reads lines ``NAME FOLDER``, where FOLDER holds adapter.json, weights and vocab; answers each with a line.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from adapters.config import BackboneSize
from adapters.store import AdapterStore


def main(store: str, size: BackboneSize, fingerprint: str) -> None:
    torch.set_num_threads(1)
    adapters = AdapterStore(store)
    print("ready", flush=True)
    for line in sys.stdin:
        name, folder = line.split()
        record, weights, vocab = [(Path(folder) / part).read_bytes() for part in ("adapter.json", "weights", "vocab")]
        files = {"weights": weights, "vocab": vocab}
        staged = adapters.stage(name, record, files, size=size, fingerprint=fingerprint)
        adapters.commit(staged, size=size)
        print(staged.version, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], BackboneSize(*map(int, sys.argv[2:5])), sys.argv[5])
