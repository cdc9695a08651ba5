from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from adapters.errors import DataError
from adapters.training.corpus.packages import unpacked_tree

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg is not installed")


def _silent(_: str) -> None:
    pass


@pytest.fixture
def debs(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "DEBIAN").mkdir(parents=True)
    (source / "DEBIAN" / "control").write_text(
        "Package: tiny\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: tiny\n"
    )
    (source / "usr/share/tiny").mkdir(parents=True)
    (source / "usr/share/tiny/a.txt").write_text("a")
    debs = tmp_path / "debs"
    debs.mkdir()
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(source), str(debs / "tiny_1.0_all.deb")],
        check=True,
        capture_output=True,
    )
    return debs


def test_an_unpacked_tree_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "given/usr").mkdir(parents=True)
    assert unpacked_tree(["any"], tmp_path / "cache", tmp_path / "given", announce=_silent) == tmp_path / "given"
    assert not (tmp_path / "cache").exists()


@needs_dpkg
def test_packages_at_hand_are_unpacked_once(debs: Path, tmp_path: Path) -> None:
    said: list[str] = []
    cache = tmp_path / "cache"
    root = unpacked_tree(["tiny"], cache, debs, announce=said.append)
    assert (root / "usr/share/tiny/a.txt").read_text() == "a"
    assert said == ["unpacking tiny_1.0_all.deb"]
    unpacked_tree(["tiny"], cache, debs, announce=said.append)
    assert len(said) == 1


@needs_dpkg
def test_a_broken_package_is_named(debs: Path, tmp_path: Path) -> None:
    deb = debs / "tiny_1.0_all.deb"
    deb.write_bytes(deb.read_bytes()[:200])
    with pytest.raises(DataError, match=r"tiny_1\.0_all\.deb cannot be unpacked: "):
        unpacked_tree(["tiny"], tmp_path / "cache", debs, announce=_silent)
    assert not (tmp_path / "cache/unpacked/tiny").exists()


def test_without_apt_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"tiny is not at hand .* --packages.*apt-get is not installed"):
        unpacked_tree(["tiny"], tmp_path / "cache", announce=_silent)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder; give one with \.deb files"):
        unpacked_tree(["tiny"], tmp_path / "cache", tmp_path / "none", announce=_silent)


@needs_dpkg
def test_folders_may_be_relative(debs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = unpacked_tree(["tiny"], Path("cache"), debs.relative_to(tmp_path), announce=_silent)
    assert root == tmp_path / "cache/tree"
    assert (root / "usr/share/tiny/a.txt").exists()


def test_what_apt_fetches_is_found_below_a_relative_folder(
    debs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the place of apt-get a script that does what it does: the package lands in the folder it runs in."""
    apt = tmp_path / "bin/apt-get"
    apt.parent.mkdir()
    apt.write_text(f"#!/bin/sh\ncp {debs}/*.deb .\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(apt.parent), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    assert (unpacked_tree(["tiny"], Path("cache"), announce=_silent) / "usr/share/tiny/a.txt").exists()
