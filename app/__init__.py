"""What exists because there are concurrent HTTP requests. The life of one:

routes/transcribe.py   which adapter, and which version of it, does ``lang`` mean? Bound here, for all of its windows
audio/                 bytes -> blocks of 16 kHz mono float32, in a process beside; what is none or too long is refused
windows.py             blocks -> windows, cut at pauses, lazily: an hour never lies in memory whole
engine/scheduler.py    windows of all requests -> a batch, under a budget of padded frames
engine/residency.py    every adapter of the batch holds a seat
encoder.py + bank.py   one forward; row i wears what it was bound to
ctc.py                 logits -> words, times, confidence (off the device thread)
formats.py             -> the response
"""

__all__: list[str] = []
