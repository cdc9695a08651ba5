from __future__ import annotations

from adapters.ctc import Transcript, Word
from benchmarks.clips import cut
from benchmarks.exactness import Exactness, Heard, hear, judge, table


def test_what_differs_is_counted():
    hello, sure = (Transcript.of([Word("hello", 0.1, 0.5, confidence)], 1.0) for confidence in (0.9, 0.95))
    hallo = Transcript.of([Word("hallo", 0.1, 0.5, 0.9)], 1.0)
    nothing = Transcript.of([], 1.0)
    expected = Heard([hello, hello, nothing], [])
    found = judge("float16", Heard([hello, hello, nothing], [sure, hallo, nothing]), expected)
    assert found == Exactness("float16", 3, as_on_a_cpu=2, cer=0.1, text_alone=2, all_alone=1)
    assert "| float16 | 2 of 3 | 10.00 % | 2 | 1 |" in table([found])


def test_float32_says_the_same_alone_and_in_a_batch(bench_model):
    clips = sorted(cut("1-2 s"), key=len)[::16]
    heard = hear(bench_model, "cpu", "float32", clips)
    found = judge("float32", heard, heard)
    assert (found.as_on_a_cpu, found.text_alone, found.all_alone) == (4, 4, 4)
    assert any(one.text for one in heard.alone)
