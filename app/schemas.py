"""The types on the wire, in and out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.engine.whereabouts import State, Where

Format = Literal["json", "verbose_json", "text", "srt", "vtt"]


Decode = Annotated[
    Literal["greedy", "beam"] | None,
    Field(description="`greedy`, or `beam`: a search with the adapter's language model, and what hot words imply."),
]
HotWords = Annotated[str, Field(description="Words to be listened for, separated by commas.", max_length=5_000)]


class Fault(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class FaultBody(BaseModel):
    """Every error, whatever its source."""

    error: Fault


class TranscribeQuery(BaseModel):
    """What ``POST /transcribe`` can be asked, in the query or as fields of the form."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, given: Any) -> Any:
        """A field that is left empty, as a form's are, is not given."""
        return {name: value for name, value in given.items() if value != ""} if isinstance(given, dict) else given

    lang: Annotated[
        str | None,
        Field(
            description="A language: `de`, `deu`, `de-AT`, `German`; several, `de,fr`, the likeliest answers; `auto`."
        ),
    ] = None
    adapter: Annotated[str | None, Field(description="One adapter by its name, instead of a language's default.")] = (
        None
    )
    format: Annotated[Format, Field(description="What the answer looks like.")] = "json"
    words: Annotated[bool, Field(description="Words with times, where the format is json.")] = False
    decode: Decode = None
    hotwords: HotWords = ""


class WordOut(BaseModel):
    text: str
    start_s: float
    end_s: float
    confidence: float


class SegmentOut(BaseModel):
    text: str
    start_s: float
    end_s: float
    confidence: float


class TriedOut(BaseModel):
    """One of several languages that were tried."""

    language: str
    adapter: str
    score: Annotated[float, Field(description="Mean log probability of a frame; 0 is certain.")]
    probability: Annotated[
        float | None, Field(description="That this is the language; null where the model cannot tell them apart.")
    ] = None


class TranscriptOut(BaseModel):
    """``words`` where they were asked for, ``segments`` with verbose_json, ``languages`` where several were asked for
    or any was, the likeliest first."""

    text: str
    language: str
    adapter: str
    version: str
    duration_s: float
    confidence: float | None
    truncated: Annotated[bool, Field(description="The audio broke off, or parts of it could not be read.")]
    request_id: str
    words: list[WordOut] | None = None
    segments: list[SegmentOut] | None = None
    languages: list[TriedOut] | None = None


class AdapterOut(BaseModel):
    """An adapter that is there. Of a refused one only name, state and reason are known."""

    name: str
    language: str | None = None
    default: bool | None = None
    auto: Annotated[bool | None, Field(description="`lang=auto` can tell its language.")] = None
    method: str | None = None
    parameters: int | None = None
    bytes: int | None = None
    version: str | None = None
    state: State
    reason: str | None = None
    where: Where
    pinned: bool = False
    verified: bool | None = None
    synthetic: bool | None = None
    language_model: Annotated[bool | None, Field(description="It brings one, for `decode=beam`.")] = None
    wer: float | None = None
    cer: float | None = None
    metrics: dict[str, dict[str, float]] | None = None
    training: dict[str, Any] | None = None
    licence: str | None = None


class AdaptersOut(BaseModel):
    adapters: list[AdapterOut]


class Health(BaseModel):
    status: Literal["ok", "starting", "failed", "draining"]
    reason: str | None = None
    backbone: Annotated[
        str | None, Field(description="The folder or the repository, at its commit, that the backbone came from.")
    ] = None


class OpenAIQuery(BaseModel):
    """The fields of OpenAI's form. What is not known here is passed over, as clients send more than is documented."""

    model_config = ConfigDict(extra="ignore")

    model: str
    language: str | None = None
    languages: list[str] = Field([], description="Of which the likeliest answers, where there is no `language`.")
    keywords: list[str] = Field([], description="What OpenAI calls hotwords.")
    prompt: str | None = None
    response_format: Format = "json"
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.0
    timestamp_granularities: list[Literal["word", "segment"]] = []
    include: list[Literal["logprobs"]] = []
    stream: bool = False
    decode: Decode = None
    hotwords: HotWords = ""


class OpenAIModel(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class OpenAIModels(BaseModel):
    object: Literal["list"] = "list"
    data: list[OpenAIModel]
