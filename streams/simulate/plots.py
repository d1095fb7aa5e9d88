"""Pictures of runs, as PNG or SVG by the file's name. The same run gives the same picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from streams.policy.config import LANES
from streams.simulate.ledger import Ledger, Waits

COLOURS: Final = ("#3b6fb6", "#e07b39", "#4f9d69", "#b6465f", "#8264b0", "#7f7f7f", "#c9a227", "#3fa7a3")
OTHERS: Final = "others"
_STYLE: Final[Any] = {
    "svg.hashsalt": "meshyard",
    "svg.fonttype": "path",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def plot_run(ledger: Ledger, capacity: int, file: Path, title: str) -> None:
    """What was served to whom over time, and how long whose jobs waited; of several model versions only the first."""
    dimension = _telling_dimension(ledger)
    with rc_context(_STYLE):
        rows = 1 if dimension == "version" else 2
        figure = Figure(figsize=(9, 3.25 * rows), layout="constrained")
        axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
        shares(axes[0], ledger, dimension, capacity)
        if rows > 1:
            wait_curves(axes[1], {name: ledger.first_waits(dimension, name) for name in _in_order(ledger, dimension)})
        figure.suptitle(title)
        save(figure, file)


def _telling_dimension(ledger: Ledger) -> str:
    """What to tell apart: model versions, lanes or tiers, the first of which there are several; few users before."""
    versions = {name for kind, name, _ in ledger.served if kind == "version"}
    lanes = {name for kind, name, _ in ledger.served if kind == "lane"}
    if len(versions) > 1:
        return "version"
    if 1 < len(ledger.users) <= 8:
        return "user"
    return "tier" if len(lanes) < 2 and len(ledger.tiers) > 1 else "lane"


def _in_order(ledger: Ledger, dimension: str) -> list[str]:
    """The names of those who were served: lanes by urgency, others by the alphabet."""
    names = {name for kind, name, _ in ledger.served if kind == dimension}
    return sorted(names, key=lambda name: (LANES.index(name) if name in LANES else 0, name))


def shares(axes: Axes, ledger: Ledger, dimension: str, capacity: int) -> None:
    """Slots used over time, stacked by lane, tier, user or version."""
    totals: dict[str, float] = {}
    for (kind, name, _), seconds in ledger.served.items():
        if kind == dimension:
            totals[name] = totals.get(name, 0.0) + seconds
    if not totals:
        return
    names = sorted(totals, key=lambda name: -totals[name])
    shown = [name for name in _in_order(ledger, dimension) if name in names[: len(COLOURS) - 1]]
    start = ledger.span_ms()[0] // ledger.bin_ms
    last = max(place for kind, _, place in ledger.served if kind == dimension)
    places = range(start, last + 1)
    seconds_of_bin = ledger.bin_ms / 1000
    rows = {n: [ledger.served.get((dimension, n, p), 0.0) / seconds_of_bin for p in places] for n in shown}
    rest = names[len(COLOURS) - 1 :]
    if rest:
        rows[OTHERS] = [sum(ledger.served.get((dimension, n, p), 0.0) for n in rest) / seconds_of_bin for p in places]
    times = [(place - start) * seconds_of_bin for place in places]
    axes.stackplot(times, *rows.values(), labels=rows, colors=COLOURS, linewidth=0)
    axes.axhline(capacity, color="#333333", linewidth=0.8, linestyle="--")
    axes.set(xlabel="simulated seconds", ylabel=f"slots busy, by {dimension}", xlim=(0, times[-1] or 1), ylim=(0, None))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=8)


def wait_curves(axes: Axes, waits: Mapping[str, Sequence[float]]) -> None:
    """For each group, which share of its jobs started within a time. waits: seconds, in order of size."""
    for colour, (name, ordered) in zip(COLOURS, waits.items(), strict=False):
        if ordered:
            step = max(1, len(ordered) // 2000)
            points = [*ordered[::step], ordered[-1]]
            axes.plot(
                [max(p, 0.001) for p in points],
                [min(1.0, (i * step + 1) / len(ordered)) for i in range(len(points))],
                label=f"{name} ({len(ordered):,} jobs)",
                color=colour,
            )
    axes.set_xscale("log")
    axes.set(xlabel="seconds until the first start", ylabel="share of jobs", ylim=(0, 1.02))
    axes.legend(loc="upper left")


def plot_comparison(
    sides: Mapping[str, Mapping[str, Mapping[str, Waits]]], dimensions: Sequence[str], file: Path, title: str
) -> None:
    """Waits of several sides (recorded, counterfactual) beside each other. sides: side -> dimension -> group -> waits;
    bars are medians, the lines above them go to p99."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(9, 3 * len(dimensions)), layout="constrained")
        for axes, dimension in zip(figure.subplots(len(dimensions), 1, squeeze=False)[:, 0], dimensions, strict=True):
            _bars(axes, {side: found[dimension] for side, found in sides.items()}, dimension)
        figure.suptitle(title)
        save(figure, file)


def _bars(axes: Axes, sides: Mapping[str, Mapping[str, Waits]], dimension: str) -> None:
    names = list(dict.fromkeys(name for found in sides.values() for name in found))[:12]
    width = 0.8 / len(sides)
    for number, (side, found) in enumerate(sides.items()):
        places = [index + (number - (len(sides) - 1) / 2) * width for index in range(len(names))]
        middle = [found[n].p50 or 0.0 if n in found else 0.0 for n in names]
        upper = [max(0.0, (found[n].p99 or 0.0) - m) if n in found else 0.0 for n, m in zip(names, middle, strict=True)]
        axes.bar(places, middle, width * 0.95, label=side, color=COLOURS[number])
        axes.errorbar(
            places, middle, yerr=[[0.0] * len(upper), upper], fmt="none", ecolor="#333333", elinewidth=1, capsize=2
        )
    axes.set_xticks(range(len(names)), names)
    axes.set(ylabel="seconds waited", title=f"by {dimension}: p50 (bar) to p99 (line)")
    axes.legend()


def save(figure: Figure, file: Path) -> None:
    """Writes a figure as the file's name says. Raises ValueError for another ending than .png or .svg."""
    kind = file.suffix.lower()
    if kind == ".svg":
        figure.savefig(file, format="svg", metadata={"Date": None})
    elif kind == ".png":
        figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    else:
        raise ValueError(f"{file.name} ends neither in .png nor in .svg")


def plot_fairness(
    service: Mapping[str, Sequence[tuple[float, float]]], waits: Mapping[str, Sequence[float]], file: Path
) -> None:
    """service: user -> (seconds, GPU-seconds / weight until then), one line each, which lie on each other when all is
    fair; waits: as in wait_curves."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(9, 6.5), layout="constrained")
        axes = figure.subplots(2, 1)
        for number, points in enumerate(service.values()):
            times, values = zip(*points, strict=True)
            axes[0].step(times, values, where="post", color=COLOURS[number % len(COLOURS)], linewidth=1)
        axes[0].set(xlabel="seconds", ylabel="GPU-seconds / weight", title="service of users with a backlog")
        axes[0].set(xlim=(0, None), ylim=(0, None))
        wait_curves(axes[1], waits)
        axes[1].set(title="waits of neighbours")
        save(figure, file)
