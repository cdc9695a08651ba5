"""Rank and scale of a module are those that PEFT gives it."""

from __future__ import annotations

import math

import pytest

from adapters.formats.peft_settings import LoraSettings

MODULES = [
    f"wav2vec2.encoder.layers.{layer}.{within}"
    for layer in (0, 1, 10, 11)
    for within in ("attention.q_proj", "attention.out_proj", "feed_forward.output_dense")
]
PATTERNS = [
    {"q_proj": 2},
    {"proj": 2},
    {"attention.q_proj": 2, "q_proj": 3},
    {"layers.1.attention.q_proj": 2},
    {"^wav2vec2.encoder.layers.0.attention.q_proj": 2},
    {r"layers\.1\d\..*": 2, ".*": 5},
    {r"(q_proj|out_proj)": 2},
    {r".*layers.[01].*dense": 7},
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_patterns_match_as_in_peft(pattern):
    get_pattern_key = pytest.importorskip("peft.utils.other").get_pattern_key
    for stabilised in (False, True):
        raw = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "rank_pattern": pattern, "use_rslora": stabilised}
        settings = LoraSettings.read("de", raw)
        for module in MODULES:
            rank = pattern.get(get_pattern_key(pattern.keys(), module), 4)
            assert settings.rank(module) == rank
            assert settings.scale(module) == 6 / (math.sqrt(rank) if stabilised else rank)
        settings = LoraSettings.read("de", {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "alpha_pattern": pattern})
        for module in MODULES:
            assert settings.scale(module) == pattern.get(get_pattern_key(pattern.keys(), module), 6) / 4


def test_what_is_left_out_is_as_peft_has_it():
    settings = LoraSettings.read("de", {"peft_type": "LORA"})
    assert (settings.rank("q_proj"), settings.scale("q_proj")) == (8, 1.0)
