"""LoRA as PEFT saves it: its own forward is the measure, and what cannot be worn is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters.backbone import load_backbone, read_config
from adapters.config import AdapterConfig
from adapters.encoder import Encoder
from adapters.errors import AdapterFormatError, AdapterMismatch, TonguesError
from adapters.formats.foreign import read_foreign
from adapters.formats.peft import read_peft
from adapters.methods.lora import TARGETS
from adapters.vocab import Vocab
from tests.adapters.formats.theirs import CLIPS, CLOSE, letters, logits, ours, peft_model
from tests.builders import encoder_of, reference

pytest.importorskip("peft", reason="the dev extra is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # PEFT asks transformers for what it will drop
    pytest.mark.filterwarnings("ignore:Adapter 'default'. .* invalid shape"),  # it takes biases for lost matrices
]

PRE, POST = "wav2vec2-pre-norm-layer", "wav2vec2-post-norm-group"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": (PRE, {}),
    "post-norm": (POST, {"target_modules": ["k_proj", "out_proj"]}),
    "HuBERT": ("hubert-post-norm-group", {}),
    "pre-norm HuBERT": ("hubert-pre-norm-layer", {"target_modules": list(TARGETS)}),
    "rank-stabilised": (PRE, {"use_rslora": True}),
    "every target": (PRE, {"target_modules": list(TARGETS)}),
    "some layers": (POST, {"layers_to_transform": [1, 3], "layers_pattern": "layers"}),
    "with biases": (POST, {"target_modules": list(TARGETS), "lora_bias": True}),
    "different ranks": (
        PRE,
        {
            "target_modules": ["q_proj", "k_proj", "output_dense"],
            "rank_pattern": {"q_proj": 2, r"layers\.[12]\.attention\.k_proj": 7},
            "alpha_pattern": {"layers.0.attention.q_proj": 5, "output_dense": 9},
        },
    ),
    "different ranks, rank-stabilised": (
        "hubert-pre-norm-layer",
        {"use_rslora": True, "rank_pattern": {"v_proj": 9}, "alpha_pattern": {r".*\.2\..*v_proj": 3}},
    ),
    "another target in each layer": (
        PRE,
        {"target_modules": r".*layers\.(0\.attention\.v_proj|2\.feed_forward\.intermediate_dense)"},
    ),
}


def backbone(kind: str) -> Encoder:
    return encoder_of(reference(kind))


@pytest.mark.parametrize("case", CASES)
def test_what_peft_saved_says_what_peft_says(case, tmp_path):
    kind, settings = CASES[case]
    model = peft_model(kind, tmp_path, **settings)
    encoder = backbone(kind)
    found = read_peft("de", tmp_path, encoder.size, model_type=encoder.config.model_type)
    assert found.vocab == letters(24)
    with model.disable_adapter():
        bare = logits(model, CLIPS[0])
    assert (logits(model, CLIPS[0]) - bare).abs().mean() > 0.1, "the adapter changes nothing"
    batch = ours(encoder, [(found.config, found.tensors)] * 3, CLIPS)
    for samples, row in zip(CLIPS, batch, strict=True):
        theirs = logits(model, samples)
        torch.testing.assert_close(ours(encoder, [(found.config, found.tensors)], [samples])[0], theirs, **CLOSE)
        torch.testing.assert_close(row, theirs, **CLOSE)


def test_what_the_shapes_become(tmp_path):
    peft_model(*CASES["different ranks"][:1], tmp_path, **CASES["different ranks"][1])
    encoder = backbone(PRE)
    config = read_peft("de", tmp_path, encoder.size).config
    targets = ("q_proj", "k_proj", "output_dense")
    assert config == AdapterConfig("lora", 7, (0, 1, 2, 3), "none", 24, {"targets": targets})
    peft_model(PRE, tmp_path / "one", **CASES["another target in each layer"][1])
    config = read_peft("de", tmp_path / "one", encoder.size).config
    assert (config.layers, config.options["targets"]) == ((0, 2), ("v_proj", "intermediate_dense"))


REFUSED_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"use_dora": True}, "use_dora is set: DoRA"),
    ({"fan_in_fan_out": True}, "fan_in_fan_out is set"),
    ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication is set"),
    ({"alora_invocation_tokens": [1]}, "aLoRA"),
    ({"target_parameters": ["weight"]}, "target_parameters is set"),
    ({"bias": "lora_only"}, "bias is 'lora_only'.*lora_bias=True"),
    ({"bias": "all"}, "bias is 'all'"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'.*path_initial_model_for_weight_conversion"),
    ({"modules_to_save": 5}, "modules_to_save is '5', not a list of names"),
    ({"modules_to_save": "lm_head"}, "modules_to_save is 'lm_head', not a list of names"),
    ({"modules_to_save": [["lm_head"]]}, "not a list of names"),
    ({"modules_to_save": ["lm_head", "layer_norm"]}, "modules_to_save has 'layer_norm'; lm_head alone"),
    ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
    ({"r": 0}, "r is 0, not a number above 0"),
    ({"lora_alpha": "16"}, "lora_alpha is '16', not a number"),
    ({"r": True}, "r is True"),
    ({"rank_pattern": {"q_proj": 2.5}}, "rank_pattern has 2.5 for 'q_proj'"),
    ({"rank_pattern": [1]}, "rank_pattern is no object"),
    ({"alpha_pattern": {"(": 2}}, "no regular expression"),
    ({"alpha_pattern": {"(a+)+b": 2}}, "repeats too much"),
    ({"r": 3}, r"lora_A \(4, 48\) and lora_B \(48, 4\), and adapter_config.json says rank 3"),
]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    peft_model(PRE, tmp_path)
    return tmp_path


@pytest.mark.parametrize(("change", "said"), REFUSED_SETTINGS, ids=[str(change) for change, _ in REFUSED_SETTINGS])
def test_settings_that_cannot_be_worn_are_refused_by_name(saved, change, said):
    path = saved / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(TonguesError, match=f"adapter 'de': .*{said}"):
        read_peft("de", saved, backbone(PRE).size)


Q = "base_model.model.wav2vec2.encoder.layers.0.attention.q_proj"
REFUSED_TENSORS: dict[str, tuple[dict[str, Any], type[TonguesError], str]] = {
    "another target": (
        {"base_model.model.wav2vec2.feature_projection.projection.lora_A.weight": torch.zeros(4, 32)},
        AdapterFormatError,
        "LoRA at 'wav2vec2.feature_projection.projection'; what can be worn is q_proj, k_proj, v_proj, out_proj, ",
    ),
    "LoRA at the head": (
        {"base_model.model.lm_head.lora_A.weight": torch.zeros(4, 48)},
        AdapterFormatError,
        "LoRA at 'lm_head'",
    ),
    "DoRA": ({f"{Q}.lora_magnitude_vector": torch.ones(48)}, AdapterFormatError, "DoRA at .*layers.0.attention.q_proj"),
    "a module that was saved whole": (
        {"base_model.model.wav2vec2.encoder.layers.0.layer_norm.weight": torch.ones(48)},
        AdapterFormatError,
        "'wav2vec2.encoder.layers.0.layer_norm' was trained whole, and of such modules only lm_head",
    ),
    "nothing that PEFT writes": ({"something": torch.ones(1)}, AdapterFormatError, "'something' has no place"),
    "a layer too many": (
        {f"{Q.replace('.0.', '.4.')}.lora_A.weight": torch.zeros(4, 48)},
        AdapterMismatch,
        "changes layer 4, and the backbone has 4 layers",
    ),
    "half of a projection": ({f"{Q}.lora_B.weight": None}, AdapterFormatError, "q_proj lacks lora_B.weight"),
    "no head": (
        {"base_model.model.lm_head.bias": None},
        AdapterFormatError,
        r"no lm_head .*modules_to_save=\['lm_head",
    ),
    "another width": (
        {f"{Q}.lora_A.weight": torch.ones(4, 32)},
        AdapterMismatch,
        "layers.0.q_proj changes 32 -> 48, and the backbone's own is 48 -> 48",
    ),
    "no matrix": ({f"{Q}.lora_A.weight": torch.ones(4)}, AdapterMismatch, r"lora_A \(4,\)"),
    "a bias of another width": (
        {f"{Q}.lora_B.bias": torch.ones(32)},
        AdapterMismatch,
        r"q_proj has lora_B.bias of shape \(32,\), not \(48,\)",
    ),
    "a head of another width": (
        {"base_model.model.lm_head.weight": torch.ones(24, 32)},
        AdapterMismatch,
        r"head.weight is of shape \(24, 32\)",
    ),
    "a head of no width and of no end": (
        {"base_model.model.lm_head.weight": torch.ones(100_000, 0)},
        AdapterFormatError,
        "the head has 100000 rows; 65536 are the most",
    ),
    "a layer that is no number": (
        {f"{Q.replace('.0.', '.' + '9' * 5000 + '.')}.lora_A.weight": torch.zeros(4, 48)},
        AdapterFormatError,
        "and of such modules|LoRA at ",
    ),
    "a head that is none": (
        {"base_model.model.lm_head.weight": torch.ones(24)},
        AdapterMismatch,
        r"lm_head.weight is of shape \(24,\)",
    ),
    "NaN": ({f"{Q}.lora_A.weight": torch.full((4, 48), float("nan"))}, AdapterFormatError, "NaN or infinity"),
}


@pytest.mark.parametrize("case", REFUSED_TENSORS)
def test_tensors_that_cannot_be_worn_are_refused_by_name(saved, case):
    changes, kind, said = REFUSED_TENSORS[case]
    path = saved / "adapter_model.safetensors"
    tensors = {**load_file(path), **changes}
    save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, path)
    with pytest.raises(kind, match=said):
        read_peft("de", saved, backbone(PRE).size)


def test_a_file_without_lora(saved):
    path = saved / "adapter_model.safetensors"
    save_file({key: tensor for key, tensor in load_file(path).items() if "lm_head" in key}, path)
    with pytest.raises(AdapterFormatError, match="nothing of LoRA"):
        read_peft("de", saved, backbone(PRE).size)


def test_an_adapter_of_the_other_architecture(saved):
    with pytest.raises(AdapterMismatch, match="of a wav2vec2 model, and the backbone is of hubert"):
        read_peft("de", saved, backbone(PRE).size, model_type="hubert")


def test_pickles_and_broken_files_are_refused(saved):
    weights, size = saved / "adapter_model.safetensors", backbone(PRE).size
    content = weights.read_bytes()
    weights.write_bytes(content[:1000])
    with pytest.raises(AdapterFormatError, match="is not safetensors"):
        read_peft("de", saved, size)
    weights.rename(saved / "adapter_model.bin")
    with pytest.raises(AdapterFormatError, match=r"adapter_model.bin is a pickle, which is never loaded; save it anew"):
        read_peft("de", saved, size)
    (saved / "adapter_model.bin").unlink()
    with pytest.raises(AdapterFormatError, match=r"no adapter_model.safetensors in "):
        read_peft("de", saved, size)
    (saved / "adapter_config.json").write_text("[1]")
    with pytest.raises(AdapterFormatError, match="not one JSON object"):
        read_peft("de", saved, size)
    (saved / "adapter_config.json").write_text("{")
    with pytest.raises(AdapterFormatError, match="is not JSON"):
        read_peft("de", saved, size)
    (saved / "adapter_config.json").unlink()
    with pytest.raises(AdapterFormatError, match="cannot be read: No such file"):
        read_peft("de", saved, size)


def test_the_vocabulary_may_be_given(saved):
    size = backbone(PRE).size
    other = Vocab(letters(24).tokens[::-1])
    assert read_peft("de", saved, size, other).vocab == other
    (saved / "other.json").write_text(other.to_json())
    assert read_peft("de", saved, size, saved / "other.json").vocab == other
    with pytest.raises(AdapterMismatch, match=r"\(24, 48\), not \(23, 48\)"):
        read_peft("de", saved, size, letters(23))
    (saved / "vocab.json").unlink()
    with pytest.raises(AdapterFormatError, match=r"no vocab.json in .*none was given"):
        read_peft("de", saved, size)


def test_a_rank_that_no_linear_has(tmp_path):
    """Told by the header: nothing of it is loaded."""
    peft_model(PRE, tmp_path, r=100)
    with pytest.raises(AdapterMismatch, match="rank 100, and no linear of the backbone is wider than 96"):
        read_peft("de", tmp_path, backbone(PRE).size)


def test_shapes_are_looked_at_before_anything_is_loaded(saved, monkeypatch):
    path = saved / "adapter_model.safetensors"
    save_file({**load_file(path), "base_model.model.lm_head.weight": torch.ones(24, 32)}, path)
    monkeypatch.setattr("adapters.formats.peft.read_tensors", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(AdapterMismatch, match=r"head.weight is of shape"):
        read_peft("de", saved, backbone(PRE).size)


def test_what_it_was_trained_on_is_kept(saved):
    path = saved / "adapter_config.json"
    for said, kept in {"facebook/wav2vec2-base": "facebook/wav2vec2-base", "": None, "a\nb": None}.items():
        path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": said}))
        assert read_peft("de", saved, backbone(PRE).size).base_model == kept


MMS = {"adapter_attn_dim": 8}


def test_an_adapter_that_ran_over_one_of_mms_is_refused_unless_it_did_not(tmp_path):
    """PEFT runs over the adapter of MMS within the layers, and what is imported runs on the bare layers."""
    for folder, base in {"over": MMS, "bare": {}}.items():
        peft_model(PRE, tmp_path / folder, base=base)
    reference(PRE, **MMS).save_pretrained(tmp_path / "mms")
    encoder, config = load_backbone(tmp_path / "mms"), read_config(tmp_path / "mms")
    with pytest.raises(AdapterMismatch, match=r"of the backbone is 8: PEFT ran over .*; train it .*--bare"):
        read_foreign("de", tmp_path / "over", encoder.size, config, language="de")
    found = read_foreign("de", tmp_path / "bare", encoder.size, config, language="de", bare=True)
    assert found.config.method == "lora"
