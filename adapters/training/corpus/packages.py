"""Debian packages: at hand, or fetched by apt; unpacked by dpkg. Needs no root and installs nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from adapters.errors import DataError


def unpacked_tree(
    packages: Sequence[str], cache: Path, given: Path | None = None, *, announce: Callable[[str], None] = print
) -> Path:
    """The root of a tree with all of `packages` unpacked in it.

    Args:
        cache: a folder of ours, for what is fetched and unpacked.
        given: a folder with ``.deb`` files, or an already unpacked tree (a folder with ``usr`` in it), used as it is.

    Raises:
        DataError: a package that is not at hand and cannot be fetched, or not unpacked.
    """
    cache = cache.resolve()  # the commands run in folders of their own
    if given is not None:
        given = given.resolve()
        if not given.is_dir():
            raise DataError(f"{given}: no such folder; give one with .deb files or an unpacked tree (with usr/)")
        if (given / "usr").is_dir():
            return given
    root, marks = cache / "tree", cache / "unpacked"
    root.mkdir(parents=True, exist_ok=True)
    marks.mkdir(exist_ok=True)
    for package in packages:
        if (marks / package).exists():
            continue
        deb = _deb(package, [folder for folder in (given, cache) if folder]) or _fetch(package, cache, announce)
        announce(f"unpacking {deb.name}")
        _run(["dpkg", "-x", str(deb), str(root)], cache, f"{deb} cannot be unpacked")
        (marks / package).touch()  # last: a broken-off unpacking is done again
    return root


def _deb(package: str, folders: Sequence[Path]) -> Path | None:
    """The newest-named ``PACKAGE_VERSION_ARCH.deb`` in the first folder that has one."""
    for folder in folders:
        if found := sorted(folder.glob(f"{package}_*.deb")):
            return found[-1]
    return None


def _fetch(package: str, cache: Path, announce: Callable[[str], None]) -> Path:
    announce(f"fetching {package}")
    partial = cache / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _run(
        ["apt-get", "download", "-q", package],
        partial,
        f"{package} is not at hand and cannot be fetched; put its .deb in a folder and name that with --packages, "
        "or (on Debian) run `apt-get update`",
    )
    deb = _deb(package, [partial])
    if deb is None:
        raise DataError(f"apt-get downloaded no {package}_*.deb")
    os.replace(deb, cache / deb.name)
    return cache / deb.name


def _run(command: list[str], folder: Path, what: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise DataError(f"{what}: {command[0]} is not installed here (Debian and Ubuntu have it)") from error
    if done.returncode != 0:
        raise DataError(f"{what}: {done.stderr.strip() or done.stdout.strip()}")
