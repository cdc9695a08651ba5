"""Licences of what an adapter is made of, joined."""

from __future__ import annotations

import pytest

from adapters.errors import DataError
from adapters.training.licence import check_licence, licence_of, licences_in


@pytest.mark.parametrize(
    ("licences", "joined"),
    [
        ([], None),
        ([None, ""], None),
        (["MIT", None, "MIT"], "MIT"),
        (["MIT", "CC0-1.0"], "CC0-1.0 AND MIT"),
        (["MIT AND CC0-1.0", "MIT"], "CC0-1.0 AND MIT"),
        (["GPL-2.0-only OR MIT"], "GPL-2.0-only OR MIT"),
        (["GPL-2.0-only OR MIT", "CC0-1.0"], "CC0-1.0 AND (GPL-2.0-only OR MIT)"),
        (["CC0-1.0 AND (GPL-2.0-only OR MIT)", "GPL-2.0-only OR MIT"], "CC0-1.0 AND (GPL-2.0-only OR MIT)"),
        (["A AND B OR C", "D"], "(A AND B OR C) AND D"),
        (["(A AND B) AND (C)", "D WITH E"], "A AND B AND C AND D WITH E"),
        (["(A) or (B)", "C"], "((A) or (B)) AND C"),
        (["(A) and (B)", "C)"], "(A) and (B) AND C)"),
    ],
)
def test_a_choice_stands_in_brackets_beside_others(licences: list[str | None], joined: str | None) -> None:
    assert licence_of(licences) == joined
    assert licence_of([joined]) == joined


def test_what_was_joined_holds_what_went_in() -> None:
    joined = licence_of(["A AND (B OR C)", "D"]) or ""
    assert licences_in("B OR C") <= licences_in(joined) == {"A", "B OR C", "D"}


@pytest.mark.parametrize("licence", ["", " \t", "\u00a0", "MIT\n\nCC0-1.0", "M\0IT", "M\udcffIT"])
def test_a_licence_that_no_manifest_can_name_is_refused(licence: str) -> None:
    with pytest.raises(DataError, match="a licence is named in SPDX's words"):
        check_licence(licence)


def test_white_space_around_a_licence_is_none_of_it() -> None:
    assert check_licence(" CC-BY-4.0\n") == "CC-BY-4.0"
