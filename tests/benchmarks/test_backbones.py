from __future__ import annotations

import torch

from adapters.backbone import fingerprint, load_backbone
from adapters.registry import Registry
from adapters.store import AdapterStore
from benchmarks.backbones import SHIPPED, adapter_name, make_model
from tests.benchmarks.conftest import SIZE


def test_adapters_are_published_as_the_service_takes_them(model_folder, tmp_path):
    model = make_model(tmp_path, SHIPPED, model_folder, SIZE, 11)
    encoder = load_backbone(model / "backbone")
    store = AdapterStore(model / "adapters")
    registry = Registry([store], fingerprint(model / "backbone"), encoder.size)
    assert list(registry.snapshot.adapters) == [adapter_name(number) for number in range(11)]
    assert not registry.snapshot.refused
    loaded = [registry.load(adapter).tensors for adapter in registry.snapshot.adapters.values()]
    assert not torch.equal(loaded[0]["head.weight"], loaded[1]["head.weight"])
    assert torch.equal(loaded[0]["head.weight"], loaded[8]["head.weight"])
    assert all(tensor.dtype == torch.float16 for tensor in loaded[10].values())
