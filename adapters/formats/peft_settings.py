"""``adapter_config.json`` of PEFT's LoRA: rank and scale of each module, and what of it can be worn here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from adapters.errors import AdapterFormatError

Number = TypeVar("Number", int, float)

# Settings that make of LoRA something else, and what that is. All are off (false, null, empty) where they do not count.
_OTHERS = {
    "use_dora": "DoRA; plain LoRA and rsLoRA can be worn",
    "use_qalora": "QA-LoRA; plain LoRA and rsLoRA can be worn",
    "use_bdlora": "BD-LoRA; plain LoRA and rsLoRA can be worn",
    "kasa_config": "KaSA, which cuts the backbone's own weights; plain LoRA and rsLoRA can be worn",
    "monteclora_config": "Monteclora; plain LoRA and rsLoRA can be worn",
    "arrow_config": "a router between several LoRAs; save one of them",
    "alora_invocation_tokens": "aLoRA, for texts; plain LoRA and rsLoRA can be worn",
    "fan_in_fan_out": "weights that lie the other way about, which no linear of these models does",
    "layer_replication": "layers of the backbone several times; train it on the backbone as it is",
    "target_parameters": "LoRA on parameters; train it with target_modules",
    "trainable_token_indices": "tokens of an embedding, which no backbone of speech has",
    "megatron_config": "a model split by Megatron; save it from one of transformers'",
}
_INITS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
_QUANTIFIERS = "*+?{"
_MOST_QUANTIFIERS = 3
_LARGEST = 1e9


@dataclass(frozen=True)
class LoraSettings:
    """What decides the scale of each module. Patterns map a module's name, or a regular expression for the end of it,
    to another rank or alpha, as PEFT reads them: the first that matches counts."""

    r: int
    lora_alpha: float
    use_rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]

    @classmethod
    def read(cls, name: str, raw: Mapping[str, Any]) -> LoraSettings:
        """Raises :class:`~adapters.errors.AdapterFormatError` naming the setting that cannot be worn, and what can."""

        def refuse(reason: str) -> AdapterFormatError:
            return AdapterFormatError(name, f"adapter_config.json: {reason}")

        if (kind := raw.get("peft_type")) != "LORA":
            raise refuse(f"peft_type is {kind!r}; of PEFT's methods LORA can be worn")
        for setting, meaning in _OTHERS.items():
            if raw.get(setting):
                raise refuse(f"{setting} is set: {meaning}")
        if (bias := raw.get("bias", "none")) != "none":
            raise refuse(f"bias is {bias!r}, which keeps biases of the backbone itself; train it with lora_bias=True")
        if (init := raw.get("init_lora_weights", True)) not in _INITS:
            right = "convert it to plain LoRA when saving it (path_initial_model_for_weight_conversion)"
            raise refuse(f"init_lora_weights is {init!r}, which changed the backbone's own weights; {right}")
        saved = raw.get("modules_to_save") or []
        if not isinstance(saved, list) or not all(isinstance(module, str) for module in saved):
            raise refuse(f"modules_to_save is {str(saved)[:40]!r}, not a list of names")
        if others := [module for module in saved if module != "lm_head"]:
            raise refuse(f"modules_to_save has {others[0]!r}; lm_head alone can be worn")
        return cls(
            r=_number(raw, "r", 8, refuse, whole=True),
            lora_alpha=_number(raw, "lora_alpha", 8, refuse),
            use_rslora=bool(raw.get("use_rslora", False)),
            rank_pattern=_pattern(raw, "rank_pattern", refuse, whole=True),
            alpha_pattern=_pattern(raw, "alpha_pattern", refuse),
        )

    def rank(self, module: str) -> int:
        """Of one module, such as ``wav2vec2.encoder.layers.0.attention.q_proj``."""
        return _matching(self.rank_pattern, module, self.r)

    def scale(self, module: str) -> float:
        """What B A of one module is multiplied by."""
        rank, alpha = self.rank(module), _matching(self.alpha_pattern, module, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


_Refuse = Callable[[str], AdapterFormatError]


def _matching(pattern: Mapping[str, Number], module: str, usual: Number) -> Number:
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", module)), usual)


def _number(raw: Mapping[str, Any], setting: str, usual: int, refuse: _Refuse, *, whole: bool = False) -> Any:
    value = raw.get(setting, usual)
    if not _is_number(value, whole):
        raise refuse(f"{setting} is {value!r}, not a number above 0")
    return value


def _pattern(raw: Mapping[str, Any], setting: str, refuse: _Refuse, *, whole: bool = False) -> dict[str, Any]:
    pattern = raw.get(setting) or {}
    if not isinstance(pattern, dict):
        raise refuse(f"{setting} is no object of names and numbers")
    for key, value in pattern.items():
        if not _is_number(value, whole):
            raise refuse(f"{setting} has {value!r} for {key!r}, not a number above 0")
        try:
            re.compile(key)
        except re.error as error:
            raise refuse(f"{setting} has {key!r}, which is no regular expression: {error}") from error
        # what backtracks for hours on a name of a module must not come with a file
        if sum(map(key.count, _QUANTIFIERS)) > _MOST_QUANTIFIERS or re.search(r"\)[*+?{]", key):
            raise refuse(f"{setting} has {key!r}, which repeats too much; name the modules")
    return pattern


def _is_number(value: object, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return False
    return 0 < value <= _LARGEST
