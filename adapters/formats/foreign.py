"""An adapter of another project, recognised by what lies there."""

from __future__ import annotations

from pathlib import Path

from adapters.config import BackboneSize
from adapters.errors import AdapterFormatError
from adapters.formats import Imported
from adapters.formats.files import read_json, read_tensors
from adapters.formats.mms import FILE, read_mms
from adapters.formats.peft import CONFIG, VOCAB, read_peft
from adapters.formats.vocabulary import part_of
from adapters.language import language_key


def read_foreign(
    name: str,
    path: Path,
    size: BackboneSize,
    *,
    language: str,
    model_type: str,
    vocab: Path | None = None,
) -> Imported:
    """PEFT's folder with ``adapter_config.json``, a file ``adapter.LANG.safetensors`` of MMS, or a folder that has the
    one of ``language``. ``vocab``: another ``vocab.json`` than that beside it.

    Raises :class:`~adapters.errors.AdapterFormatError` and :class:`~adapters.errors.AdapterMismatch`; for what is
    neither, with what it looks like.
    """
    if (path / CONFIG).is_file():
        return read_peft(name, path, size, vocab, language=language, model_type=model_type)
    file = _mms_file(name, path, language)
    code = FILE.fullmatch(file.name)
    assert code is not None
    spoken = read_json(name, vocab or file.parent / VOCAB)
    nested = spoken if all(isinstance(part, dict) for part in spoken.values()) else {code[1]: spoken}
    tokens = part_of(name, nested, code[1] if code[1] in nested else language)
    return read_mms(name, read_tensors(name, file), tokens, size)


def _mms_file(name: str, path: Path, language: str) -> Path:
    if path.is_file() and FILE.fullmatch(path.name):
        return path
    if path.is_dir():
        codes = {found[1]: one for one in sorted(path.iterdir()) if (found := FILE.fullmatch(one.name))}
        key = language_key(language)
        meant = [one for code, one in codes.items() if code == language or (key and language_key(code) == key)]
        if len(meant) == 1:
            return meant[0]
        if codes:
            some = ", ".join(list(codes)[:10])
            raise AdapterFormatError(name, f"{path} has no single adapter of {language!r}: give one file of {some}")
    raise AdapterFormatError(name, f"{path} is neither {_MEANT}{_looks_like(path)}")


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
