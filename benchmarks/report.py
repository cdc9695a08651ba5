"""The results as a page: targets first, then ratios with their spread, then absolute figures with their machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.profile import Step, table
from benchmarks.targets import Results, Target, ratios, targets
from benchmarks.workload import languages, percentile

_INTRODUCTION = """# Benchmarks

Made by `make bench`; do not edit. Every system hears the same clips, cut from the recordings in
[examples](../examples), from the same number of clients, each of which sends its next clip when it has its answer;
where there are as many clients as requests, all come at once. Each has a process of its own, and one is at work at a
time; in every round another goes first. A ratio is of two systems in the same round, so a machine that slows down slows
both; given is the median over the rounds, with the least, the most and their number, or "once". An eighth of a round,
on a GPU a whole one, comes before and is not counted.

- **engine**: this project, in process, as `tongues serve` configures it but for a seat for each language and a permit
  for each client; decoded clips in, transcripts out. It and **bare** keep freed memory and spare Python's
  collector what was loaded, as `tongues serve` does; the others run as they come.
- **load_adapter**: transformers' way for MMS: one model, and under a lock the weights of each request's language.
- **full models**: one model a language, 64 of them at most, all resident, until memory ends; on a GPU rows of one
  language share a batch.
- **peft**: LoRA on queries and values, rows of one batch told apart by `adapter_names`.
- **bare**: the backbone with one head, no adapters, no bank.

What else there is to choose, lanes and rows of a batch, each of the last two chooses by trial on clips like these; the
table of memory says what it chose.

What `engine` wears: {sizes}.

`load_adapter` wears what MMS does, 16 wide and once a layer, which is less arithmetic.
Backbones but the shipped one have random weights, and all are pre-norm, which `load_adapter` needs."""


def page(results: Results, plot: str) -> str:
    """docs/benchmarks.md; ``plot`` is the file beside it. Parts that were not run are left out."""
    machine = results["machine"]
    sizes = "; ".join(f"{backbone}: {size}" for backbone, size in results.get("sizes", {}).items())
    parts = [
        _INTRODUCTION.format(sizes=sizes or "bottlenecks"),
        "## Targets\n\n" + target_table(targets(results)),
    ]
    if results.get("comparisons"):
        parts.append(f"## Ratios\n\n![RTFx of each system]({plot})")
        for backbone, found in results["comparisons"].items():
            parts.append(f"### {backbone}\n\n" + "\n\n".join(_compared(found)))
    if results.get("seating"):
        parts.append("## Memory and seats\n\n" + _seated(results["seating"]))
    if results.get("http"):
        parts.append("## Over HTTP, the shipped model\n\n" + "\n\n".join(_served(results["http"])))
    if results.get("profile"):
        steps = [Step(**step) for step in results["profile"]]
        told = "One step of the engine, each row in another adapter; shares of the time that operations take."
        parts.append(f"## Where a step goes\n\n{told}\n\n{table(steps)}")
    failed = "".join(f"\n- {part} could not be measured: {why}" for part, why in results.get("failed", {}).items())
    parts.append(f"## The machine\n\n{_machine(machine)}{failed}")
    return "\n\n".join(parts) + "\n"


def target_table(found: Iterable[Target]) -> str:
    """Markdown: target, measured, spread, met or not."""
    lines = ["| target | goal | measured | least to most | |", "|---|---|---|---|---|"]
    for target in found:
        goal = f"{'<=' if target.most else '>='} {target.goal:g}{_unit(target)}"
        if target.measured is None:
            lines.append(f"| {target.name} | {goal} | | | not measured |")
            continue
        spread = f"{min(target.values):.2f} to {max(target.values):.2f}"
        verdict = "met" if target.met else "**missed**"
        lines.append(f"| {target.name} | {goal} | {target.measured:.2f}{_unit(target)} | {spread} | {verdict} |")
    return "\n".join(lines)


def _compared(found: Mapping[str, Any]) -> Iterable[str]:
    """Engine over each other, RTFx and latency by cell; what each took; what could not be had."""
    systems = list(dict.fromkeys(run["system"] for run in found["runs"]))
    cells = list(dict.fromkeys(tuple(run["cell"].items()) for run in found["runs"]))
    by = {(run["system"], tuple(run["cell"].items()), run["round"]): run["timing"] for run in found["runs"]}
    others = [system for system in systems if system != "engine"]
    yield _grid("engine / ...", others, cells, lambda cell, system: _ratio(by, cell, system))
    yield _grid("RTFx", systems, cells, lambda cell, system: _middle(by, cell, system, "rtfx", "{:.1f}"))
    yield _grid(
        "p50 / p95, s",
        systems,
        cells,
        lambda cell, system: " / ".join(
            filter(None, (_middle(by, cell, system, p, "{:.3f}") for p in ("p50_s", "p95_s")))
        ),
    )
    if found.get("mixing"):
        yield "The engine alone, in turn:\n\n" + _mixed(found["mixing"])
    yield _taken(found)
    if found["unable"]:
        yield "\n".join(f"- {who}: {why}" for who, why in found["unable"].items())


def _grid(what: str, columns: Sequence[str], cells: Sequence[Any], value: Any) -> str:
    lines = [f"| {what} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for cell in cells:
        lines.append(f"| {cell_name(dict(cell))} | " + " | ".join(value(cell, column) for column in columns) + " |")
    return "\n".join(lines)


def cell_name(cell: Mapping[str, Any]) -> str:
    """In words: how many languages come up, and out of how many; who asks how often."""
    count = cell["requests"]
    spoken = len({*languages(cell["popularity"], cell["adapters"], count)})
    told = "1 language" if cell["adapters"] == 1 else f"{spoken} of {cell['adapters']} languages, {cell['popularity']}"
    clients = min(cell["concurrency"], count)
    return f"{told}, {clients} {'client' if clients == 1 else 'clients'}, {count} requests, {cell['clips']}"


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f} (once)"
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f}, {len(values)})"


def _ratio(by: Mapping[Any, Any], cell: Any, system: str) -> str:
    def rounds(name: str) -> dict[int, float]:
        return {key[2]: timing["rtfx"] for key, timing in by.items() if key[:2] == (name, cell)}

    values = ratios(rounds("engine"), rounds(system))
    return _spread(values) if values else ""


def _middle(by: Mapping[Any, Any], cell: Any, system: str, figure: str, form: str) -> str:
    values = [timing[figure] for key, timing in by.items() if key[:2] == (system, cell)]
    return form.format(median(values)) if values else ""


def _taken(found: Mapping[str, Any]) -> str:
    lines = [
        "| | languages held | peak of host memory | of the device | of a further language | runs as |",
        "|---" * 6 + "|",
    ]
    for system, footprint in found["footprints"].items():
        facts = found["facts"].get(system, {})
        further = f"{facts['bytes a language'] / 2**20:.2f} MiB" if "bytes a language" in facts else ""
        ends = f", memory ends at {facts['ends at']} models" if "ends at" in facts else ""
        device = f"{footprint['device_peak'] / 2**20:.0f} MiB" if footprint["device_peak"] else ""
        host = f"{footprint['host_peak'] / 2**20:.0f} MiB"
        held = facts.get("languages", "")
        lines.append(f"| {system} | {held} | {host} | {device} | {further} | {facts.get('chose', '')}{ends} |")
    return "\n".join(lines)


def _seated(seatings: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "Bytes of the bank over those of the parameters of what sits in it, in the device's dtype: with all seated, and"
        " the worst with eight or more. The process: by how much it grew, over the same. Between two seatings the bank"
        " makes memory for the next, as it does while serving; the last column is one right after the other.",
        "",
        "| | adapters | MiB each | bank / parameters | at worst | process / parameters | seat p50 / p95 / most, ms"
        " | back to back |",
        "|---" * 8 + "|",
    ]
    for one in seatings:
        parameters, count = one["parameter_bytes"], len(one["parameter_bytes"])
        worst = max(b / p for b, p in list(zip(one["bank_bytes"], parameters, strict=True))[7:] or [(0, 1)])
        times = " | ".join(_times(one[which]) for which in ("seconds", "unprepared_s"))
        each = parameters[-1] / count / 2**20
        bank, host = one["bank_bytes"][-1] / parameters[-1], one["host_bytes"][-1] / parameters[-1]
        lines.append(f"| {one['what']} | {count} | {each:.2f} | {bank:.2f} | {worst:.2f} | {host:.2f} | {times} |")
    return "\n".join(lines)


def _times(seconds: Sequence[float]) -> str:
    milliseconds = [1e3 * each for each in seconds]
    return " / ".join(f"{percentile(milliseconds, percent):.1f}" for percent in (50, 95, 100))


def _mixed(mixing: Sequence[Mapping[str, Any]]) -> str:
    """One language against many, by concurrency."""
    lines = [
        "| clients | requests | languages | mixed / one language | RTFx, one | RTFx, mixed | p50 / p95 mixed, s |",
        "|---" * 7 + "|",
    ]
    for concurrency in sorted({one["concurrency"] for one in mixing}):
        some = [one for one in mixing if one["concurrency"] == concurrency]
        over = [one["mixed"]["rtfx"] / one["identical"]["rtfx"] for one in some]
        cells = [
            *(str(some[0][what]) for what in ("concurrency", "requests", "languages")),
            _spread(over),
            *(f"{median(one[kind]['rtfx'] for one in some):.1f}" for kind in ("identical", "mixed")),
            " / ".join(f"{median(one['mixed'][p] for one in some):.3f}" for p in ("p50_s", "p95_s")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _served(http: Mapping[str, Any]) -> Iterable[str]:
    yield _mixed(http["mixing"])
    if http.get("telling"):
        rtfx = (median(one[kind]["rtfx"] for one in http["telling"]) for kind in ("known", "auto"))
        right = 100 * http["telling"][0]["right"]
        yield "RTFx at concurrency 8, language known {:.1f}, with `lang=auto` {:.1f}; ".format(*rtfx) + (
            f"{right:.0f} % of the recordings in examples/ were told rightly."
        )
    if http["beside"]:
        idle, beside = (median(one[key] for one in http["beside"]) for key in ("idle_p95_s", "beside_p95_s"))
        told = f"{1e3 * idle:.0f} ms alone, {1e3 * beside:.0f} ms beside an hour being transcribed"
        yield f"p95 of a clip of 2 s: {told}."
    if http["published_s"]:
        some = [1e3 * seconds for seconds in http["published_s"]]
        yield (
            f"From sending a new version to the first answer by it: {median(some):.0f} ms"
            f" ({min(some):.0f} to {max(some):.0f}, {len(some)} times)."
        )


def _machine(machine: Mapping[str, Any]) -> str:
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB of memory"
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {memory}; device: {machine['device']}. torch {machine['torch']},"
        f" transformers {machine['transformers']}, Python {machine['python']}. {machine['note']}".rstrip()
    )


def _unit(target: Target) -> str:
    return f" {target.unit}" if target.unit else ""
