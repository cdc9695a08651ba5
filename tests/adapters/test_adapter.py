"""One adapter as trainable parameters: its tensors, its start, what it leaves alone."""

from __future__ import annotations

import pytest
import torch

from adapters.adapter import Adapter
from adapters.config import AdapterConfig, BackboneSize, top_layers
from adapters.frontend import pad
from adapters.methods.lora import TARGETS
from adapters.shapes import expected_shapes, parameter_count
from tests.builders import clip, encoder_of, perturbed_adapter, reference

HIDDEN, LAYERS = 48, 4
SIZE = BackboneSize(HIDDEN, LAYERS, 96)
TOP = AdapterConfig("bottleneck", 8, top_layers(LAYERS, 2), "adapted", 24)
CONFIGS = {
    "top half": TOP,
    "all norms": AdapterConfig("bottleneck", 16, top_layers(LAYERS, 1), "all", 24),
    "no norms": AdapterConfig("bottleneck", 4, (0, 2), "none", 30),
    "head": AdapterConfig("head", 0, (), "none", 24),
    "LoRA": AdapterConfig("lora", 4, (1, 3), "none", 24),
    "LoRA everywhere": AdapterConfig("lora", 4, (1, 3), "all", 24, {"targets": TARGETS, "bias": True}),
    "MMS": AdapterConfig("mms", 8, (0, 1, 2, 3), "none", 24),
}


@pytest.fixture(scope="module")
def encoder():
    return encoder_of(reference("wav2vec2-pre-norm-group"))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_its_parameters_are_the_tensors_on_disk_and_nothing_else(config):
    adapter = Adapter(config, SIZE)
    assert {name: tuple(t.shape) for name, t in adapter.tensors().items()} == expected_shapes(config, SIZE)
    trained = sum(parameter.numel() for parameter in adapter.parameters() if parameter.requires_grad)
    assert trained == parameter_count(config, SIZE)


def test_a_bottleneck_has_the_papers_parameters():
    """Two places a layer of 2·D·b + b + D + 2·D, four vectors of norms a layer, and the head."""
    each = 2 * HIDDEN * 8 + 8 + HIDDEN + 2 * HIDDEN
    assert parameter_count(TOP, SIZE) == 2 * 2 * each + 2 * 4 * HIDDEN + 24 * (HIDDEN + 1)


def test_norms_start_as_the_backbones(encoder):
    adapter = Adapter(CONFIGS["all norms"], SIZE)
    adapter.start_from(encoder.model.encoder.layers)
    x = torch.randn(2, 5, HIDDEN)
    for index, layer in enumerate(encoder.model.encoder.layers):
        for which in ("layer_norm", "final_layer_norm"):
            base = getattr(layer, which)
            torch.testing.assert_close(adapter.norm(index, which, base, x), base(x))
            assert not torch.allclose(base.weight, torch.ones(HIDDEN)), "a norm at its start would prove nothing"


def test_untrained_it_is_next_to_the_identity_inside_a_layer():
    adapter = Adapter(TOP, SIZE)
    x = torch.randn(2, 5, HIDDEN)
    for place in ("attention", "feed_forward"):
        moved = (adapter.adapt(3, place, x, x) - x).abs().max()
        assert 0 < moved < 1e-3


def test_layers_and_norms_that_are_not_its_own_stay_the_backbones(encoder):
    adapter = perturbed_adapter(CONFIGS["no norms"], encoder, 0)
    x = torch.randn(2, 5, HIDDEN)
    base = encoder.model.encoder.layers[0].layer_norm
    for layer in range(LAYERS):
        assert torch.equal(adapter.norm(layer, "layer_norm", base, x), base(x))
        assert torch.equal(adapter.adapt(layer, "attention", x, x), x) is (layer not in (0, 2))


@torch.inference_mode()
def test_lora_is_what_its_products_added_to_the_projections_are():
    """Against the published form: W + B A in the place of W."""
    encoder, changed = (encoder_of(reference("wav2vec2-pre-norm-group")) for _ in range(2))
    adapter = perturbed_adapter(CONFIGS["LoRA"], encoder, 3)
    w = adapter.tensors()
    for index in (1, 3):
        attention = changed.model.encoder.layers[index].attention
        for place in ("q_proj", "v_proj"):
            name = f"layers.{index}.{place}"
            getattr(attention, place).weight += w[f"{name}.lora_B.weight"] @ w[f"{name}.lora_A.weight"]
    bare = Adapter(CONFIGS["head"], SIZE).requires_grad_(False)
    bare.load({name: w[name] for name in bare.tensors()})
    audio = pad([clip(1.0, seed=1), clip(0.6, seed=2)])
    found, plain = encoder(audio, adapter), encoder(audio, bare)
    torch.testing.assert_close(found, changed(audio, bare), atol=1e-4, rtol=1e-4)
    assert (found - plain).abs().max() > 0.1


def test_load_takes_every_value_over(encoder):
    one, other = (perturbed_adapter(TOP, encoder, seed) for seed in (1, 2))
    other.load(one.tensors())
    for name, tensor in one.tensors().items():
        assert torch.equal(other.tensors()[name], tensor)


def test_load_refuses_what_lacks_a_tensor(encoder):
    adapter = perturbed_adapter(TOP, encoder, 1)
    tensors = dict(adapter.tensors())
    del tensors["head.bias"]
    with pytest.raises(KeyError, match=r"head\.bias"):
        adapter.load(tensors)


def test_a_loss_reaches_every_tensor_and_nothing_of_the_backbone(encoder):
    """At the very start too, where the bottleneck is nearly closed."""
    adapter = Adapter(TOP, SIZE)
    adapter.start_from(encoder.model.encoder.layers)
    encoder(pad([clip(0.5)]), adapter).square().mean().backward()
    for name, tensor in adapter.tensors().items():
        assert tensor.grad is not None, name
        assert tensor.grad.abs().max() > 0, name
    assert all(parameter.grad is None for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        (AdapterConfig("bottleneck", 8, (0,), "none", 4, {"scale": 2}), "'bottleneck' has no option 'scale'"),
        (AdapterConfig("lora-of-old", 8, (0,), "none", 4), "unknown method 'lora-of-old'; there are bottleneck, head"),
        (AdapterConfig("bottleneck", 8, (4,), "none", 4), "layer 4 is adapted, but the backbone has layers 0 to 3"),
    ],
)
def test_what_does_not_fit_is_refused(config, wrong):
    with pytest.raises(ValueError, match=wrong):
        Adapter(config, SIZE)
