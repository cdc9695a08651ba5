"""What an error says, fit to be shown to anybody."""

from __future__ import annotations

import re

_ADDRESS = re.compile(
    r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#'\"<>]*@)?(?P<place>[^\s?#'\"<>]*)(?:[?#][^\s'\"<>]*)?"
)


def reason(error: BaseException) -> str:
    """The first line of what it says, or its kind where it says nothing. Of addresses the query and credentials are
    cut off: a signed one opens to whoever reads it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _ADDRESS.sub(r"\g<scheme>\g<place>", lines[0]) if lines else type(error).__name__
