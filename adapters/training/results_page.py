"""The trials as a page: a table, the paper's two figures, and which of its claims hold here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from adapters.training.bootstrap import Edits, difference, interval
from adapters.training.results import Outcome
from adapters.training.results_grid import REQUIRED

_NEAR_FULL, _NEAR_ALL = 0.01, 0.005

_INTRODUCTION = """# The paper's experiment on our data

Made by `tongues results`; do not edit. Each line is one method on one language: the same frozen backbone, which has
heard these languages before, the same clips, updates and augmentation; the learning rate of each method is the better
of two on the dev split of one language. CER and WER of the test split in percent, pooled over seeds, with 95 %
bootstrap intervals over clips. Minutes are of the steps alone, without what is computed once and without looks at the
dev split; memory is the peak of its process, on the machine that ran it."""


@dataclass(frozen=True)
class Kind:
    """A method in its place: what a line of the table is about, over languages and seeds."""

    method: str
    size: int
    layers: int | None
    norms: str
    minutes: float | None
    on: str = ""

    @classmethod
    def of(cls, outcome: Outcome) -> Kind:
        c = outcome.config
        sized = c["method"] in ("bottleneck", "lora")
        return cls(
            c["method"],
            c["size"] if sized else 0,
            c["layers"] if c["method"] != "head" else 0,
            "" if c["method"] == "full" else c["norms"],
            c["minutes"],
            outcome.on,
        )

    def __str__(self) -> str:
        layers = "all layers" if self.layers is None else f"top {self.layers}"
        names = {
            "full": f"full fine-tuning, {layers}",
            "head": "head alone",
            "lora": f"LoRA of rank {self.size}, {layers}",
            "bottleneck": f"adapters of {self.size}, {layers}",
        }
        norms = {"all": ", all norms", "none": ", no norms"}.get(self.norms, "") if self.method == "bottleneck" else ""
        minutes = f", {self.minutes:g} minutes" if self.minutes is not None else ""
        on = f", on {self.on}" if self.on else ""
        return f"{names[self.method]}{norms}{minutes}{on}"


def page(outcomes: Iterable[Outcome], layer_count: int, figures: Sequence[str] = ()) -> str:
    """Markdown; ``figures`` are files beside it."""
    chosen = _chosen(outcomes)
    parts = [_INTRODUCTION, *(f"![]({figure})" for figure in figures), _table(chosen)]
    parts.append("## What holds here\n\n" + "\n".join(f"- {line}" for line in claims(chosen, layer_count)))
    return "\n\n".join(parts) + "\n"


def claims(outcomes: Sequence[Outcome], layer_count: int) -> list[str]:
    """The paper's four, each with the figures that decide it, over the pairs of language and seed that both sides
    have."""
    by_kind = _by_kind(outcomes)

    def best(method: str, layers: int | None) -> Kind | None:
        """The main one of its kind: with the norms of its layers, all data, and the size that most trials have."""
        main = (k for k in by_kind if not k.on and k.norms != "all")
        found = [k for k in main if (k.method, k.layers, k.minutes) == (method, layers, None)]
        return max(found, key=lambda kind: len(by_kind[kind]), default=None)

    adapters, full = best("bottleneck", layer_count), best("full", None)
    lines = []
    if adapters is not None:
        percent = max(one.percent for one in by_kind[adapters])
        lines.append(f"Under 10 % of the parameters: {_verdict(percent < 10)}. {adapters}: {percent:.2f} %.")
    if adapters is not None and full is not None and (found := _against(by_kind[adapters], by_kind[full])):
        lines.append(
            "Little degradation, within 1.0 of full fine-tuning's CER:"
            f" {found.verdict(_NEAR_FULL)}. Adapters less full: {found}, {found.pairs} pairs."
        )
    if adapters is not None:
        tops = {}
        for layers in sorted({1, 2, layer_count // 2}):
            some = best("bottleneck", layers)
            if some is not None and (found := _against(by_kind[some], by_kind[adapters])):
                tops[layers] = found
        if tops:
            chosen = min(tops, key=lambda layers: tops[layers].dev)
            said = "; ".join(f"top {layers}: {found}, {found.pairs} pairs" for layers, found in tops.items())
            lines.append(
                "The top layers suffice, some N of at most half of them within 0.5 of all:"
                f" {tops[chosen].verdict(_NEAR_ALL)}, at N = {chosen}, the best on dev. Less all layers, {said}."
            )
    one, tuned = best("bottleneck", 1), best("full", 1)
    if one is not None and tuned is not None and (found := _against(by_kind[one], by_kind[tuned])):
        lines.append(
            f"Adapters beat fine-tuning in the top layer: {found.verdict(0.0)}."
            f" Adapters less fine-tuning: {found}, {found.pairs} pairs."
        )
    return lines


def comparable(outcomes: Iterable[Outcome]) -> dict[Kind, float]:
    """CER in percent of each kind that was tried on all languages that every main method is tried on, over the clips of
    those alone, seeds averaged: what the figures show."""
    return {kind: _cer(found) for kind, found in _tried_everywhere(outcomes).items()}


def draw(outcomes: Iterable[Outcome], layer_count: int, folder: Path) -> list[str]:
    """error-by-percent.svg and error-by-layers.svg in ``folder``, of what is :func:`comparable`; their names."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    shared = _tried_everywhere(outcomes)

    def scatter(axes: Any) -> None:
        for method, mark in (("bottleneck", "o"), ("lora", "s"), ("head", "^"), ("full", "D")):
            some = [found for kind, found in shared.items() if kind.method == method]
            if some:
                axes.plot([mean(o.percent for o in f) for f in some], [_cer(f) for f in some], mark, label=method)
        axes.set(xscale="log", xlabel="parameters that train, %", ylabel=f"CER of {' and '.join(REQUIRED)}, %")

    def by_layers(axes: Any) -> None:
        for method in ("bottleneck", "full"):
            points = sorted(
                (layer_count if kind.layers is None else kind.layers, _cer(found))
                for kind, found in shared.items()
                if kind.method == method and kind.norms != "all" and _usual(kind, shared)
            )
            if points:
                label = {"bottleneck": "adapters", "full": "fine-tuning"}[method]
                axes.plot(*zip(*points, strict=True), "o-", label=label)
        axes.set(xlabel="layers from the top", ylabel=f"CER of {' and '.join(REQUIRED)}, %")

    names = []
    plots: list[tuple[str, Callable[[Any], None]]] = [("error-by-percent", scatter), ("error-by-layers", by_layers)]
    for name, plot in plots:
        figure, axes = pyplot.subplots(figsize=(6, 4))
        plot(axes)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
        figure.tight_layout()
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)
        names.append(f"{name}.svg")
    return names


def _chosen(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Without the trials of learning rates that were not taken: of one kind, language and seed the best on dev."""
    best: dict[tuple[Kind, str, int], Outcome] = {}
    for outcome in sorted(outcomes, key=lambda one: one.dev_cer):
        best.setdefault((Kind.of(outcome), outcome.language, outcome.config["seed"]), outcome)
    return list(best.values())


def _tried_everywhere(outcomes: Iterable[Outcome]) -> dict[Kind, list[Outcome]]:
    main = [one for one in _chosen(outcomes) if one.config["minutes"] is None and not one.on]
    by_kind = _by_kind([one for one in main if one.language in REQUIRED])
    return {kind: found for kind, found in by_kind.items() if {one.language for one in found} == set(REQUIRED)}


def _by_kind(outcomes: Iterable[Outcome]) -> dict[Kind, list[Outcome]]:
    found: dict[Kind, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(Kind.of(outcome), []).append(outcome)
    return found


def _table(outcomes: Sequence[Outcome]) -> str:
    lines = [
        "| | language | seeds | trained | % | CER | WER | minutes | GiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.language, str(Kind.of(outcome))), []).append(outcome)
    for (language, kind), found in sorted(groups.items(), key=lambda item: (item[0][0], -item[1][0].percent)):
        characters, words = Edits.averaged([o.characters for o in found]), Edits.averaged([o.words for o in found])
        lines.append(
            f"| {kind} | {language} | {len(found)} | {found[0].parameters:,} | {found[0].percent:.2f} |"
            f" {_rate(characters)} | {_rate(words)} | {mean(o.seconds for o in found) / 60:.1f} |"
            f" {max(o.peak_bytes for o in found) / 2**30:.1f} |"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class _Difference:
    """Of one kind's CER less another's, ``at``, with its interval, over so many ``pairs`` of one language and seed.
    ``dev``: of the CER on dev, their mean."""

    at: float
    low: float
    high: float
    pairs: int
    dev: float

    def __str__(self) -> str:
        return f"{100 * self.at:+.2f} ({100 * self.low:+.2f} to {100 * self.high:+.2f})"

    def verdict(self, most: float) -> str:
        if self.high <= most:
            return "holds"
        return "does not hold" if self.low > most else "open, the interval has room for both"


def _against(some: Sequence[Outcome], others: Sequence[Outcome]) -> _Difference | None:
    """Over the languages and seeds that both have; None where there are none yet."""
    keyed = {(o.language, o.config["seed"]): o for o in others}
    pairs = [(o, keyed[key]) for o in some if (key := (o.language, o.config["seed"])) in keyed]
    if not pairs:
        return None
    one, other = (_pooled([pair[side] for pair in pairs]) for side in (0, 1))
    dev = mean(one.dev_cer - other.dev_cer for one, other in pairs)
    return _Difference(one.rate - other.rate, *difference(one, other), len(pairs), dev)


def _pooled(found: Sequence[Outcome]) -> Edits:
    """Characters of all clips of all languages, each once with the mean of what all seeds made of it."""
    by_language: dict[str, list[Edits]] = {}
    for outcome in found:
        by_language.setdefault(outcome.language, []).append(outcome.characters)
    return Edits.joined([Edits.averaged(parts) for parts in by_language.values()])


def _usual(kind: Kind, seeded: dict[Kind, list[Outcome]]) -> bool:
    """Whether most trials of its method and layers are of this size."""
    same = [k for k in seeded if (k.method, k.layers) == (kind.method, kind.layers)]
    return kind == max(same, key=lambda k: len(seeded[k]))


def _cer(found: Sequence[Outcome]) -> float:
    return 100 * _pooled(found).rate


def _rate(edits: Edits) -> str:
    low, high = interval(edits)
    return f"{100 * edits.rate:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _verdict(holds: bool) -> str:
    return "holds" if holds else "does not hold"
