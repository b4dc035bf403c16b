"""Passes over the recorded steps."""
from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from .recorder import Step, Value


def fuse_softmax_cost(steps: list[Step]) -> list[Step]:
    """Softmax under logistic regression alone: one gradient, with nothing divided (SEMANTICS 3.4)."""
    readers, writers = defaultdict(list), defaultdict(list)
    for step in steps:
        for value in step.reads:
            readers[value.root].append(step)
        for value in step.writes:
            writers[value.root].append(step)
    fused: dict[Step, Step | None] = {}
    for step in steps:
        if step.op != "logreg_backward":
            continue
        gradient = step.writes[0].root
        if len(writers[gradient]) == 1 and len(readers[gradient]) == 1 and readers[gradient][0].op == "softmax_backward":
            softmax = readers[gradient][0]
            fused[step] = None
            fused[softmax] = replace(softmax, op="logreg_softmax_backward", reads=step.reads, scalars=step.scalars)
    return [fused.get(step, step) for step in steps if fused.get(step, step) is not None]


def drop_unread(steps: list[Step], keep: set[Value]) -> list[Step]:
    """Without the steps whose results nobody reads: the gradients of frozen weights, and of what is below them."""
    wanted, kept = set(keep), []
    for step in reversed(steps):
        if any(value.root.persistent or value.root in wanted for value in step.writes):
            kept.append(step)
            wanted |= {value.root for value in step.reads}
    return kept[::-1]
