"""`--timeline`: the steps of a traced minibatch as a picture, one row a device and one for the copies between them."""
from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

from .errors import CommandLineError
from .plan import Span
from .recorder import Step

FORMATS = (".png", ".svg", ".pdf")
COLORS = {"conv": "#3b6fb6", "fc": "#7b52ab", "lrn": "#2f9e8f", "pool": "#86b94a", "neuron, bias, cost, ...": "#e0a526",
          "update": "#c8553d", "upload, image": "#8c6d4f", "copy": "#d6338a"}
PHASE_COLORS = {"forward": "#d5d8dc", "backward": "#9aa3ad", "update": "#5f6b78"}
WAIT_COLOR = "#f4c7c3"


@dataclass
class Bar:
    """Something that took time, in seconds."""

    start: float
    end: float
    kind: str
    label: str = ""
    lane: int = 0  # in the row of copies: the device that is copied to


@dataclass
class Row:
    name: str
    bars: list[Bar] = field(default_factory=list)
    waits: list[Bar] = field(default_factory=list)
    phases: list[Bar] = field(default_factory=list)  # stretches of steps of one phase; `kind` is the phase
    shares: dict[str, float] = field(default_factory=dict)  # of the minibatch's time: computes, copies, idle, and waits, a part of idle


def kind_of(step: Step) -> str:
    """Which colour a step has."""
    if step.op in ("upload", "image_forward"):
        return "upload, image"
    if "_pool_" in step.op and not step.op.startswith("lrn_"):
        return "pool"
    for kind, beginnings in (("copy", ("copy", "to_half", "from_half")), ("conv", ("conv_", "local_")), ("fc", ("fc_",)),
                             ("lrn", ("lrn_", "spatial_lrn_", "lcn_")), ("update", ("sgd_update", "check_finite"))):
        if step.op.startswith(beginnings):
            return kind
    return "neuron, bias, cost, ..."


def awaited(span: Span, ends: dict[Step, float]) -> str:
    """What a step waited for longest: a value that it copies, or the copy of one whose memory it takes."""
    step = max(span.waited_for, key=ends.__getitem__)
    return f"copy of {step.reads[0].name}" if step.op == "copy" else step.writes[0].name


def rows_of(spans: list[Span]) -> list[Row]:
    """A row for each queue of a device, then one for the copies if there are any.

    A copy is made by the queue of the device that gets it, which does nothing else meanwhile: it has its bar in the
    row of copies. A device is idle where it waits for another, and where its queue is empty.
    """
    queues = sorted({(span.step.device, span.beside) for span in spans})
    total = max(span.end for span in spans)
    ends = {span.step: span.end for span in spans}
    rows, copies = [], Row("copies")
    for device, beside in queues:
        row = Row(f"device {device}{', beside' * beside}")
        seconds = dict.fromkeys(("computes", "copies", "waits"), 0.0)
        for span in (span for span in spans if (span.step.device, span.beside) == (device, beside)):
            is_copy = span.step.op == "copy"
            bar = Bar(span.start, span.end, kind_of(span.step), span.step.layer)
            if is_copy:
                bar.lane = device
                bar.label = span.step.reads[0].name.partition("@")[0]
            (copies if is_copy else row).bars.append(bar)
            seconds["copies" if is_copy else "computes"] += span.end - span.start
            if span.waited_for:
                row.waits.append(Bar(span.reached, span.start, "wait", awaited(span, ends)))
                seconds["waits"] += span.start - span.reached
            if row.phases and row.phases[-1].kind == span.step.phase:
                row.phases[-1].end = span.end
            else:
                row.phases.append(Bar(span.start, span.end, span.step.phase, span.step.phase))
        row.shares = {name: taken / total for name, taken in seconds.items()}
        row.shares["idle"] = 1 - row.shares["computes"] - row.shares["copies"]
        rows.append(row)
    return [*rows, copies] if copies.bars else rows


def check(path: Path) -> None:
    """Raises CommandLineError where a picture cannot be drawn."""
    if path.suffix.lower() not in FORMATS:
        raise CommandLineError(f"--timeline {path}: expected a name that ends in {', '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401 (only whether it is there)
    except ImportError:
        raise CommandLineError("--timeline draws with matplotlib, which is not installed: ./go --with plot convnet-train ...") from None


def draw(spans: list[Span], title: str, suffix: str = ".png") -> bytes:
    """The picture, 1600 pixels wide."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows, total = rows_of(spans), max(span.end for span in spans) * 1e3
    lanes = sorted({bar.lane for bar in rows[-1].bars})
    heights = [1.0 if row.shares else 0.2 + 0.6 * len(lanes) for row in rows]
    inches = 1.3  # for a height of 1
    figure = Figure(figsize=(16, 1.4 + inches * sum(heights)), dpi=100, layout="constrained")
    axis = figure.subplots()
    pixels = 1350 / total  # about so many for a millisecond: whether a label has room

    def draw_bar(bar: Bar, top: float, height: float, color: str, text_color: str = "white") -> None:
        """With its label along, across, or without it, as there is room."""
        start, width = bar.start * 1e3, (bar.end - bar.start) * 1e3
        edge = "white" if width * pixels > 4 else color  # the shortest would be all edge
        axis.broken_barh([(start, width)], (top, height), facecolor=color, edgecolor=edge, linewidth=0.6)
        length, across = 6.2 * len(bar.label) + 4, height * inches * 100
        if length < width * pixels or (length < across and width * pixels > 11):
            axis.text(start + width / 2, top + height / 2, bar.label, ha="center", va="center", fontsize=8, color=text_color, parse_math=False,
                      rotation=0 if length < width * pixels else 90, rotation_mode="anchor")

    def draw_copies(bars: list[Bar], top: float) -> None:
        """Most are thin lines: the name stands beside one, unless that of the one before it is there."""
        used = -1.0
        for bar in bars:
            draw_bar(Bar(bar.start, bar.end, bar.kind), top, 0.56, COLORS["copy"])
            end = bar.end * 1e3
            if end > used and end + 12 / pixels < total:
                axis.text(end + 3 / pixels, top + 0.28, bar.label, ha="left", va="center", fontsize=7 if len(bar.label) < 15 else 6, rotation=90, parse_math=False)
                used = end + 13 / pixels

    top, ticks = 0.0, {}
    for row, height in zip(rows, heights, strict=True):
        if row.shares:
            ticks[top + 0.35] = label_of(row)
            for bar in row.waits:
                draw_bar(bar, top, 0.7, WAIT_COLOR, "#7a2c22")
            for bar in row.bars:
                draw_bar(bar, top, 0.7, COLORS[bar.kind])
            for bar in rows[-1].bars:
                if bar.kind == "copy" and f"device {bar.lane}" == row.name:
                    draw_bar(Bar(bar.start, bar.end, bar.kind), top, 0.7, COLORS["copy"])
            for bar in row.phases:
                draw_bar(bar, top + 0.72, 0.13, PHASE_COLORS[bar.kind], "white" if bar.kind == "update" else "black")
        else:
            for lane in lanes:
                ticks[top + 0.28 + 0.6 * lanes.index(lane)] = f"copies to {lane}"
                draw_copies([bar for bar in row.bars if bar.lane == lane], top + 0.6 * lanes.index(lane))
        top += height
    axis.set_yticks(list(ticks), list(ticks.values()))
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(top - 0.1, -0.1)
    axis.set_xlim(0, total)
    axis.set_xlabel("ms")
    axis.spines[["top", "right", "left"]].set_visible(False)
    kinds = {bar.kind for row in rows for bar in row.bars}
    patches = [Patch(color=color, label=kind) for kind, color in COLORS.items() if kind in kinds]
    if any(row.waits for row in rows):
        patches.append(Patch(color=WAIT_COLOR, label="waits for what another device makes"))
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)
    axis.set_title(title, loc="left", parse_math=False)
    content = io.BytesIO()
    figure.savefig(content, format=suffix[1:].lower())
    return content.getvalue()


def label_of(row: Row) -> str:
    """What stands beside a device's row."""
    return "\n".join([row.name, *(f"{name} {row.shares[name]:.0%}" for name in ("idle", "computes", "copies"))])
