"""`--plan --profile`: the table of steps with time, GFLOP/s, GB/s and the share of what the machine can do."""
from __future__ import annotations

import statistics
import time

from .net import Net
from .plan import Plan
from .work import bytes_moved, flops

ROUNDS = 5


def profile(net: Net, plan: Plan, feeds: dict) -> str:
    """Runs the plan's steps one by one, each after the one before is done; the median of five rounds."""
    plan.run(feeds)
    plan.synchronize()
    seconds: list[list[float]] = [[] for _ in plan.steps]
    for _ in range(ROUNDS):
        for times, step in zip(seconds, plan.steps, strict=True):
            start = time.perf_counter()
            step.call()
            plan.devices[step.device].synchronize()
            times.append(time.perf_counter() - start)
    peaks = {index: (device.ops.measure_peak_flops(device, net.dtype), device.ops.measure_bandwidth(device)) for index, device in plan.devices.items()}

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
