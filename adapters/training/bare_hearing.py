"""What a backbone hears by its multilingual CTC head alone, which shows while it trains how far it is."""

from __future__ import annotations

from collections.abc import Sequence

import jiwer
import torch

from adapters.ctc import BestPath, best_tokens, transcript
from adapters.encoder import Encoder
from adapters.frontend import SAMPLE_RATE, pad
from adapters.training.data import AudioCache, epoch_batches
from adapters.training.objectives.ctc import Ctc

_HEARD_S = 60


@torch.inference_mode()
def cer_by_language(
    encoder: Encoder, ctc: Ctc, clips: AudioCache, languages: Sequence[str], *, device: str, bfloat16: bool
) -> dict[str, float]:
    """Greedy CER of each language over its ``clips``, in that language's own letters, and their ``mean``, as fractions.

    ``languages``: those of the head, in the order of ``ctc.allowed``.
    """
    said: dict[str, tuple[list[str], list[str]]] = {}
    lengths = [clips.length(index) for index in range(len(clips))]
    for rows in epoch_batches(lengths, _HEARD_S * SAMPLE_RATE, seed=0, epoch=0):
        audio = pad([clips.samples(row) for row in rows]).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
            x = encoder.hidden(encoder.trunk(audio, 0), encoder.bare)
            logits = ctc.letters(x).float().cpu()
        some = [clips.clips[row] for row in rows]
        logits.masked_fill_(~ctc.allowed[[languages.index(clip.language) for clip in some], None], -torch.inf)
        ids, probabilities = best_tokens(logits)
        for place, (row, clip) in enumerate(zip(rows, some, strict=True)):
            frames = encoder.geometry.frames(lengths[row])
            path = BestPath(ids[place, :frames].numpy(), probabilities[place, :frames].numpy())
            truth, heard = said.setdefault(clip.language, ([], []))
            truth.append(clip.text)
            heard.append(transcript(path, ctc.vocab, frame_s=0.02, duration_s=clip.seconds).text)
    each = {language: round(float(jiwer.cer(*pair)), 4) for language, pair in said.items()}
    return {"mean": round(sum(each.values()) / len(each), 4), **each}
