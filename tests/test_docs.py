"""The documents tell the truth: settings are complete, and links lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from app.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("models/*.md")]


def test_every_setting_is_in_the_table_and_nothing_else():
    said = set(re.findall(r"`TONGUES_([A-Z_]+)`", (ROOT / "docs/settings.md").read_text()))
    assert said == {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_readme_begins_with_the_three_commands():
    first = re.search(r"((?:^    .+\n)+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert first
    assert first.group(1).split("\n")[:3] == ["    make serve", "    make test", "    docker compose up"]


def passed_to_the_container():
    return re.findall(r"^    - ([A-Z_]+)(?:=|$)", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE)


def test_the_container_is_told_of_every_setting_but_where_to_listen():
    told = sorted(name for name in passed_to_the_container() if name.startswith("TONGUES_"))
    assert told == sorted(f"TONGUES_{name.upper()}" for name in Settings.model_fields.keys() - {"host", "port"})


def test_the_container_is_told_of_stores_and_what_they_need():
    passed = passed_to_the_container()
    wanted = {
        "HF_TOKEN",
        "HF_ENDPOINT",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_ENDPOINT_URL",
        "HF_HUB_OFFLINE",
    }
    assert wanted <= set(passed)


def test_every_example_has_its_text_source_and_licence():
    clips = [json.loads(line) for line in (ROOT / "examples/clips.jsonl").read_text().splitlines()]
    assert len(clips) >= 7
    for clip in clips:
        assert (ROOT / "examples" / clip["file"]).is_file()
        assert all(clip[key] for key in ("language", "text", "source", "licence"))
    assert {clip["file"] for clip in clips} == {path.name for path in (ROOT / "examples").glob("*.ogg")}
