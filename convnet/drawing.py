"""A net as a picture, in the manner of figure 2 of Krizhevsky et al. 2012: layers with weights as boxes, a row for each device."""
from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from html import escape

from .graph import Graph, Node

COLUMN, SLOT, MARGIN = 150, 230, 70  # pixels from column to column, of a box's place in its row, around
TALLEST, DEPTH = 120, 0.3  # of a box; of its height, how far back it goes
TIMES = " \N{MULTIPLICATION SIGN} "
STYLE = """text{font-family:Helvetica,Arial,sans-serif;font-size:11px;text-anchor:middle;fill:#222}
.small{font-size:9px;fill:#666}.row{font-size:12px;fill:#888;text-anchor:start}
.box{fill:#eef3f8;stroke:#345;stroke-width:1}.side{fill:#d5dfe9;stroke:#345;stroke-width:1}
.arrow{stroke:#345;stroke-width:1.2;fill:none}.crossing{stroke:#c03020;stroke-width:1.4;fill:none}.line{stroke:#bbb;stroke-dasharray:6 5}"""


@dataclass
class Box:
    """A layer's place: the middle of its front face, and its size in pixels."""

    node: Node
    device: int  # -1: the host
    x: float
    y: float
    width: float
    height: float
    depth: float

    @property
    def left(self) -> tuple[float, float]:
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> tuple[float, float]:
        return self.x + self.width / 2 + self.depth, self.y


def draw(graph: Graph) -> str:
    """The text of an SVG file."""
    sources = {node: drawn_sources(node) for node in graph.computed if node.weights}
    inputs = {source for found in sources.values() for source, _ in found if not source.weights}
    nodes = [node for node in graph.nodes if node in sources or node in inputs]
    columns: dict[Node, int] = {}
    for node in nodes:
        columns[node] = 1 + max((columns[source] for source, _ in sources.get(node, ())), default=-1)
    devices = graph.devices
    cells: dict[tuple[int, int], list[Node]] = defaultdict(list)  # (column, device)
    for node in nodes:
        for device in dict.fromkeys(node.devices) or [-1]:
            cells[columns[node], device].append(node)
    slots = {device: max([len(cell) for (_, other), cell in cells.items() if other == device], default=1) for device in devices}
    tops = {device: MARGIN + SLOT * sum(slots[other] for other in devices[:i]) for i, device in enumerate(devices)}
    width, height = 2 * MARGIN + COLUMN * (max(columns.values(), default=0) + 1), 2 * MARGIN + SLOT * sum(slots.values())

    boxes: dict[Node, list[Box]] = defaultdict(list)
    largest = max((node.shape[1] for node in nodes), default=1), max((node.shape[0] for node in nodes if node.weights), default=1)
    for (column, device), cell in cells.items():
        for i, node in enumerate(cell):
            top, room = (tops[device], SLOT * slots[device]) if device >= 0 else (MARGIN, height - 2 * MARGIN)
            boxes[node].append(Box(node, device, MARGIN + COLUMN * (column + 0.5), top + room * (i + 0.5) / len(cell), *size(node, *largest)))

    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">', f"<style>{STYLE}</style>",
             '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
             '<path d="M0 0L8 4L0 8z" fill="context-stroke"/></marker></defs>', f'<rect width="{width}" height="{height}" fill="white"/>']
    for device in devices:
        if len(devices) > 1:
            lines.append(f'<text class="row" x="8" y="{tops[device] + 22 if device != devices[0] else 20}">device {device}</text>')
        if device != devices[0]:
            lines.append(f'<path class="line" d="M0 {tops[device] + 5}H{width}"/>')
    for node, found in sources.items():
        for source, _ in found:
            ways = {(source.device(chunk), node.device(chunk)) for chunk in range(graph.chunks)} if source.devices else set()
            lines += [arrow(start, end) for end in boxes[node] for start in boxes[source] if start.device == -1 or (start.device, end.device) in ways]
    for node in nodes:
        after = [reader for other, found in sources.items() for source, between in found if source is node for reader in between]
        lines += [text for box in boxes[node] for text in picture(box, after or above(node))]
    return "\n".join([*lines, "</svg>", ""])


def drawn_sources(node: Node) -> list[tuple[Node, list[Node]]]:
    """The layers with weights, or the data, that a layer reads, and the layers between, which are not drawn."""
    found: dict[Node, list[Node]] = {}
    seen: set[Node] = set()
    waiting: list[tuple[Node, list[Node]]] = [(node, [])]
    while waiting:
        at, between = waiting.pop()
        for source in dict.fromkeys(at.inputs):
            if source.weights or source.layer.on_host:
                found.setdefault(source, between)
            elif source not in seen:
                seen.add(source)
                waiting.append((source, [source, *between]))
    return list(found.items())


def above(node: Node) -> list[Node]:
    """The layers from one with weights to the end."""
    chain = []
    while len(node.readers) == 1 and not node.readers[0].weights:
        node = node.readers[0]
        chain.append(node)
    return chain


def size(node: Node, pixels: int, channels: int) -> tuple[float, float, float]:
    """Width, by the channels, height, by the pixels, and depth; a layer without pixels is as tall as it has units."""
    if node.shape[1] * node.shape[2] == 1:
        return 16.0, 30 + (TALLEST - 30) * (node.shape[0] / channels) ** 0.5, 0.0
    height = 18 + (TALLEST - 18) * (node.shape[1] / pixels) ** 0.6
    return 8 + 32 * min(1.0, node.shape[0] / 256), height, height * DEPTH


def picture(box: Box, after: list[Node]) -> list[str]:
    """The box, what it is above it, its name and what follows it below."""
    x, y, w, h, d = box.x - box.width / 2, box.y - box.height / 2, box.width, box.height, box.depth
    channels, rows, across = box.node.shape
    what = TIMES.join(map(str, box.node.shape)) if rows * across > 1 else f"{channels}"
    layer = box.node.layer
    filters = TIMES.join([str(layer.filter_size[0])] * 2) + (f", stride {layer.stride[0]}" if layer.stride[0] > 1 else "") if hasattr(layer, "filter_size") else ""
    kinds = list(dict.fromkeys(getattr(node.layer, "neuron", node.layer.kind) for node in after))
    below = [filters, ", ".join(kinds[:2]), ", ".join(kinds[2:])]
    lines = []
    if d:
        lines.append(f'<path class="side" d="M{x:.1f} {y:.1f}l{d:.1f} {-d / 2:.1f}h{w:.1f}l{-d:.1f} {d / 2:.1f}zm{w:.1f} 0l{d:.1f} {-d / 2:.1f}v{h:.1f}l{-d:.1f} {d / 2:.1f}z"/>')
    lines += [f'<rect class="box" x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"/>', f'<text x="{box.x:.1f}" y="{y - d / 2 - 6:.1f}">{what}</text>',
              f'<text x="{box.x:.1f}" y="{y + h + 14:.1f}">{escape(layer.name)}</text>']
    return lines + [f'<text class="small" x="{box.x:.1f}" y="{y + h + 26 + 11 * i:.1f}">{escape(text)}</text>' for i, text in enumerate(filter(None, below))]


def arrow(start: Box, end: Box) -> str:
    kind = "crossing" if start.device not in (-1, end.device) else "arrow"
    (x0, y0), (x1, y1) = start.right, end.left
    return f'<path class="{kind}" marker-end="url(#head)" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"/>'
