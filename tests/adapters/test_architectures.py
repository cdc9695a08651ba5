"""Parameters counted without a weight: the paper's published figures, and the modules themselves."""

from __future__ import annotations

import pytest

from adapters.adapter import Adapter
from adapters.architectures import ARCHITECTURES, count_parameters, find_architecture
from adapters.config import AdapterConfig, BackboneSize, Norms, top_layers
from adapters.errors import BackboneError
from tests.builders import KINDS, reference


@pytest.mark.parametrize(("layers", "trainable", "percent"), [(12, 9_560_096, 9.202), (6, 4_810_784, 4.852)])
def test_the_papers_published_figures(layers, trainable, percent):
    base = find_architecture("wav2vec2-base")
    counts = count_parameters(base, AdapterConfig("bottleneck", 256, top_layers(12, layers), "all", 32))
    assert counts.trainable == trainable
    assert counts.to_dict()["percent"] == percent


@pytest.mark.parametrize("norms", ["none", "adapted", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_those_of_the_modules(kind, norms: Norms):
    model = reference(kind)
    base = getattr(model, model.base_model_prefix)
    config = AdapterConfig("bottleneck", 12, top_layers(4, 3), norms, 24)
    counts = count_parameters(model.config, config)
    adapter = Adapter(config, BackboneSize(48, 4, 96))
    assert counts.backbone == sum(parameter.numel() for parameter in base.parameters())
    assert counts.trainable == sum(parameter.numel() for parameter in adapter.parameters())
    assert counts.head == sum(parameter.numel() for parameter in model.lm_head.parameters())
    own = [p for n, p in base.named_parameters() if n.startswith("encoder.layers.") and "norm." in n]
    assert counts.norms == {"none": 0, "adapted": 3, "all": 4}[norms] * sum(p.numel() for p in own) // 4


def test_adapters_within_the_layers_of_mms_are_no_backbone():
    inside, bare = (reference("wav2vec2-pre-norm-layer", adapter_attn_dim=width).config for width in (8, None))
    adapter = AdapterConfig("mms", 8, (0, 1, 2, 3), "none", 24)
    assert count_parameters(inside, adapter) == count_parameters(bare, adapter)
    assert inside.adapter_attn_dim == 8, "as it was"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_known_architecture_is_whole(name):
    config = ARCHITECTURES[name]
    layers = config.num_hidden_layers
    counts = count_parameters(config, AdapterConfig("bottleneck", 16, top_layers(layers, layers), "adapted", 32))
    millions = {768: (94, 95), 1024: (311, 318), 1280: (960, 968)}[config.hidden_size]
    assert millions[0] < counts.backbone / 1e6 < millions[1]
    assert 0 < counts.percent < 5


def test_a_folder_is_a_backbone_too(tmp_path):
    reference("hubert-pre-norm-layer").config.save_pretrained(tmp_path)
    assert find_architecture(str(tmp_path)).hidden_size == 48


def test_other_names_are_refused_with_what_there_is(tmp_path):
    with pytest.raises(BackboneError, match=r"'wav2vec2-bass' is neither .* \(wav2vec2-base, .*hubert-large\)"):
        find_architecture("wav2vec2-bass")
    with pytest.raises(BackboneError, match="neither a folder with a config"):
        find_architecture(str(tmp_path))


def test_layers_that_the_backbone_lacks_are_refused():
    with pytest.raises(ValueError, match="layer 12 is adapted"):
        count_parameters(ARCHITECTURES["wav2vec2-base"], AdapterConfig("bottleneck", 8, (12,), "none", 32))
