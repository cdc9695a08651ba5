"""A speech corpus: in thirteen languages out of Debian packages, or of one's own recordings.

packages.py    .deb packages -> an unpacked tree
sources.py     the tree -> recordings with their raw transcripts, one parser a source
text.py        a raw transcript -> the normalised text of its language, or why it cannot be used
clip_audio.py  a recording -> trimmed 16 kHz mono FLAC
split.py       texts -> train, dev, test, so that no sentence crosses
build.py       all of the above, in order
table.py       recordings of one's own, listed in a table, in the same way
report.py      clips, minutes and rejects a language
texts.py       the tree -> sentences in any language
synthesis.py   a sentence -> speech, by eSpeak NG
synthetic.py   sentences -> a corpus that nobody spoke
pack.py        a corpus <-> a few long Opus files with an index
"""
