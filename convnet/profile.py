"""`--profile`: the table of steps with time, GFLOP/s, GB/s and the share of what the machine can do; `--trace`: when they ran."""
from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

from . import timeline
from .backends import Device
from .errors import CannotCreate, WriteFailed
from .net import Net
from .plan import Plan, Span
from .recorder import Value
from .work import bytes_moved, flops

ROUNDS = 5
PEAK_SECONDS = 0.02


def profile(net: Net, plan: Plan, feeds: dict) -> str:
    """Runs the plan's steps one by one, each after the one before is done; the median of five rounds."""
    plan.run(feeds)
    plan.synchronize()
    seconds: list[list[float]] = [[] for _ in plan.steps]
    for _ in range(ROUNDS):
        for times, step in zip(seconds, plan.steps, strict=True):
            start = time.perf_counter()
            step.call()
            plan.queue(step).synchronize()
            times.append(time.perf_counter() - start)
    peaks = {index: (measured_peak(device, net.dtype), device.ops.measure_bandwidth(device)) for index, device in plan.devices.items()}

    lines = [f"{'ms':>9} {'GFLOP/s':>8} {'GB/s':>7} {'of peak':>7}"]
    total = 0.0
    for i, (step, times) in enumerate(zip(plan.steps, seconds, strict=True)):
        taken = statistics.median(times)
        total += taken
        rate, moved = flops(step) / taken, bytes_moved(step) / taken
        peak_flops, bandwidth = peaks[step.device]
        share = max(rate / peak_flops if peak_flops else 0.0, moved / bandwidth if bandwidth else 0.0)
        lines.append(f"{taken * 1e3:9.3f} {rate / 1e9:8.1f} {moved / 1e9:7.1f} {share:7.0%}  {i:4}  {step.line()}")
    work = sum(flops(step) for step in plan.steps)
    lines.append(f"{len(plan.steps)} steps, {total * 1e3:.1f} ms one after the other, {work / total / 1e9:.1f} GFLOP/s, {plan.images / total:.0f} images/s")
    for index, (peak_flops, bandwidth) in peaks.items():
        lines.append(f"peak of device {index}, measured: {peak_flops / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s "
                     "(small tensors stay in the caches and can be faster than that)")
    return "\n".join(lines)


def measured_peak(device: Device, dtype: str) -> float:
    """Operations a second of multiply-adds in registers; the median of several turns, each long enough for the clock to fall to what it holds."""
    rates = []
    for _ in range(ROUNDS):
        start, done = time.perf_counter(), 0.0
        while (elapsed := time.perf_counter() - start) < PEAK_SECONDS:
            done += device.ops.run_multiply_adds(device, dtype)
        rates.append(done / elapsed)
    return statistics.median(rates)


# ---- as training runs it: all devices at once -------------------------------------------------------------------

def picture(plan: Plan, feeds: dict, title: str, trace_file: str | None, timeline_file: str | None) -> str:
    """Writes the trace and the timeline of one minibatch, after one that warms up; returns what they show, in a line or two."""
    if timeline_file:
        timeline.check(Path(timeline_file))
    plan.run(feeds)
    spans = plan.traced_run(feeds)
    total = max(span.end for span in spans)
    lines = [f"one minibatch, all devices at once: {total * 1e3:.1f} ms, {plan.images / total:.0f} images/s"]
    for row in timeline.rows_of(spans):
        if row.shares:
            lines.append("{}: computes {computes:.1%}, copies {copies:.1%}, idle {idle:.1%} (waits for another device {waits:.1%})".format(row.name, **row.shares))
    if trace_file:
        write("--trace", trace_file, json.dumps(chrome_trace(spans, title), allow_nan=False, separators=(",", ":")).encode())
        lines.append(f"trace: {trace_file}; https://ui.perfetto.dev opens it")
    if timeline_file:
        write("--timeline", timeline_file, timeline.draw(spans, f"{title}: {total * 1e3:.1f} ms", Path(timeline_file).suffix))
        lines.append(f"timeline: {timeline_file}")
    return "\n".join(lines)


def chrome_trace(spans: list[Span], title: str) -> dict:
    """The spans as trace events, which Perfetto and chrome://tracing read.

    A process `devices` with a track for each queue of a device, and a process `copies` with one for each device that is copied to,
    since copies to two devices can be under way at the same time. What a step waits for is a slice before it, on the
    track of its device: a copy's own time is that of its bytes.
    """
    def place(span: Span) -> tuple[bool, int, bool]:
        return span.step.op == "copy", span.step.device, span.beside

    tracks = {track: tid for tid, track in enumerate(sorted({place(span) for span in spans}), 1)}  # 0 is the idle thread to Perfetto
    events = []
    for (is_copy, device, beside), tid in tracks.items():
        name, process = (f"copies to device {device}", "copies") if is_copy else (f"device {device}{', beside' * beside}", "devices")
        events.append({"ph": "M", "pid": 1 + is_copy, "name": "process_name", "args": {"name": process}})
        events.append({"ph": "M", "pid": 1 + is_copy, "tid": tid, "name": "thread_name", "args": {"name": name}})
    ends = {span.step: span.end for span in spans}
    for i, span in enumerate(spans):
        step, seconds = span.step, span.end - span.start
        if span.waited_for:
            events.append({"ph": "X", "name": f"waits for {timeline.awaited(span, ends)}", "cat": "wait", "pid": 1, "tid": tracks[False, step.device, span.beside],
                           "ts": span.reached * 1e6, "dur": (span.start - span.reached) * 1e6, "args": {"step": i}})
        args = {"step": i, "layer": step.layer, "phase": step.phase, "reads": [described(value) for value in step.reads],
                "writes": [described(value) for value in step.writes], "bytes": bytes_moved(step)}
        if seconds > 0:  # a clock may be too coarse for the shortest
            args |= {"GFLOP/s": round(flops(step) / seconds / 1e9, 2), "GB/s": round(bytes_moved(step) / seconds / 1e9, 2)}
        if step.op == "copy":
            args |= {"from device": step.reads[0].device, "to device": step.device}
        events.append({"ph": "X", "name": step.op, "cat": timeline.kind_of(step), "pid": 1 + (step.op == "copy"), "tid": tracks[place(span)],
                       "ts": span.start * 1e6, "dur": seconds * 1e6, "args": args})
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"title": title}}


def described(value: Value) -> str:
    return f"{value.name} {'x'.join(map(str, value.shape))} {value.dtype}"


def write(option: str, path: str, content: bytes) -> None:
    try:
        file = open(path, "wb")  # noqa: SIM115 (the two ways to fail are told apart)
    except OSError as error:
        raise CannotCreate(f"{option} {path}: {error.strerror}") from None
    try:
        with file:
            file.write(content)
    except OSError as error:
        raise WriteFailed(f"{option} {path}: {error.strerror}") from None
