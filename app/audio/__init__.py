"""Untrusted bytes become samples.

pool.py        which process decodes a recording
recording.py   a recording that is decoded there, and goes on in another where one is lost
child.py       the service's side of a process, process.py such a process: many recordings, a few seconds of one at a
               time, within bounds of time and memory; wire.py what the two say to each other
source.py      FFmpeg: bytes -> blocks of 16 kHz mono float32, bounded while decoding
containers.py, boxes.py   what FFmpeg may open, and what a file's own structure says before anything is decoded
"""
