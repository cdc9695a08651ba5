"""Who may change what is served, and the form in which a version of an adapter comes."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from starlette.requests import Request

from app.errors import AdapterTooLarge, BadParameter, NotAllowed, PublishingOff
from app.settings import Settings
from app.upload import receive_files

_RECORD, _FILES, _OPTIONAL = "adapter.json", ("weights", "vocab"), ("language_model",)


@dataclass(frozen=True)
class SentAdapter:
    """The files of a version, as they lie on disk: its record, and others by what they are."""

    record: bytes
    files: dict[str, bytes]


def check_admin(request: Request, settings: Settings) -> None:
    """Raises :class:`PublishingOff` where no key is set, :class:`NotAllowed` where the request does not bear it."""
    if settings.admin_key is None:
        raise PublishingOff("publishing over HTTP is off: set TONGUES_ADMIN_KEY to turn it on")
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secrets.compare_digest(
        key.strip().encode(), settings.admin_key.get_secret_value().encode()
    ):
        raise NotAllowed("send the admin key: Authorization: Bearer KEY")


def instead_of(request: Request) -> str | None:
    """The version that must be current, ``""`` for none at all, None where the client does not mind which.

    Raises :class:`BadParameter` for conditions that are not known here."""
    absent, wanted = (request.headers.get(name) for name in ("if-none-match", "if-match"))
    version = None if wanted is None else wanted.strip().removeprefix("W/").strip('" ')
    if (
        (absent is not None and (absent.strip() != "*" or version is not None))
        or version in ("", "*")
        or "," in (version or "")
    ):
        raise BadParameter('If-Match takes one version, as "VERSION", or If-None-Match takes *', "If-Match")
    return version if absent is None else ""


async def receive_adapter(request: Request, settings: Settings) -> SentAdapter:
    """The form of a ``PUT``. Raises :class:`AdapterTooLarge`, and what :func:`receive_files` does."""
    limit = settings.max_adapter_bytes
    too_large = AdapterTooLarge(f"more than the {limit} bytes that are accepted (TONGUES_MAX_ADAPTER_BYTES)")
    every = (_RECORD, *_FILES, *_OPTIONAL)
    sent = await receive_files(request, settings, limit, too_large, count=len(every))
    for name in (_RECORD, *_FILES):
        if name not in sent:
            raise BadParameter(
                f"the form has the files {', '.join((_RECORD, *_FILES))} (-F {name}=@FILE); {name} is missing", name
            )
    if sum(map(len, sent.values())) > limit:
        raise too_large
    return SentAdapter(sent[_RECORD], {name: sent[name] for name in (*_FILES, *_OPTIONAL) if name in sent})
