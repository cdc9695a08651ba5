"""The shipped model on recorded speech, through HTTP: what people said in recordings that it never trained on."""

from __future__ import annotations

import asyncio
import io
import json
import re
import subprocess
from pathlib import Path

import httpx
import jiwer
import numpy as np
import pytest
import soundfile
from openai import OpenAI

from adapters.backbone import fingerprint, load_backbone
from adapters.bank import Bank
from adapters.ctc import BestPath, transcript
from adapters.registry import Registry
from adapters.store import AdapterStore
from adapters.windows import cut
from tests.plain import recognise

ROOT = Path(__file__).resolve().parents[2]
CLIPS = [json.loads(line) for line in (ROOT / "examples/clips.jsonl").read_text().splitlines()]
MODEL = next(path.parent.parent for path in (ROOT / "models").glob("*/backbone/config.json"))


def read(clip: dict) -> np.ndarray:
    samples: np.ndarray = soundfile.read(ROOT / "examples" / clip["file"], dtype="float32")[0]
    return samples


def ask(address: str, content: bytes, **params: str) -> httpx.Response:
    return httpx.post(f"{address}/transcribe", params=params, content=content, timeout=600)


def test_the_examples_are_understood(address):
    heard = []
    for clip in CLIPS:
        answer = ask(address, (ROOT / "examples" / clip["file"]).read_bytes(), lang=clip["language"])
        assert answer.status_code == 200, answer.text
        heard.append(answer.json()["text"])
    each = {clip["language"]: jiwer.cer(clip["text"], text) for clip, text in zip(CLIPS, heard, strict=True)}
    assert sum(each.values()) / len(each) < 0.35, each


def test_the_languages_of_the_examples_are_told(address):
    told = {}
    for clip in CLIPS:
        answer = ask(address, (ROOT / "examples" / clip["file"]).read_bytes(), lang="auto").json()
        told[clip["language"]] = answer["language"]
        assert answer["languages"][0]["probability"] > 0.2
    assert sum(language == spoken for spoken, language in told.items()) >= 0.8 * len(CLIPS), told


def test_sent_together_in_all_languages_they_say_what_they_say_alone(address, service_log):
    """Real clips, mixed batches, a real socket; and the log shows a batch with several languages in it."""
    paths = [(clip["language"], (ROOT / "examples" / clip["file"]).read_bytes()) for clip in CLIPS]
    alone = [ask(address, content, lang=language).json()["text"] for language, content in paths]

    async def together() -> list[str]:
        async with httpx.AsyncClient(base_url=address, timeout=600) as client:
            asked = [client.post("/transcribe", params={"lang": lang}, content=content) for lang, content in paths * 3]
            return [answer.json()["text"] for answer in await asyncio.gather(*asked)]

    assert asyncio.run(together()) == alone * 3
    batches = re.findall(r"languages=(\S+)", service_log.read_text())
    assert max(len(set(languages.split(","))) for languages in batches) >= 3


def test_ten_minutes_equal_their_windows(address):
    """A long recording through the service equals its windows one at a time, joined."""
    pieces = [read(clip) for clip in CLIPS if clip["language"] in ("es", "it", "fr")]
    rng = np.random.default_rng(0)
    samples = np.concatenate(
        [np.concatenate([pieces[rng.integers(len(pieces))], np.zeros(rng.integers(3_000, 12_000))]) for _ in range(170)]
    ).astype(np.float32)[: 600 * 16_000]
    with io.BytesIO() as file:
        soundfile.write(file, samples, 16_000, format="FLAC")
        answer = ask(address, file.getvalue(), lang="es", words="true").json()
    samples = (np.round(samples * 32768).clip(-32768, 32767) / 32768).astype(np.float32)
    encoder = load_backbone(MODEL / "backbone")
    store = AdapterStore(MODEL / "adapters")
    registry = Registry([store], fingerprint(MODEL / "backbone"), encoder.size)
    loaded = registry.load(registry.resolve(language="es"))
    bank = Bank(encoder.size, limit=1)
    worn = bank.dress([bank.seat(loaded.record.config, loaded.tensors)])
    windows = list(cut([samples], encoder.geometry))
    assert len(windows) > 30
    path = BestPath.join(
        BestPath.pause(window.keep, loaded.vocab) if window.silent else recognise(encoder, [window], worn)[0]
        for window in windows
    )
    expected = transcript(path, loaded.vocab, frame_s=0.02, duration_s=600.0)
    assert answer["duration_s"] == 600.0
    assert jiwer.cer(expected.text, answer["text"]) < 0.001
    assert answer["words"][-1]["end_s"] > 590


def test_the_commands_of_the_readme_work(address):
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^    (curl .+[^\\\n])$", text, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        local = command.replace("localhost:8000", address.removeprefix("http://"))
        done = subprocess.run(["bash", "-c", f"{local} -sS --fail"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert len(done.stdout) > 10
    listed = json.loads(subprocess.run(["curl", "-s", f"{address}/adapters"], capture_output=True).stdout)
    assert len({adapter["language"] for adapter in listed["adapters"] if adapter["state"] != "failed"}) >= 7


def test_the_python_of_the_readme_works(address, monkeypatch, capsys):
    code = re.search(r"```python\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code
    monkeypatch.chdir(ROOT)
    exec(code.group(1).replace("http://localhost:8000", address), {"OpenAI": OpenAI})
    assert len(capsys.readouterr().out.strip()) > 10


@pytest.mark.parametrize("command", [["adapters"], ["transcribe", "examples/es.ogg", "--lang", "es"]])
def test_the_commands_without_http_work(command):
    done = subprocess.run(
        [str(ROOT / ".venv/bin/tongues"), *command] if (ROOT / ".venv/bin/tongues").exists() else ["tongues", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 10
