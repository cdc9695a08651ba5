"""What is told of errors that other libraries raise."""

from __future__ import annotations

import pytest

from adapters.reason import reason


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("it is gone", "it is gone"),
        ("", "ValueError"),
        ("\n\n 503 Service Unavailable.\n\nFor more information: look there", "503 Service Unavailable."),
        (
            "403 for url 'https://cdn.example/a/b.safetensors?X-Amz-Signature=secret&x=1#part' (id 7)",
            "403 for url 'https://cdn.example/a/b.safetensors' (id 7)",
        ),
        ("cannot reach http://user:secret@proxy:3128/x: refused", "cannot reach http://proxy:3128/x: refused"),
        ("s3://bucket/prefix is away, is it?", "s3://bucket/prefix is away, is it?"),
        ("https://a.example/?sig=1 and https://b.example/?sig=2", "https://a.example/ and https://b.example/"),
    ],
)
def test_one_line_without_what_signs_an_address(said, told):
    assert reason(ValueError(said)) == told
