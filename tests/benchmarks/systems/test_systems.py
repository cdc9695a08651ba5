"""Each system answers, and answers what it should: the language counts where there are languages, and only there."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from adapters.backbone import load_backbone
from adapters.graphs import eagerly
from benchmarks.backbones import VOCAB
from benchmarks.clips import cut
from benchmarks.systems import SYSTEMS, SystemSpec, SystemUnable, make_system
from benchmarks.systems.bare import BareBackbone
from benchmarks.systems.plain import load_plain, padded, tokens

SPEAKING = ("engine", "load_adapter", "bare", "full models")


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", SPEAKING)
async def test_a_system_starts_answers_and_stops(spec, name):
    system = make_system(name, spec)
    await system.start()
    try:
        first, again, other = [await system.answer(cut("1-2 s")[0], language) for language in (1, 1, 2)]
        assert first == again
        if name in ("engine", "load_adapter"):
            assert first != other
        if name == "bare":
            assert first == other
    finally:
        await system.stop()
    assert system.facts["chose"]


@pytest.mark.anyio
async def test_the_engine_counts_its_rows_and_padding(spec):
    system = make_system("engine", spec)
    await system.start()
    await system.answer(cut("1-2 s")[0], 0)
    await system.stop()
    assert system.facts["rows a step"] == 1
    assert system.facts["padding"] == 0


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore::FutureWarning")
async def test_load_adapter_wears_another_language(spec):
    from benchmarks.systems.swapping import SwappedAdapters

    system = SwappedAdapters(spec)
    await system.start()
    head = system._model.lm_head.weight
    await system.answer(cut("1-2 s")[0], 0)
    worn = head.detach().clone()
    await system.answer(cut("1-2 s")[0], 2)
    assert not torch.equal(head, worn)
    await system.answer(cut("1-2 s")[0], 0)
    assert torch.equal(head, worn)
    await system.stop()


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore::FutureWarning")
async def test_full_models_say_where_memory_ends(spec):
    roomy = make_system("full models", spec)
    await roomy.start()
    each = int(roomy.facts["bytes a language"])
    await roomy.stop()
    system = make_system("full models", replace(spec, memory_bytes=2 * each + each // 2, adapters=50))
    await system.start()
    assert int(system.facts["ends at"]) <= 2
    with pytest.raises(SystemUnable, match="no more fit: memory ends at"):
        await system.answer(cut("1-2 s")[0], 49)
    await system.stop()


@pytest.mark.anyio
async def test_load_adapter_needs_a_pre_norm_backbone(spec, tmp_path):
    from tests.builders import make_model

    model = make_model(tmp_path, "wav2vec2-post-norm-group")
    system = make_system("load_adapter", replace(spec, model=model))
    with pytest.raises(SystemUnable, match="pre-norm"):
        await system.start()


def test_a_library_that_is_not_there_is_a_reason(spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.delitem(sys.modules, "benchmarks.systems.lora", raising=False)
    with pytest.raises(SystemUnable, match=r"peft is not installed"):
        make_system("peft", spec)


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore")
async def test_peft_mixes_languages(spec):
    pytest.importorskip("peft", reason="the bench extra is not installed")
    from benchmarks.systems.lora import MixedLora

    system = MixedLora(spec)
    await system.start()
    clip = cut("1-2 s")[0]
    one, other = system._forward([(clip, 1)])[0], system._forward([(clip, 2)])[0]
    assert one != other
    assert system._forward([(clip, 2), (clip, 1), (clip, 2)]) == [other, one, other]
    await system.stop()


def test_the_bare_backbone_says_the_same_in_the_few_shapes_of_graphs(spec):
    system = BareBackbone(spec)
    system._encoder = load_backbone(spec.backbone)
    system._head = torch.randn(VOCAB.size, system._encoder.hidden_size, generator=torch.Generator().manual_seed(1))
    system._run = eagerly
    rows = [(clip, 0) for clip in cut("1-2 s")[:3]]
    assert system._by_graphs(rows) == [system._by_encoder([row])[0] for row in rows]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_two_floors_say_the_same_of_a_lone_clip(spec):
    """They differ in padded batches, where transformers' group norm sees the padding."""
    clips = [cut("1-2 s")[0]]
    plain = load_plain(spec)
    encoder = load_backbone(spec.backbone)
    audio, inputs = padded(clips, spec)
    with torch.inference_mode():
        theirs = plain(**inputs).logits
        frames = encoder.trunk(audio, encoder.layer_count)
        ours = plain.lm_head(encoder.hidden(frames, encoder.bare))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert tokens(ours, frames.lengths) == tokens(theirs, [theirs.shape[1]])


def test_tokens_are_collapsed_within_each_row():
    best = torch.tensor([[0, 2, 2, 0, 2, 3, 3, 1], [1, 1, 0, 0, 5, 5, 5, 5]])
    logits = torch.nn.functional.one_hot(best, 6).float()
    assert tokens(logits, [8, 4]) == [[2, 2, 3, 1], [1]]


def test_every_system_is_found_by_its_name(spec):
    assert set(SYSTEMS) == {*SPEAKING, "peft"}
    with pytest.raises(KeyError):
        make_system("another", spec)


def test_a_specification_knows_its_dtype():
    spec = SystemSpec(model=None, adapters=1, device="cuda", cores=2, memory_bytes=1)  # type: ignore[arg-type]
    assert (spec.dtype, replace(spec, device="cpu").dtype) == (torch.float16, torch.float32)
