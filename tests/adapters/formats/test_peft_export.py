"""What is written for PEFT: PEFT loads it and says the same, and nothing is replaced unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC

from adapters.backbone import load_backbone, read_config
from adapters.config import AdapterConfig
from adapters.durable import write_whole
from adapters.encoder import Encoder
from adapters.errors import AdapterFormatError
from adapters.formats import Imported
from adapters.formats.peft import read_peft
from adapters.formats.peft_export import write_peft
from adapters.methods.lora import TARGETS
from adapters.vocab import Vocab
from tests.adapters.formats.theirs import CLIPS, CLOSE, logits, made, ours, published
from tests.builders import encoder_of, reference

pytest.importorskip("peft", reason="the dev extra is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # PEFT asks transformers for what it will drop
    pytest.mark.filterwarnings("ignore:Adapter 'default'. .* invalid shape"),  # it takes biases for lost matrices
]

PRE, POST = "wav2vec2-pre-norm-layer", "wav2vec2-post-norm-group"


def backbone(kind: str) -> Encoder:
    return encoder_of(reference(kind))


WRITTEN = {
    "queries and values": (PRE, AdapterConfig("lora", 5, (1, 3), "none", 24)),
    "every target and biases": (POST, AdapterConfig("lora", 3, (0, 2), "none", 24, {"targets": TARGETS, "bias": True})),
    "HuBERT": ("hubert-pre-norm-layer", AdapterConfig("lora", 2, (3,), "none", 24, {"targets": ("out_proj",)})),
    "a head alone": (PRE, AdapterConfig("head", 0, (), "none", 24)),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_what_we_write_peft_loads_and_we_read_back(case, tmp_path):
    from peft import PeftModel

    kind, config = WRITTEN[case]
    encoder = backbone(kind)
    adapter = made(tmp_path / "store", encoder, config)
    written = write_peft(adapter, tmp_path / "peft", encoder.config)
    files = ["adapter_config.json", "adapter_model.safetensors", "tokenizer_config.json", "vocab.json"]
    assert sorted(path.name for path in written) == files
    model = PeftModel.from_pretrained(reference(kind), tmp_path / "peft").eval()
    for samples in CLIPS:
        mine = ours(encoder, [(config, adapter.tensors)], [samples])[0]
        torch.testing.assert_close(logits(model, samples), mine, **CLOSE)
    again = read_peft("de", tmp_path / "peft", encoder.size)
    assert (again.config, again.vocab) == (config, adapter.vocab)
    assert again.tensors.keys() == adapter.tensors.keys()
    assert all(torch.equal(again.tensors[key], tensor) for key, tensor in adapter.tensors.items())


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (("[PAD]", "|", "a", "B", "[UNK]"), "a B"),
        (("a", " ", "<pad>", "B", "<s>", "</s>", "<unk>"), "a B"),
        (("[PAD]", "<unused-1>", "a", "B"), "aB"),
    ],
)
def test_transformers_decodes_what_is_written(tokens, said, tmp_path):
    encoder, vocab = backbone(PRE), Vocab(tokens)
    adapter = made(tmp_path / "s", encoder, AdapterConfig("head", 0, (), "none", vocab.size), vocab=vocab)
    write_peft(adapter, tmp_path / "peft", encoder.config)
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path / "peft")
    a, b, blank = tokens.index("a"), tokens.index("B"), vocab.blank
    between = [blank] if vocab.delimiter is None else [vocab.delimiter, blank]
    assert tokenizer.decode([blank, a, a, *between, b, blank]) == said
    assert len(tokenizer) == vocab.size, "vocab_size=len(tokenizer) makes a model that it fits"
    assert tokenizer("a B" if " " in said else "aB").input_ids == vocab.encode(said)
    assert read_peft("de", tmp_path / "peft", encoder.size).vocab == vocab


def test_transformers_tells_a_sigma_as_the_word_has_it(tmp_path):
    encoder, vocab = backbone(PRE), Vocab(("<pad>", "|", "α", "Σ"))
    adapter = made(tmp_path / "s", encoder, AdapterConfig("head", 0, (), "none", vocab.size), vocab=vocab)
    write_peft(adapter, tmp_path / "peft", encoder.config)
    assert Wav2Vec2CTCTokenizer.from_pretrained(tmp_path / "peft").decode([3, 2, 3, 1, 2]) == "σας α"
    assert read_peft("el", tmp_path / "peft", encoder.size).vocab == vocab


def test_a_round_trip_through_half_precision_keeps_the_type(tmp_path):
    encoder = backbone(PRE)
    config = AdapterConfig("lora", 4, (2,), "none", 24)
    adapter = made(tmp_path / "store", encoder, config)
    half = {key: tensor.half() for key, tensor in adapter.tensors.items()}
    loaded = published(tmp_path / "half", "half", encoder, Imported(config, half, adapter.vocab))
    write_peft(loaded, tmp_path / "peft", encoder.config)
    again = read_peft("de", tmp_path / "peft", encoder.size).tensors
    assert all(again[key].dtype == torch.float16 and torch.equal(again[key], half[key]) for key in half)
    settings = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 3}))
    scaled = read_peft("de", tmp_path / "peft", encoder.size).tensors
    assert scaled["head.weight"].dtype == torch.float32, "float16 cannot hold what three quarters of it are"
    b = half["layers.2.q_proj.lora_B.weight"].float()
    torch.testing.assert_close(scaled["layers.2.q_proj.lora_B.weight"], b * 0.75)


REFUSED_EXPORTS = {
    "bottleneck": (AdapterConfig("bottleneck", 4, (1,), "none", 24), "this is of the method 'bottleneck'"),
    "mms": (AdapterConfig("mms", 4, (0, 1, 2, 3), "none", 24), "'mms'; tongues adapters export --to mms"),
    "norms": (AdapterConfig("lora", 4, (1,), "adapted", 24), "layer norms of its own"),
}


@pytest.mark.parametrize("case", REFUSED_EXPORTS)
def test_what_peft_has_no_place_for_is_not_written(case, tmp_path):
    config, said = REFUSED_EXPORTS[case]
    encoder = backbone(PRE)
    with pytest.raises(AdapterFormatError, match=said):
        write_peft(made(tmp_path / "store", encoder, config), tmp_path / "out", encoder.config)
    assert not (tmp_path / "out").exists()


def test_off_a_backbone_of_mms_what_is_written_is_loaded_without_its_adapters(tmp_path):
    from peft import PeftModel

    reference(PRE, adapter_attn_dim=8).save_pretrained(tmp_path / "mms")
    encoder, config = load_backbone(tmp_path / "mms"), read_config(tmp_path / "mms")
    shape = AdapterConfig("lora", 3, (1, 3), "none", 24)
    adapter = made(tmp_path / "store", encoder, shape)
    with pytest.raises(AdapterFormatError, match=r"of the backbone is 8: .*adapter_attn_dim=None.*--bare"):
        write_peft(adapter, tmp_path / "peft", config)
    assert not (tmp_path / "peft").exists()
    write_peft(adapter, tmp_path / "peft", config, bare=True)
    base = Wav2Vec2ForCTC.from_pretrained(tmp_path / "mms", adapter_attn_dim=None, vocab_size=24)
    model = PeftModel.from_pretrained(base, tmp_path / "peft").eval()
    mine = ours(encoder, [(shape, adapter.tensors)], [CLIPS[0]])[0]
    torch.testing.assert_close(logits(model, CLIPS[0]), mine, **CLOSE)


def test_nothing_is_replaced_unasked_and_a_crash_leaves_no_mixture(tmp_path, monkeypatch):
    encoder = backbone(PRE)
    one, other = (
        made(tmp_path / str(rank), encoder, AdapterConfig("lora", rank, (2,), "none", 24), seed=rank) for rank in (2, 3)
    )
    out = tmp_path / "peft"
    write_peft(one, out, encoder.config)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(AdapterFormatError, match=r"adapter_model.safetensors is there already: .*--force"):
        write_peft(other, out, encoder.config)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before

    def killed(path: Path, content: bytes) -> None:
        if path.name == "vocab.json":
            raise KeyboardInterrupt
        write_whole(path, content)

    monkeypatch.setattr("adapters.formats.written.write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        write_peft(other, out, encoder.config, force=True)
    assert not (out / "adapter_config.json").exists(), "half of it would be loaded"
    monkeypatch.undo()
    write_peft(other, out, encoder.config, force=True)
    assert read_peft("de", out, encoder.size).config.size == 3
