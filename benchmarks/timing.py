"""How long a call takes, and how such times vary: what the benchmarks and the workers of their peers share."""
from __future__ import annotations

import statistics
from collections.abc import Callable

LONG_ENOUGH = 0.02  # seconds: shorter calls are timed several in a row


def seconds_of(call: Callable, synchronize: Callable, clock: Callable[[], float]) -> float:
    """Of one call; several in a row where one is too short for the clock, or for the processor to come to the clock rate that it holds."""
    synchronize()
    repeats = 1
    while True:
        start = clock()
        for _ in range(repeats):
            call()
        synchronize()
        elapsed = clock() - start
        if elapsed >= LONG_ENOUGH:
            return elapsed / repeats
        repeats = max(repeats + 1, int(repeats * 1.2 * LONG_ENOUGH / max(elapsed, 1e-6)))


def spread(times: list[float]) -> float:
    """Half the distance of the quartiles, as a share of the median."""
    if len(times) < 4:
        return (max(times) - min(times)) / 2 / statistics.median(times)
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / 2 / middle
