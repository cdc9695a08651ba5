"""What an error of a hub, or of its client, means: whether to try again, and what would help."""

from __future__ import annotations

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)

from adapters.reason import reason

_PASSING = (408, 429)
_UNREACHABLE = (httpx2.TransportError, ConnectionError, TimeoutError)


def passing(error: BaseException | None) -> bool:
    """Whether it may be otherwise in a moment."""
    if isinstance(error, LocalEntryNotFoundError):
        return passing(error.__cause__)
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500 or error.response.status_code in _PASSING
    if isinstance(error, EntryNotFoundError | FileMetadataError | OfflineModeIsEnabled):
        return False
    if isinstance(error, OSError):  # of the client's own, for a file of another length, say
        return error.errno is None or isinstance(error, ConnectionError | TimeoutError)
    return isinstance(error, httpx2.TransportError | XetDownloadError | RuntimeError)  # the last of hf_xet


def said(error: BaseException) -> str:
    """What went wrong, and what would help."""
    if isinstance(error, GatedRepoError):
        return "its owner grants access to it: ask there, and give a token in HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private: check its id, or give a token in HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return "there is no such revision of it"
    if isinstance(error, HfHubHTTPError):
        return f"the hub at {constants.ENDPOINT} answered {error.response.status_code}"
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, (HfHubHTTPError, *_UNREACHABLE)):
        return said(error.__cause__)
    if isinstance(error, EntryNotFoundError) and constants.is_offline_mode():
        return "it is not in the cache, and the hub is not asked"
    if isinstance(error, _UNREACHABLE):
        return f"the hub at {constants.ENDPOINT} cannot be reached: {reason(error)}"
    if isinstance(error, EntryNotFoundError | HFValidationError | OSError):
        return reason(error)
    return f"it cannot be had from the hub at {constants.ENDPOINT}: {type(error).__name__}: {reason(error)}"
