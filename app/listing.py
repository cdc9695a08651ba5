"""The adapters of a registry as ``GET /adapters`` and ``tongues adapters`` tell of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from adapters.errors import ChoiceError, UnknownAdapter
from app.engine.whereabouts import Whereabouts, unloaded
from app.schemas import AdapterOut

if TYPE_CHECKING:
    from adapters.language_head import LanguageHead
    from adapters.registry import RefusedAdapter, RegisteredAdapter, Registry

    Where = Callable[[RegisteredAdapter], Whereabouts]


def listing(registry: Registry, whereabouts: Where, head: LanguageHead | None) -> list[AdapterOut]:
    """All adapters by name, those among them that cannot be worn. ``head`` tells languages."""
    snapshot = registry.snapshot
    refused = {one.name: one for one in snapshot.refused}
    good = [_told(registry, one, whereabouts, head, refused.get(one.name)) for one in snapshot.adapters.values()]
    bad = [_refused(one) for one in snapshot.refused if one.name not in snapshot.adapters]
    return sorted([*good, *bad], key=lambda told: told.name)


def listed(registry: Registry, whereabouts: Where, head: LanguageHead | None, name: str) -> AdapterOut:
    """One of them. Raises :class:`UnknownAdapter`, naming what there is."""
    snapshot = registry.snapshot
    refused = next((one for one in snapshot.refused if one.name == name), None)
    if name in snapshot.adapters:
        return _told(registry, snapshot.adapters[name], whereabouts, head, refused)
    if refused is not None:
        return _refused(refused)
    raise UnknownAdapter(f"no adapter {name[:80]!r}; there are: {', '.join(snapshot.adapters) or 'none'}")


def _told(
    registry: Registry,
    adapter: RegisteredAdapter,
    whereabouts: Where,
    head: LanguageHead | None,
    beside: RefusedAdapter | None,
) -> AdapterOut:
    """``beside``: one of the same name in an earlier store, which would be meant if it could be worn."""
    record = adapter.record
    found = whereabouts(adapter)
    state, reason = found.state, found.reason
    if beside is not None and reason is None:
        reason = f"the one in {beside.store} is not served: {beside.error.reason}"
    try:
        parameters = adapter.parameters(registry.size)
    except ValueError as error:  # a method that nobody here knows: found out when it is first worn
        parameters, state, reason = None, "failed", str(error)
    test = record.metrics.get("test", {})
    return AdapterOut(
        name=record.name,
        language=record.language,
        default=record.default,
        auto=_may_answer(registry, adapter, head),
        method=record.config.method,
        parameters=parameters,
        bytes=sum(stored.size_bytes for stored in record.files.values()),
        version=record.version,
        state=state,
        reason=reason,
        where=found.where,
        pinned=found.pinned,
        verified=record.verified,
        synthetic=record.synthetic,
        language_model=record.language_model is not None,
        wer=test.get("wer"),
        cer=test.get("cer"),
        metrics={split: dict(rates) for split, rates in record.metrics.items()},
        training=dict(record.training),
        licence=record.licence,
    )


def _may_answer(registry: Registry, adapter: RegisteredAdapter, head: LanguageHead | None) -> bool:
    """Where the language is not known."""
    number = None if head is None else head.index(adapter.record.language)
    if head is None or number is None:
        return False
    try:
        return registry.resolve(language=head.languages[number]) is adapter
    except ChoiceError:  # several, and no default
        return False


def _refused(refused: RefusedAdapter) -> AdapterOut:
    name = refused.name.encode("utf-8", "backslashreplace").decode()  # a folder's need not be text
    return AdapterOut(name=name, state="failed", reason=refused.error.reason, where=unloaded(refused).where)
