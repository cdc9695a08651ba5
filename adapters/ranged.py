"""Weights of a hub by HTTP ranges: each try, and each start, goes on from what has come before.

huggingface_hub deletes what has come of a file after most failures, and never goes on with it in another process. So
this puts the bytes into its cache (adapters/partial.py), and the client finds them whole and only links them. Files in
Xet storage come over plain HTTP too, to which the hub redirects: hf_xet fetches pieces side by side and may be faster,
but begins anew after a failure.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import httpx2
from huggingface_hub import constants, get_hf_file_metadata, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented there

from adapters.download import Progress
from adapters.errors import HubError
from adapters.partial import Partial

log = logging.getLogger("tongues.hub")

_ETAG = re.compile(r"[\w-]{1,128}")  # which can name a file
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_TRUSTED = "https://huggingface.co"  # with the token as well, for a mirror may redirect to it


class _Unfit(Exception):
    """What has come is no part of the file, or what was to come is not; says how that is known."""


def fetch_ranged(repo: str, commit: str, file: str, size_bytes: int, progress: Progress) -> Path | None:
    """Have ``file``, of ``size_bytes`` where the hub says nothing else, lie whole in the client's cache, and return
    where; the client is yet to link it (``hf_hub_download``). None where the client is to fetch it, or to say what is
    wrong. Its size is checked always, and its SHA-256 where the hub knows that; what was gone on with and comes wrong
    is fetched once more from its beginning.

    Raises :class:`~adapters.errors.HubError` for what comes wrong, for what the disk refuses, and once the download is
    given up; for a broken connection, or a hub that refuses, what the client raises: what has come until then stays.
    """
    url = hf_hub_url(repo, file, revision=commit)
    told = get_hf_file_metadata(url)
    if told.commit_hash is None or told.etag is None or not _ETAG.fullmatch(told.etag):
        return None  # the client says what is wrong with that
    size_bytes = size_bytes if told.size is None else told.size
    if size_bytes > constants.MAX_HTTP_DOWNLOAD_SIZE:  # which is in Xet storage alone
        return None
    partial = Partial(repo, file, told.etag)
    with partial.alone(progress):
        partial.drop_others()
        while not partial.blob.exists():
            if (begun := partial.size_bytes) > size_bytes:
                partial.drop()
                begun = 0
            if begun:
                log.info("%s of %s goes on at %.1f of %.1f MB", file, repo, begun / 1e6, size_bytes / 1e6)
            try:
                _receive(url, partial, begun, size_bytes, progress)
                if _SHA256.fullmatch(told.etag) and (found := partial.sha256(progress)) != told.etag:
                    raise _Unfit(f"its SHA-256 is {found}, and {told.etag} is right")
            except _Unfit as error:
                partial.drop()
                if not begun:
                    raise HubError(f"{file} came as another file than {repo}@{commit} lists: {error}") from None
                log.warning("%s of %s is begun anew: %s", file, repo, error)
            else:
                partial.publish()
    return partial.blob


def _receive(url: str, partial: Partial, begun: int, size_bytes: int, progress: Progress) -> None:
    """What is to come of it after the first ``begun`` bytes."""
    if begun and begun == size_bytes:
        return
    place = _place(url)
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if place.origin not in (httpx2.URL(hub).origin for hub in (constants.ENDPOINT, _TRUSTED)):
        headers.pop("authorization", None)
    if begun:
        headers["Range"] = f"bytes={begun}-"
    session, timeout_s = get_session(), constants.HF_HUB_DOWNLOAD_TIMEOUT
    with session.stream("GET", place, headers=headers, timeout=timeout_s, follow_redirects=True) as response:
        if begun and response.status_code == httpx2.codes.RANGE_NOT_SATISFIABLE:
            raise _Unfit(f"the hub has nothing of it after {begun} bytes")
        hf_raise_for_status(response)
        start, total = _told(response)
        if total not in (None, size_bytes):
            raise _Unfit(f"the hub sends {total} bytes of it, and {size_bytes} are right")
        if start not in (0, begun):
            raise _Unfit(f"the hub was asked for what comes after {begun} bytes, and sends what comes after {start}")
        with partial.opened(start, size_bytes) as file:
            for piece in response.iter_bytes():
                start += len(piece)
                if start > size_bytes:
                    raise _Unfit(f"the hub sends more than its {size_bytes} bytes")
                file.write(piece)
                file.flush()
                progress.came(len(piece), received=True)
    if start < size_bytes:
        raise OSError(f"the hub sent {start} of {size_bytes} bytes and no more")


def _place(url: str) -> httpx2.URL:
    """Where the hub has what lies at ``url``. Asked each time: signed addresses are of use for a while only, and
    another process may have been waited for. Of Xet storage the request itself is redirected, as the client has it."""
    told = get_hf_file_metadata(url)
    return httpx2.URL(url) if told.xet_file_data is not None else httpx2.URL(url).join(told.location)


def _told(response: httpx2.Response) -> tuple[int, int | None]:
    """Where in the file the answer begins, and how many bytes that has, if it says so."""
    if response.status_code == httpx2.codes.PARTIAL_CONTENT:
        if not (told := _RANGE.fullmatch(response.headers.get("Content-Range", ""))):
            raise _Unfit(f"the hub sends {response.headers.get('Content-Range')!r} of it, which is no range of bytes")
        return int(told[1]), None if told[2] == "*" else int(told[2])
    length = response.headers.get("Content-Length", "")
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    return 0, int(length) if length.isdecimal() and not encoded else None
