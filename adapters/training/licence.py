"""Licences of recordings and texts, as SPDX expressions."""

from __future__ import annotations

import re
from collections.abc import Iterable

from adapters.errors import DataError

_WORD = re.compile(r"[()]|[^\s()]+")
_OR, _AND = ("OR", "or"), ("AND",)


def check_licence(licence: str) -> str:
    """The licence without white space around it. Raises :class:`~adapters.errors.DataError` for what no manifest and no
    record can name: nothing, or what cannot be printed."""
    if not licence.strip() or not licence.strip().isprintable():
        raise DataError(f"a licence is named in SPDX's words, such as CC-BY-4.0, not {licence[:80]!a}")
    return licence.strip()


def licences_in(licence: str) -> set[str]:
    """Those that hold together: the parts of an expression that AND joins, without brackets around them."""
    parts = [licence] if _is_choice(licence) else _parts(licence, _AND)
    if len(parts) > 1:
        return {one for part in parts for one in licences_in(part)}
    return licences_in(licence[1:-1].strip()) if _in_brackets(licence) else {licence}


def licence_of(licences: Iterable[str | None]) -> str | None:
    """The SPDX expression of all of them, each once; a choice stands in brackets beside others."""
    told = sorted({one for licence in licences if licence for one in licences_in(licence.strip())})
    alone = len(told) == 1
    return " AND ".join(f"({one})" if _is_choice(one) and not alone else one for one in told) or None


def _is_choice(licence: str) -> bool:
    """OR binds less than AND, so that all of the expression is one."""
    return len(_parts(licence, _OR)) > 1


def _in_brackets(licence: str) -> bool:
    """Whether the bracket that opens it closes it."""
    depths = [depth for _, depth in _words(licence)]
    return licence.startswith("(") and licence.endswith(")") and min(depths[:-1]) == 1 and depths[-1] == 0


def _parts(licence: str, operators: tuple[str, ...]) -> list[str]:
    """What stands between the operators that are in no brackets."""
    parts, begin = [], 0
    for word, depth in _words(licence):
        if word[0] in operators and depth == 0:
            parts.append(licence[begin : word.start()].strip())
            begin = word.end()
    return [*parts, licence[begin:].strip()]


def _words(licence: str) -> list[tuple[re.Match[str], int]]:
    """Each with the brackets that are open after it."""
    found, depth = [], 0
    for word in _WORD.finditer(licence):
        depth += {"(": 1, ")": -1}.get(word[0], 0)
        found.append((word, depth))
    return found
