"""An adapter of another project, recognised by what lies there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from adapters.config import BackboneSize
from adapters.errors import AdapterFormatError, AdapterMismatch
from adapters.fit import check_shapes
from adapters.formats import Imported
from adapters.formats.files import read_header, read_json, read_tensors
from adapters.formats.mms import FILE, backbone_width, mms_language, read_mms
from adapters.formats.peft import CONFIG, VOCAB, read_peft
from adapters.formats.tokenizer import Tokenizer
from adapters.formats.vocabulary import part_of
from adapters.language import language_key, names_script

if TYPE_CHECKING:
    from adapters.encoder import BackboneConfig


def read_foreign(
    name: str,
    path: Path,
    size: BackboneSize,
    backbone: BackboneConfig,
    *,
    language: str,
    vocab: Path | None = None,
    bare: bool = False,
) -> Imported:
    """PEFT's folder with ``adapter_config.json``, a file ``adapter.LANG.safetensors`` of MMS, or a folder that has the
    one of ``language``. ``vocab``: another ``vocab.json`` than that beside it. ``bare``: what PEFT saved was trained
    without the adapters of MMS that this ``backbone`` has a place for.

    Raises :class:`~adapters.errors.AdapterFormatError` and :class:`~adapters.errors.AdapterMismatch`; for what is
    neither, with what it looks like.
    """
    if (path / CONFIG).is_file():
        if (width := backbone_width(backbone)) is not None and not bare:
            said = f"adapter_attn_dim of the backbone is {width}: PEFT ran over an adapter of MMS in its layers"
            right = "train it with adapter_attn_dim=None, and say --bare of one that was"
            raise AdapterMismatch(name, f"{said}, and nothing here does; {right}")
        return read_peft(name, path, size, vocab, language=language, model_type=backbone.model_type)
    file = _mms_file(name, path, language)
    code = FILE.fullmatch(file.name)
    assert code is not None
    told = vocab or file.parent / VOCAB
    spoken = read_json(name, told)
    nested = spoken if all(isinstance(part, dict) for part in spoken.values()) else {code[1]: spoken}
    tokens = part_of(name, nested, code[1] if code[1] in nested else language)
    tokenizer = Tokenizer.read(name, told.parent)
    shapes = read_mms(name, read_header(name, file), tokens, size, tokenizer)
    check_shapes(name, shapes.config, shapes.tensors, size)
    return read_mms(name, read_tensors(name, file), tokens, size, tokenizer)


def _mms_file(name: str, path: Path, language: str) -> Path:
    if path.is_file() and FILE.fullmatch(path.name):
        return path
    if path.is_dir():
        codes = {found[1]: one for one in sorted(path.iterdir()) if (found := FILE.fullmatch(one.name))}
        meant = {language: codes[language]} if language in codes else _speaking(codes, language)
        if len(meant) == 1:
            return next(iter(meant.values()))
        if codes:
            some = ", ".join(list(meant or codes)[:10])
            raise AdapterFormatError(name, f"{path} has no single adapter of {language!r}: give one file of {some}")
    raise AdapterFormatError(name, f"{path} is neither {_MEANT}{_looks_like(path)}")


def _speaking(codes: dict[str, Path], language: str) -> dict[str, Path]:
    """Those of ``language``: in any script, where none is named."""
    key = language_key(language)
    spoken = {code: language_key(mms_language(code) or code) or "" for code in codes}
    if not names_script(language):
        spoken = {code: said.partition("-")[0] for code, said in spoken.items()}
    return {code: codes[code] for code, said in spoken.items() if key is not None and said == key}


_MEANT = f"a folder of PEFT ({CONFIG}) nor an adapter of MMS (adapter.LANG.safetensors)"


def _looks_like(path: Path) -> str:
    if not path.exists():
        return "; there is nothing"
    if path.suffix == ".bin" or (path.is_dir() and list(path.glob("adapter*.bin"))):
        return "; files in .bin are pickles, which are never loaded: save them anew as safetensors"
    if path.is_dir() and ((path / "config.json").is_file() or (path / "backbone").is_dir()):
        return "; a whole checkpoint is for tongues adapters extract"
    if path.is_dir() and (path / "adapter.json").is_file():
        return "; it is an adapter of ours already: PUT /adapters, or copy it into the model's adapters/"
    return ""
