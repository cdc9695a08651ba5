"""Everything that can be set, and the only place that reads the environment (``TONGUES_*``)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from adapters.errors import StoreError, TonguesError
from adapters.remote import check_address, is_address
from app.errors import validation_message

MODELS_FOLDER = Path("models")
_OF_KUBERNETES = re.compile(r"_(SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_\w+)$")


class SettingsError(TonguesError):
    """A setting that cannot be; the message names it, says what was wrong and what would be right."""


class Settings(BaseSettings):
    """Each field is also an environment variable: ``max_audio_s`` is ``TONGUES_MAX_AUDIO_S``."""

    model_config = SettingsConfigDict(env_prefix="TONGUES_", env_ignore_empty=True, extra="forbid", frozen=True)

    models: Path = Field(
        default=Path(), description="the model: a folder with backbone/ and adapters/; the only one in models/ if unset"
    )
    backbone: str | None = Field(
        default=None,
        description="in place of the model's own: a folder in Hugging Face layout, or a repository of the hub, "
        "OWNER/NAME or OWNER/NAME@REVISION",
    )
    adapters: Annotated[tuple[Path | str, ...], NoDecode] = Field(
        default=(),
        description="further stores of adapters, folders or addresses (s3://bucket/prefix, hf://user/repo), parted by "
        "','; where names are the same these count",
    )
    cache: Path | None = Field(default=None, description="a folder for copies of what lies at addresses; none if unset")
    cache_bytes: int = Field(default=1 << 32, ge=0, description="of those copies, the last that were read")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)

    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    quantise: Literal["none", "int8"] = Field(default="none", description="linears of the backbone, on a CPU")
    lanes: int | None = Field(
        default=None, ge=1, description="forwards side by side; a GPU has one, a CPU one for each core if unset"
    )
    threads: int | None = Field(default=None, ge=1, description="of each lane on a CPU; its share of cores if unset")
    decoders: int | None = Field(
        default=None, ge=1, description="processes that decode audio; one for every four cores if unset"
    )
    device_slots: int = Field(default=64, ge=1, description="adapters on the device at once")
    host_bytes: int = Field(
        default=1 << 30,
        ge=0,
        description="adapters in memory that no request needs and no seat has",
    )
    pinned: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="names of adapters that never leave the device, parted by ','"
    )
    watch_s: float = Field(
        default=1.0, ge=0, allow_inf_nan=False, description="between two looks at the folders of adapters; 0: never"
    )
    admin_key: SecretStr | None = Field(
        default=None, description="who bears it may publish and remove adapters; nobody may if unset"
    )
    max_adapter_bytes: int = Field(default=1 << 28, ge=1_000, description="of an adapter that is published over HTTP")
    max_batch_frames: int | None = Field(default=None, ge=1, description="frames of 20 ms, padding included")
    max_batch_rows: int | None = Field(default=None, ge=1)

    max_requests: int = Field(default=128, ge=1, description="taken at once, waiting ones included; beyond it, 429")
    max_upload_bytes: int = Field(default=200_000_000, ge=1_000)
    max_audio_s: float = Field(default=4 * 3600, ge=1, allow_inf_nan=False)
    request_timeout_s: float = Field(
        default=3600, gt=0, allow_inf_nan=False, description="for the upload, and again for the transcript"
    )
    upload_idle_s: float = Field(default=30, gt=0, allow_inf_nan=False, description="without a byte of the body: 408")
    drain_s: float = Field(default=30, ge=0, allow_inf_nan=False, description="for running requests when shutting down")

    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def backbone_source(self) -> Path | str:
        """The folder or the repository of the backbone."""
        return self.backbone or self.models / "backbone"

    @property
    def adapter_stores(self) -> tuple[Path | str, ...]:
        """All stores of adapters, folders and addresses, the first of which counts where names are the same."""
        return (*self.adapters, self.models / "adapters")

    @field_validator("adapters", mode="before")
    @classmethod
    def _split_stores(cls, value: Any) -> Any:
        """Folders alone may be parted as in a PATH."""
        if isinstance(value, str):
            value = value.split("," if "," in value or "://" in value else os.pathsep)
        return tuple(map(_store, filter(None, value)))

    @field_validator("pinned", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return tuple(dict.fromkeys(filter(None, map(str.strip, value.split(","))))) if isinstance(value, str) else value

    @field_validator("admin_key", mode="before")
    @classmethod
    def _usable_key(cls, value: Any) -> Any:
        """A mounted secret ends in a line end."""
        key = value.strip() if isinstance(value, str) else value
        if isinstance(key, str) and (len(key) < 16 or not key.isascii() or not key.isprintable()):
            raise PydanticCustomError("admin_key", "takes 16 printable ASCII characters or more")
        return key

    @field_validator("port", mode="before")
    @classmethod
    def _not_of_kubernetes(cls, value: Any) -> Any:
        """Kubernetes sets ``TONGUES_PORT=tcp://...`` where a service is called tongues."""
        return cls.model_fields["port"].default if isinstance(value, str) and value.startswith("tcp://") else value

    @field_validator("log_level", "device", "dtype", "quantise", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("pinned")
    @classmethod
    def _leave_a_seat(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        slots = info.data.get("device_slots", 0)
        if slots and len(value) >= slots:
            text = "{count} adapters are pinned, which must be fewer than the {slots} device slots"
            raise PydanticCustomError("pinned", text, {"count": len(value), "slots": slots})
        return value

    @model_validator(mode="after")
    def _find_model(self) -> Self:
        object.__setattr__(self, "models", _model_folder(self.models, self.backbone))
        return self

    @classmethod
    def unknown(cls) -> tuple[str, ...]:
        """Variables of the environment that look like settings and are none; Kubernetes' own are passed over."""
        known = {f"TONGUES_{name.upper()}" for name in cls.model_fields}
        named = (name for name in os.environ if name.upper().startswith("TONGUES_"))
        return tuple(sorted(n for n in named if n.upper() not in known and not _OF_KUBERNETES.search(n)))

    @classmethod
    def read(cls, **given: Any) -> Settings:
        """From the environment; what is ``given`` and not None counts instead. Raises :class:`SettingsError`."""
        try:
            return cls(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            message, name = validation_message(error.errors())
            source = f" (TONGUES_{name.upper()})" if name and given.get(name) is None else ""
            raise SettingsError(message + source) from error


def _store(given: Path | str) -> Path | str:
    text = given.strip() if isinstance(given, str) else ""
    if not is_address(text):
        if (folder := Path(text or given)).exists() and not folder.is_dir():
            raise PydanticCustomError("store", "{path} is no folder", {"path": str(folder)})
        return folder
    try:
        check_address(text)
    except StoreError as error:
        raise PydanticCustomError("store", "{reason}", {"reason": str(error)}) from error
    return text


def _model_folder(given: Path, backbone: str | None = None) -> Path:
    """The folder of the model that is meant: given itself, by name in models/, or the only one that there is. With a
    ``backbone`` from elsewhere it need not be there: that is where adapters for it are published."""
    if backbone is not None:
        return given if given != Path() else MODELS_FOLDER / backbone.partition("@")[0].strip("./").replace("/", "--")
    if given != Path() and _is_model(given):
        return given
    if given != Path() and _is_model(MODELS_FOLDER / given):
        return MODELS_FOLDER / given
    searched = given if given != Path() and given.is_dir() else MODELS_FOLDER
    there_are = sorted(path for path in searched.iterdir() if _is_model(path)) if searched.is_dir() else []
    if len(there_are) == 1 and (given in (Path(), searched)):
        return there_are[0]
    names = ", ".join(str(path) for path in there_are)
    if given not in (Path(), searched):
        raise ValueError(f"no model in {given}: a model is a folder with backbone/config.json" + _or(names))
    if names:
        raise ValueError(f"several models in {searched}, name one of them: {names}")
    raise ValueError(f"no model in {searched.absolute()}: a model is a folder with backbone/config.json")


def _or(names: str) -> str:
    return f"; there are {names}" if names else ""


def _is_model(path: Path) -> bool:
    return (path / "backbone" / "config.json").is_file()
