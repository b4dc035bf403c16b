"""The pictures of `convnet-show`, drawn with matplotlib: each function gives the bytes of a PNG file."""
from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .errors import CommandLineError
from .show import SHOWN, STACKED, Filters, Nearest, Run, mosaic, shown_images, thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RIGHT, OTHER = "#f4a08a", "#b7cbe3"  # bars of the right class, and of others
WRONG = "#a01c1c"
HEAD = 0.3  # inches above the nearest images, for what the columns are
NAMED, NUMBERED = 40, 20  # classes, at most, of a confusion matrix with their names, and with numbers in its cells


def check(command: str) -> None:
    """Raises CommandLineError where nothing can be drawn."""
    try:
        import matplotlib  # noqa: F401 (only whether it is there)
    except ImportError:
        raise CommandLineError(f"pictures are drawn with matplotlib, which is not installed: ./go --with plot {command} ...") from None


def new_figure(width: float, height: float) -> Figure:
    """In inches of 100 pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(True, color="#e4e4e4", linewidth=0.6)
    axis.set_axisbelow(True)


# ---- curves ----------------------------------------------------------------------------------------------------

def curves(runs: Sequence[Run]) -> bytes:
    """Cost, and share of errors where the nets have one: a colour for each run, thin for training batches, thick for tests."""
    from matplotlib import colormaps
    from matplotlib.ticker import PercentFormatter

    quantities = max((run.quantities for run in runs), key=len)
    figure = new_figure(6.5 * len(quantities) + 0.5, 4.8 + 0.22 * len(runs))
    for column, (axis, quantity) in enumerate(zip(figure.subplots(1, len(quantities), squeeze=False)[0], quantities, strict=True), 1):
        for i, run in enumerate(runs):
            if column >= run.train.shape[1]:
                continue
            color = colormaps["tab10"](i % 10)
            rows = thinned(run.train)
            axis.plot(rows[:, 0], rows[:, column], color=color, alpha=0.55, linewidth=1.0)
            if len(run.test):
                axis.plot(run.test[:, 0], run.test[:, column], color=color, linewidth=2.2, marker="o", markersize=4 if len(run.test) <= 60 else 0)
        tidy(axis)
        axis.set_xlabel("epochs")
        is_error = column == 2
        axis.set_ylabel(quantity if is_error else f"{quantity}, mean over images")
        axis.set_title("error" if is_error else "cost", loc="left")
        values = np.concatenate([rows[:, column] for run in runs for rows in (run.train, run.test) if column < rows.shape[1]])
        if is_error:
            axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
            axis.set_ylim(bottom=0)
        elif values.min() > 0 and values.max() > 30 * np.median(values):
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=min(0, values.min()))
    figure.legend(handles=curve_handles(runs), loc="outside lower center", ncols=1, frameon=False)
    return png(figure)


def curve_handles(runs: Sequence[Run]) -> list:
    """What the legend says: each run with the last of its tests, and what thin and thick lines are."""
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    handles = []
    for i, run in enumerate(runs):
        last = "no test yet"
        if len(run.test):
            epochs, cost, *error = run.test[-1]
            last = f"test after {epochs:g} epochs: {run.quantities[0]} {cost:.4f}" + (f", {run.quantities[1]} {error[0]:.2%}" if error else "")
        handles.append(Line2D([], [], color=colormaps["tab10"](i % 10), linewidth=2.2, label=plain(f"{run.name}: {last}")))
    return [*handles, Line2D([], [], color="#555", linewidth=1.0, alpha=0.6, label="thin: training batches, as they were trained on"),
            Line2D([], [], color="#555", linewidth=2.2, marker="o", markersize=4, label="thick: the test range")]


def plain(text: str) -> str:
    """matplotlib takes what is between dollar signs for a formula."""
    return text.replace("$", r"\$")


# ---- filters ---------------------------------------------------------------------------------------------------

def filters(layers: Sequence[Filters], gray: bool = False, each: bool = False) -> bytes:
    """A block for each layer, one below the other, as figure 3 of Krizhevsky et al. 2012 has the two GPUs'."""
    blocks = []
    for found in layers:
        colour = found.weights.shape[0] == 3 and not gray
        image, largest = mosaic(found.weights, colour, each)
        blocks.append((found, colour, image, largest))
    widest = max(image.shape[1] for _, _, image, _ in blocks)
    inches = min(11.0, max(4.5, widest * 0.09))
    per_pixel = inches / widest
    heights = [image.shape[0] * per_pixel + 0.8 for _, _, image, _ in blocks]
    figure = new_figure(inches + 1.4, sum(heights) + 0.3)
    grid = figure.subplots(len(blocks), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axis, (found, colour, image, largest) in zip(grid, blocks, strict=True):
        channels, height, width, count = found.weights.shape
        many = channels > STACKED and not colour
        axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        devices = ("devices " if len(found.devices) > 1 else "device ") + ", ".join(map(str, found.devices))
        cut = f", the first {min(SHOWN, count)} and their first {min(SHOWN, channels)} channels" if many and max(count, channels) > SHOWN else ""
        stacked = f", channels 0 to {channels - 1} from top to bottom" if 1 < channels <= STACKED and not colour else ""
        axis.set_title(plain(f"{devices}: {found.layer}, {count} filters of {height}\N{MULTIPLICATION SIGN}{width}\N{MULTIPLICATION SIGN}{channels}{cut}{stacked}"),
                       loc="left", fontsize=11)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_xlabel(scale_text(colour, each, largest), fontsize=9)
        if many:
            label_tiles(axis, min(SHOWN, count), min(SHOWN, channels), width + 1, height + 1)
            axis.set_xlabel(f"filter ({axis.get_xlabel()})", fontsize=9)
            axis.set_ylabel("channel", fontsize=9)
        axis.spines[:].set_visible(False)
    return png(figure)


def scale_text(colour: bool, each: bool, largest: float) -> str:
    """How weights are shown."""
    ends = "each filter by its own largest" if each else f"\N{PLUS-MINUS SIGN}{largest:.3g}"
    return f"gray is 0; full and no {'red, green and blue are' if colour else 'light is'} {ends}" if colour else f"mid-gray is 0; white and black: {ends}"


def label_tiles(axis: Axes, columns: int, rows: int, width: int, height: int) -> None:
    """Numbers below and beside the tiles, as many as are readable."""
    for count, size, ticks in ((columns, width, axis.set_xticks), (rows, height, axis.set_yticks)):
        shown = range(0, count, max(1, count // 16))
        ticks([(i + 0.5) * size for i in shown], [str(i) for i in shown], fontsize=8)
    axis.tick_params(length=0)


# ---- images ----------------------------------------------------------------------------------------------------

def predictions(images: np.ndarray, labels: np.ndarray, probs: np.ndarray, names: Sequence[str], count: int = 5) -> bytes:
    """Images (channels, height, width, images) with the right class below and the likeliest ones as bars: figure 4, left."""
    pictures, columns = shown_images(images), min(4, len(labels))
    rows, count = -(-len(labels) // columns), min(count, len(probs))
    figure = new_figure(2.9 * columns, rows * (2.35 + 0.24 * count))
    grid = figure.subplots(2 * rows, columns, squeeze=False, gridspec_kw={"height_ratios": [2.0, 0.24 * count] * rows})
    for axis in grid.flat:
        axis.set_axis_off()
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        above, below = (grid[2 * (i // columns) + part, i % columns] for part in (0, 1))
        likeliest = (-probs[:, i]).argsort(kind="stable")[:count]
        right = likeliest[0] == label
        draw_image(above, picture)
        above.set_title(f"{short(names[label], 24)}", fontsize=10, fontweight="bold", color="black" if right else WRONG)
        below.set_axis_on()
        below.barh(range(count), probs[likeliest, i], color=[RIGHT if k == label else OTHER for k in likeliest], height=0.86)
        for row, k in enumerate(likeliest):
            below.text(0.02, row, short(names[k], 24), va="center", fontsize=9)
            below.text(0.99, row, f"{probs[k, i]:.1%}", va="center", ha="right", fontsize=8, color="#222")
        below.set_xlim(0, 1)
        below.set_ylim(count - 0.5, -0.5)
        below.set_xticks([])
        below.set_yticks([])
        below.spines[:].set_color("#bbb")
    figure.supxlabel("above each image its class, red where another is likelier; bars: probabilities of the likeliest classes, that of the right one in red",
                     fontsize=9 if columns > 2 else 6)
    return png(figure)


def nearest(queries: np.ndarray, labels: np.ndarray, found: Nearest, names: Sequence[str]) -> bytes:
    """A row for each test image: the image, then the nearest training images with their distances: figure 4, right."""
    both = shown_images(np.concatenate([queries[..., None], found.images], axis=-1))  # (queries, 1 + found, height, width[, 3])
    rows, columns = both.shape[:2]
    height = 1.7 * rows + HEAD
    figure = new_figure(1.35 * columns + 0.3, height)
    grid = figure.subplots(rows, columns + 1, squeeze=False, gridspec_kw={"width_ratios": [1.0, 0.12, *[1.0] * (columns - 1)]})
    for row, axes in enumerate(grid):
        axes[1].set_axis_off()
        for column, axis in enumerate([axes[0], *axes[2:]]):
            label = labels[row] if column == 0 else found.labels[row, column - 1]
            draw_image(axis, both[row, column])
            axis.set_title(short(names[label], 14), fontsize=9, color="black" if label == labels[row] else WRONG, fontweight="bold" if column == 0 else "normal")
            if column:
                axis.set_xlabel(f"{found.distances[row, column - 1]:.3g}", fontsize=8, labelpad=2)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - HEAD / height))
    for axis, text in ((grid[0, 0], "test image"), (grid[0, 2], "nearest training images, with their distances; names of other classes in red")):
        axis.annotate(text, (0, 1), (0, 20), xycoords="axes fraction", textcoords="offset points", fontsize=9, color="#555", in_layout=False)
    return png(figure)


def draw_image(axis: Axes, picture: np.ndarray) -> None:
    axis.set_axis_on()
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest" if max(picture.shape[:2]) < 64 else "antialiased")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_color("#bbb")


def short(text: str, length: int) -> str:
    return plain(textwrap.shorten(text, length, placeholder="\N{HORIZONTAL ELLIPSIS}") if " " in text else text if len(text) <= length else text[: length - 1] + "\N{HORIZONTAL ELLIPSIS}")


# ---- confusion -------------------------------------------------------------------------------------------------

def confusion(counts: np.ndarray, names: Sequence[str]) -> bytes:
    """Shares of the images of a class (row) that were taken for each (column), of a matrix of counts."""
    classes = len(counts)
    totals = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    inches = min(10.0, max(4.0, 0.55 * classes))
    figure = new_figure(inches + 2.0, inches + 1.2)
    axis = figure.subplots()
    exponent = 0.4  # a few mistakes among many right answers are to be seen
    image = axis.imshow(shares**exponent, cmap="Blues", vmin=0, vmax=1, interpolation="nearest" if classes <= 200 else "antialiased")
    axis.set_xlabel("taken for")
    axis.set_ylabel("class")
    wrong = int(totals.sum() - np.trace(counts))
    axis.set_title(f"{wrong} of {int(totals.sum())} images taken for another class", loc="left", fontsize=11)
    if classes <= NAMED:
        labels = [short(name, 18) for name in names[:classes]]
        long = max(map(len, labels)) > 3
        axis.set_xticks(range(classes), labels, rotation=90 if long else 0, fontsize=9)
        axis.set_yticks(range(classes), labels, fontsize=9)
        axis.tick_params(length=0)
    if classes <= NUMBERED:
        for row, column in np.argwhere(counts):
            dark = shares[row, column] ** exponent > 0.6
            axis.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=9, color="white" if dark else "#222")
    ticks = np.array([0, 0.01, 0.05, 0.2, 0.5, 1.0])
    bar = figure.colorbar(image, ax=axis, shrink=0.8, ticks=ticks**exponent)
    bar.ax.set_yticklabels([f"{tick:.0%}" for tick in ticks])
    bar.set_label("share of the images of a class")
    return png(figure)


