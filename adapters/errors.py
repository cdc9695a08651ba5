"""Everything that can go wrong in the method, as one tree. None of it knows HTTP.

TonguesError
├── AudioError               what was sent cannot be transcribed
│   ├── EmptyAudio           no bytes, or no samples
│   ├── BrokenAudio          a known format, with contents that make no sense (NaN samples, a header alone)
│   ├── NotAudio             not a format that holds audio
│   ├── NoAudioTrack         a container without a sound track
│   ├── AudioTooShort        fewer samples than one frame of the backbone needs
│   ├── AudioTooLong         more seconds than the service accepts
│   └── AudioTooLarge        more bytes than the service accepts
├── ChoiceError              which adapter?
│   ├── LanguageRequired     none named, and nothing that could tell
│   ├── UnknownLanguage      not a language with an adapter
│   ├── UnknownAdapter       no adapter of that name
│   └── AmbiguousLanguage    several adapters and none is the default
├── AdapterError             an adapter that cannot be worn, by name and reason
│   ├── AdapterFormatError   its record or files are not of the form
│   ├── AdapterMismatch      it was made for another backbone, or its shapes or types do not fit
│   ├── AdapterCorrupt       its files are not the ones that its record names
│   └── AdapterAway          its files cannot be fetched for now
├── PublishConflict          another version is current than the one that was to be replaced
├── StoreError               the place where adapters lie cannot be, or cannot be written
│   └── StoreAway            it cannot be reached for now
├── BackboneError            a backbone that cannot be loaded or driven
├── HubError                 a file or a repository of a model hub that cannot be had
├── LanguageHeadError        a language head that cannot be used with this backbone
├── DecodingUnavailable      a way of decoding that this installation or this adapter has not
│   └── BadHotWord           a hot word that the adapter cannot say
├── BankFull                 no free seat in the bank
├── EngineError              the engine cannot take or finish a job
│   ├── QueueFull            no permit left
│   ├── Draining             shutting down
│   ├── DeadlineExceeded     not finished within its time
│   └── NoDecoder            no process can be had that decodes audio
└── DataError                a manifest or a corpus that cannot be used, naming the line
"""

from __future__ import annotations


class TonguesError(Exception):
    """Base of all errors of this project; the message is meant for the person who caused it."""


class AudioError(TonguesError):
    """What was sent cannot be transcribed."""


class EmptyAudio(AudioError):
    """No bytes, or no samples."""


class BrokenAudio(AudioError):
    """A known format with contents that make no sense."""


class NotAudio(AudioError):
    """Not a format that holds audio."""


class NoAudioTrack(NotAudio):
    """A container without a sound track."""


class AudioTooShort(AudioError):
    """Fewer samples than one frame of the backbone needs."""


class AudioTooLong(AudioError):
    """More seconds than the service accepts."""


class AudioTooLarge(AudioError):
    """More bytes than the service accepts."""


class ChoiceError(TonguesError):
    """No adapter, or no single one, answers to what was asked for."""


class LanguageRequired(ChoiceError):
    """No language was named and nothing here can tell it."""


class UnknownLanguage(ChoiceError):
    """Not a language that has an adapter."""


class UnknownAdapter(ChoiceError):
    """No adapter of that name."""


class AmbiguousLanguage(ChoiceError):
    """Several adapters for the language and none of them is the default."""


class AdapterError(TonguesError):
    """An adapter that cannot be worn. ``name`` says which, the message why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"adapter {name!r}: {reason}")
        self.name = name
        self.reason = reason


class AdapterFormatError(AdapterError):
    """Its record or files are not of the form."""


class AdapterMismatch(AdapterError):
    """Made for another backbone, or shapes or types that do not fit this one."""


class AdapterCorrupt(AdapterError):
    """Its files are not the ones that its record names."""


class AdapterAway(AdapterError):
    """Its files cannot be fetched for now from the store that they lie in."""


class PublishConflict(TonguesError):
    """Another version is current than the one that was to be replaced."""


class StoreError(TonguesError):
    """The place where adapters lie cannot be, or cannot be written."""


class StoreAway(StoreError):
    """The place where adapters lie cannot be reached for now."""


class BackboneError(TonguesError):
    """A backbone that cannot be loaded or driven."""


class HubError(TonguesError):
    """A file or a repository of a model hub that cannot be had."""


class LanguageHeadError(TonguesError):
    """A language head that cannot be used with this backbone."""


class DecodingUnavailable(TonguesError):
    """A way of decoding that this installation or this adapter has not."""


class BadHotWord(DecodingUnavailable):
    """A hot word that the adapter cannot say."""


class BankFull(TonguesError):
    """No free seat in the bank."""


class EngineError(TonguesError):
    """The engine cannot take or finish a job."""


class QueueFull(EngineError):
    """No permit left. ``retry_after_s`` is an honest guess at when there may be one."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Draining(EngineError):
    """The service is shutting down and takes no more work."""


class DeadlineExceeded(EngineError):
    """The job was not finished within its time."""


class NoDecoder(EngineError):
    """No process that decodes audio can be had for now."""


class DataError(TonguesError):
    """A manifest or a corpus that cannot be used; the message names the file and the line."""
