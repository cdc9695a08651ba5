from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from fsspec.registry import _registry as registry

from app.settings import Settings, SettingsError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TONGUES_")]:
        monkeypatch.delenv(name)
    return tmp_path


def model(folder: Path) -> Path:
    (folder / "backbone").mkdir(parents=True)
    (folder / "backbone" / "config.json").write_text("{}")
    return folder


def test_the_only_model_is_meant(here: Path) -> None:
    model(here / "models" / "small")
    settings = Settings.read()
    assert settings.models == Path("models/small")
    assert settings.adapter_stores == (Path("models/small/adapters"),)
    assert (settings.host, settings.port, settings.device) == ("127.0.0.1", 8000, "auto")


def test_a_model_by_its_name_its_folder_or_the_folder_that_holds_it(here: Path) -> None:
    model(here / "models" / "one"), model(here / "models" / "two"), model(here / "else" / "three")
    assert Settings.read(models=Path("two")).models == Path("models/two")
    assert Settings.read(models=Path("models/one")).models == Path("models/one")
    assert Settings.read(models=Path("else")).models == Path("else/three")
    with pytest.raises(SettingsError, match=r"several models in models, name one of them: models/one, models/two"):
        Settings.read()
    with pytest.raises(SettingsError, match=r"no model in four.*there are models/one, models/two"):
        Settings.read(models=Path("four"))


def test_no_model(here: Path) -> None:
    with pytest.raises(SettingsError, match=r"no model in .*/models: a model is a folder with backbone/config.json"):
        Settings.read()


def test_the_environment_and_what_counts_instead(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(here / "m")
    for name, value in {
        "MODELS": "m", "ADAPTERS": "/a:/b", "PORT": "9000", "LOG_LEVEL": "DEBUG", "MAX_AUDIO_S": "60", "DTYPE": "",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"TONGUES_{name}", value)
    settings = Settings.read(port=9001, host=None)
    assert settings.port == 9001
    assert settings.adapter_stores == (Path("/a"), Path("/b"), Path("m/adapters"))
    assert (settings.log_level, settings.max_audio_s, settings.dtype) == ("debug", 60, "auto")


@pytest.mark.parametrize(
    ("value", "stores"),
    [
        ("/a", (Path("/a"),)),
        ("/a,./b", (Path("/a"), Path("b"))),
        ("/a:/b:", (Path("/a"), Path("/b"))),
        (" /a , hf://user/repo ,", (Path("/a"), "hf://user/repo")),
        ("hf://user/repo", ("hf://user/repo",)),
        ("memory://x/y,/a:b", ("memory://x/y", Path("/a:b"))),
        ((Path("/a"), "/b", "hf://user/repo"), (Path("/a"), Path("/b"), "hf://user/repo")),
    ],
)
def test_stores_are_folders_and_addresses(here: Path, value: object, stores: tuple[object, ...]) -> None:
    model(here / "m")
    assert Settings.read(models=Path("m"), adapters=value).adapter_stores == (*stores, Path("m/adapters"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("./a,tea://pot", "'tea' is no protocol of a store.*TONGUES_ADAPTERS"),
        ("hf://", "names no bucket or repository"),
        ("m/backbone/config.json", "m/backbone/config.json is no folder.*TONGUES_ADAPTERS"),
        ("file:///a", "a folder is named by its path alone"),
    ],
)
def test_a_store_that_cannot_be_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    model(here / "m")
    monkeypatch.setenv("TONGUES_ADAPTERS", value)
    with pytest.raises(SettingsError, match=message):
        Settings.read(models=Path("m"))


def test_a_store_whose_package_is_missing_is_refused_with_what_to_install(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model(here / "m")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    registry.pop("s3", None)
    with pytest.raises(SettingsError, match=r"s3:// needs a package that is not installed: pip install 'tongues\[rem"):
        Settings.read(models=Path("m"), adapters="s3://bucket/prefix")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PORT", "http", "port: .*integer.* not 'http' .TONGUES_PORT."),
        ("PORT", "70000", "port: .*65535"),
        ("MAX_AUDIO_S", "nan", "max_audio_s"),
        ("MAX_UPLOAD_BYTES", "-1", "max_upload_bytes"),
        ("DTYPE", "float8", "dtype: should be 'auto', 'float32', 'float16' or 'bfloat16', not 'float8'"),
        ("DEVICE", "tpu", "device"),
        ("LOG_LEVEL", "loud", "log_level"),
    ],
)
def test_a_bad_value_is_named(here: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    model(here / "models" / "m")
    monkeypatch.setenv(f"TONGUES_{name}", value)
    with pytest.raises(SettingsError, match=message):
        Settings.read()


def test_what_looks_like_a_setting_and_is_none_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TONGUES_MAX_UPLOAD_BYTE", "TONGUES_PORT", "TONGUES_SERVICE_HOST", "TONGUES_PORT_8000_TCP_ADDR"):
        monkeypatch.setenv(name, "1")
    assert Settings.unknown() == ("TONGUES_MAX_UPLOAD_BYTE",)


def test_what_kubernetes_sets_is_no_port(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(here / "models" / "m")
    monkeypatch.setenv("TONGUES_PORT", "tcp://10.0.0.1:8000")
    assert Settings.read().port == 8000


@pytest.mark.parametrize("key", ["hunter2secret", "eine Schlüsselfolge, lang genug", "with a \x00 in the middle of it"])
def test_an_admin_key_that_will_not_do_is_not_told_to_the_log(
    here: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    model(here / "models" / "small")
    with pytest.raises(SettingsError, match="16 printable ASCII characters") as caught:
        Settings.read(admin_key=key)
    assert key not in str(caught.value)


def test_an_admin_key_from_a_file_that_ends_in_a_line_end(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(here / "models" / "small")
    monkeypatch.setenv("TONGUES_ADMIN_KEY", "sixteen letters or more\n")
    key = Settings.read().admin_key
    assert key is not None
    assert key.get_secret_value() == "sixteen letters or more"
    assert "sixteen" not in repr(Settings.read())


def test_more_pinned_than_there_are_slots(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(here / "m")
    monkeypatch.setenv("TONGUES_PINNED", "es, fr")
    assert Settings.read(models=Path("m"), device_slots=3).pinned == ("es", "fr")
    with pytest.raises(SettingsError, match=r"2 adapters are pinned.*fewer than the 2 device slots.*TONGUES_PINNED"):
        Settings.read(models=Path("m"), device_slots=2)
