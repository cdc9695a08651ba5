"""What exists because there are concurrent HTTP requests. The life of one:

server.py, trace.py    a request is one; its id, its times, its line in the log
routes/transcribe.py   which adapter, and which version of it, does ``lang`` mean? Bound here, for all of its windows
upload.py              the body, counted while it comes
audio/                 bytes -> blocks of 16 kHz mono float32, in a process beside; what is none or too long is refused
adapters/windows.py    blocks -> windows, cut at pauses, lazily: an hour never lies in memory whole
engine/scheduler.py    windows of all requests -> a batch, under a budget of padded frames
engine/residency.py    every adapter of the batch holds a seat
engine/runner.py       one forward of adapters/encoder.py; row i wears what it was bound to in adapters/bank.py
adapters/ctc.py        logits -> words, times, confidence (off the device thread)
formats.py             -> the response
"""

__all__: list[str] = []
