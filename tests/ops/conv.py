"""Convolution: any groups, strides and padding, windows that hang over the edge (Krizhevsky et al. 2012, section 3)."""
from __future__ import annotations

from dataclasses import replace

import numpy as np

from . import ROUNDED, Case, at_precision, behind_relu, integers, normal


def conv_shape(images, filters, stride, padding):
    """Shape of the acts; the ceil lets the last windows hang over the edge."""
    size = [1 + max(0, -(-(images[d] + 2 * padding - filters[d]) // stride)) for d in (1, 2)]
    return (filters[3], *size, images[3])


def frame(shape, acts_shape, filters_shape, stride, padding):
    """Zeros around images of `shape`, so that every window lies inside, and where the images lie in them."""
    size = [max(shape[d] + 2 * padding, (acts_shape[d] - 1) * stride + filters_shape[d]) for d in (1, 2)]
    inside = np.s_[:, padding : padding + shape[1], padding : padding + shape[2], :]
    return np.zeros((shape[0], *size, shape[3])), inside


def taps(acts_shape, filters_shape, stride, groups):
    """For each group and tap: its channels and pixels in the frame, its channels, row and column in the filters, its filters."""
    C, F = filters_shape[0], filters_shape[3] // groups
    for g in range(groups):
        for i, j in np.ndindex(filters_shape[1:3]):
            rows = slice(i, i + (acts_shape[1] - 1) * stride + 1, stride)
            columns = slice(j, j + (acts_shape[2] - 1) * stride + 1, stride)
            f = slice(g * F, g * F + F)
            yield (slice(g * C, g * C + C), rows, columns), (slice(None), i, j, f), f


def conv_forward(images, filters, stride, padding, groups):
    acts = np.zeros(conv_shape(images.shape, filters.shape, stride, padding))
    framed, inside = frame(images.shape, acts.shape, filters.shape, stride, padding)
    framed[inside] = images
    for window, tap, f in taps(acts.shape, filters.shape, stride, groups):
        acts[f] += np.tensordot(filters[tap], framed[window], (0, 0))
    return acts


def conv_bias_forward(images, filters, biases, stride, padding, groups, relu):
    acts = conv_forward(images, filters, stride, padding, groups) + biases[:, None, None, None]
    return np.maximum(acts, 0) if relu else acts


def backward_data(images_shape):
    def conv_backward_data(acts_grad, filters, stride, padding, groups):
        framed, inside = frame(images_shape, acts_grad.shape, filters.shape, stride, padding)
        for window, tap, f in taps(acts_grad.shape, filters.shape, stride, groups):
            framed[window] += np.tensordot(filters[tap], acts_grad[f], (1, 0))
        return framed[inside]
    return conv_backward_data


def backward_filters(filters_shape):
    def conv_backward_filters(images, acts_grad, stride, padding, groups):
        framed, inside = frame(images.shape, acts_grad.shape, filters_shape, stride, padding)
        framed[inside] = images
        filters_grad = np.zeros(filters_shape)
        for window, tap, f in taps(acts_grad.shape, filters_shape, stride, groups):
            filters_grad[tap] = np.tensordot(framed[window], acts_grad[f], ((1, 2, 3), (1, 2, 3)))
        return filters_grad
    return conv_backward_filters


# ---- Winograd's F(9 - r, r) along the rows: what the error of precision="fast" is measured by ---------------------

POINTS = (0, 1, -1, 2, -2, 0.5, -0.5)  # and infinity, where the highest coefficient is


def powers(size):
    return np.vstack([np.vander(POINTS, size, increasing=True), np.eye(size)[-1:]])


def transforms(taps):
    """Of Toom and Cook: (points, 8) for the inputs, (points, taps) for the filters, (points, outputs) for the outputs."""
    others = [[q for q in POINTS if q != p] for p in POINTS]
    inputs = [np.append(np.poly(roots)[::-1], 0) for roots in others] + [np.poly(POINTS)[::-1]]
    scale = [np.prod(np.subtract(p, roots)) for p, roots in zip(POINTS, others, strict=True)] + [1]
    return np.array(inputs), powers(taps) / np.array(scale)[:, None], powers(9 - taps)


def tiles_across(width, taps):
    """How many tiles of 9 - taps outputs a row has; what is left, if it takes fewer products, is done directly."""
    return width // (9 - taps) + (width % (9 - taps) * taps > 8)


def tile_columns(framed, tile, size):
    """`size` columns of the frame from a tile's first one on; zeros beyond it."""
    columns = framed[:, :, tile * (9 - size[1]) :][:, :, :8]
    return np.pad(columns, ((0, 0), (0, 0), (0, 8 - columns.shape[2]), (0, 0)))


def winograd_forward(of=np.abs):
    """conv_forward by tiles; `of`: what is taken of each number, the transforms' too."""
    def forward(images, filters, stride, padding, groups, precision):
        acts = conv_forward(of(images), of(filters), stride, padding, groups)
        framed, inside = frame(images.shape, acts.shape, filters.shape, stride, padding)
        framed[inside] = of(images)
        taps, m = filters.shape[2], 9 - filters.shape[2]
        B, G, A = map(of, transforms(taps))
        for tile in range(tiles_across(acts.shape[2], taps)):
            columns = acts[:, :, tile * m : tile * m + m]
            at_points = np.einsum("kx,cyxn->kcyn", B, tile_columns(framed, tile, filters.shape[1:3]))
            products = np.zeros((8, *columns.shape[:2], images.shape[3]))
            for i in range(filters.shape[1]):
                for g in range(groups):
                    c, f = (slice(g * size // groups, (g + 1) * size // groups) for size in (images.shape[0], filters.shape[3]))
                    weights = np.einsum("kj,cjf->kcf", G, of(filters[:, i, :, f]))
                    products[:, f] += np.einsum("kcf,kcyn->kfyn", weights, at_points[:, c, i : i + acts.shape[1]])
            columns[...] = np.einsum("kx,kfyn->fyxn", A, products)[:, :, : columns.shape[2]]
        return acts
    return forward


def winograd_backward_data(images_shape, of=np.abs):
    """The same of the mirrored filters, channels and filters exchanged."""
    def backward(acts_grad, filters, stride, padding, groups, precision):
        C, height, width, F = filters.shape
        mirrored = filters[:, ::-1, ::-1].reshape(C, height, width, groups, F // groups).transpose(4, 1, 2, 3, 0).reshape(F // groups, height, width, groups * C)
        around = max(height, width) + padding  # more than enough zeros, of which some are taken away again
        framed = np.pad(acts_grad, ((0, 0), *((around, around),) * 2, (0, 0)))
        top, left = around - height + 1 + padding, around - width + 1 + padding
        framed = framed[:, top : top + images_shape[1] + height - 1, left : left + images_shape[2] + width - 1]
        return winograd_forward(of)(framed, mirrored, 1, 0, groups, precision)
    return backward


def winograd_backward_filters(filters_shape, of=np.abs):
    def backward(images, acts_grad, stride, padding, groups, precision):
        taps, m = filters_shape[2], 9 - filters_shape[2]
        count, width = tiles_across(acts_grad.shape[2], taps), acts_grad.shape[2]
        left = np.array(of(acts_grad))
        left[:, :, : count * m] = 0
        sums = backward_filters(filters_shape)(of(images), left, stride, padding, groups)
        framed, inside = frame(images.shape, acts_grad.shape, filters_shape, stride, padding)
        framed[inside] = of(images)
        B, G, A = map(of, transforms(taps))
        for tile in range(count):
            columns = of(acts_grad[:, :, tile * m : tile * m + m])
            gradients = np.einsum("kx,fyxn->kfyn", A[:, : min(m, width - tile * m)], columns)
            at_points = np.einsum("kx,cyxn->kcyn", B, tile_columns(framed, tile, filters_shape[1:3]))
            for i in range(filters_shape[1]):
                for g in range(groups):
                    c, f = (slice(g * size // groups, (g + 1) * size // groups) for size in (images.shape[0], filters_shape[3]))
                    products = np.einsum("kcyn,kfyn->kcf", at_points[:, c, i : i + acts_grad.shape[1]], gradients[:, f])
                    sums[:, i, :, f] += np.einsum("kj,kcf->cjf", G, products)
        return sums
    return backward


def cases(name, images, filters, stride=1, padding=0, groups=1, exact=False, check=False, fast=False):
    """Forward, that with biases and relu, both backwards, and that of the images of a relu, of images (channels, height, width, images) and filters (filters, height, width)."""
    if fast:
        return fast_cases(name, images, filters, padding, groups)
    channels, (F, *size) = images[0] // groups, filters
    filters = (channels, *size, F)
    acts = conv_shape(images, filters, stride, padding)
    values = integers if exact else normal
    x, w, d, b = values(*images, seed=1), values(*filters, seed=2), values(*acts, seed=3), values(F, seed=4)
    scalars = {"stride": stride, "padding": padding, "groups": groups}

    def cost_of_images(at):
        return (conv_forward(at, w, **scalars) * d).sum()

    def cost_of_filters(at):
        return (conv_forward(x, at, **scalars) * d).sum()

    area = size[0] * size[1]
    data = Case("conv_backward_data", name, {"acts_grad": d, "filters": w}, {"images_grad": images}, backward_data(images), scalars,
                sums=F // groups * area, exact=exact, cost=cost_of_images if check else None, at=x)
    return [
        Case("conv_forward", name, {"images": x, "filters": w}, {"acts": acts}, conv_forward, scalars,
             sums=channels * area, exact=exact),
        Case("conv_bias_forward", name, {"images": x, "filters": w, "biases": b}, {"acts": acts}, conv_bias_forward, {**scalars, "relu": True},
             sums=channels * area + 1, exact=exact, adds=False),
        data,
        behind_relu(data, "conv_relu_backward_data", "images", x),
        Case("conv_backward_filters", name, {"images": x, "acts_grad": d}, {"filters_grad": filters}, backward_filters(filters), scalars,
             sums=int(np.prod(acts[1:])), exact=exact, cost=cost_of_filters if check else None, at=w),
    ]


def fast_cases(name, images, filters, padding, groups):
    """The same at precision="fast", of shapes that take the fast algorithm."""
    forward, _, data, masked, weights = cases(name, images, filters, padding=padding, groups=groups)
    shapes = [data.outputs["images_grad"]], [weights.outputs["filters_grad"]]
    fast = ((forward, conv_forward, winograd_forward()), (data, backward_data(*shapes[0]), winograd_backward_data(*shapes[0])),
            (weights, backward_filters(*shapes[1]), winograd_backward_filters(*shapes[1])))
    forward, data, weights = (replace(case, scalars={**case.scalars, "precision": "fast"}, reference=without_precision(reference), magnitude=magnitude,
                                      sums=case.sums + 21) for case, reference, magnitude in fast)
    return [forward, data, behind_relu(data, masked.op, "images", masked.inputs["images"]), weights]


def without_precision(reference):
    return lambda *arrays, precision, **scalars: reference(*arrays, **scalars)


CASES = [case for group in (
    # images and filters: the common sizes and the odd ones
    cases("one-of-everything", (1, 1, 1, 1), (1, 1, 1)),
    cases("1x1-filters", (7, 3, 5, 3), (17, 1, 1), exact=True),
    cases("1-image", (3, 9, 6, 1), (5, 3, 2), padding=1),
    cases("3-images", (3, 7, 8, 3), (7, 5, 5), padding=2),
    cases("5-images-integers", (17, 5, 4, 5), (17, 3, 3), padding=1, exact=True),
    cases("129-images", (3, 4, 3, 129), (17, 3, 3), padding=1),
    cases("128-images-64-filters", (4, 2, 2, 128), (64, 3, 3), padding=1, exact=True),
    cases("filters-over-a-tile", (5, 4, 4, 20), (70, 2, 2), exact=True),
    cases("channels-over-a-tile", (70, 4, 4, 20), (6, 2, 2)),
    cases("200-channels-few-pixels", (200, 3, 2, 4), (40, 3, 2)),
    cases("203-filters-few-pixels", (5, 3, 2, 4), (203, 3, 2), exact=True),
    cases("wide-images", (1, 2, 41, 8), (33, 2, 4), exact=True),
    cases("tall-filters", (2, 11, 3, 4), (3, 7, 1), padding=1),
    cases("filters-as-large-as-the-images", (6, 4, 5, 9), (10, 4, 5)),
    # few images, where filters or channels may be the lanes
    cases("1-image-integers", (5, 6, 19, 1), (33, 3, 2), padding=1, exact=True),
    cases("2-images-17-filters", (18, 5, 4, 2), (17, 3, 3), padding=1, exact=True),
    cases("7-images-1-filter", (3, 4, 9, 7), (1, 2, 3), padding=2, exact=True),
    cases("15-images", (17, 3, 6, 15), (35, 2, 3), padding=1, exact=True),
    cases("17-images", (5, 4, 3, 17), (19, 3, 3), padding=1, exact=True),
    cases("33-images", (4, 3, 4, 33), (3, 3, 2), padding=1, exact=True),
    # one vector of images, where two pixels are computed at once: of 16, 8, 4 or 2 numbers
    cases("16-images-in-parts", (80, 3, 7, 16), (17, 3, 3), padding=1, exact=True),
    cases("16-images-stride4-3-channels", (3, 13, 31, 16), (20, 5, 5), stride=4, padding=2, exact=True),
    cases("48-images-stride2-groups", (6, 5, 11, 48), (20, 3, 3), stride=2, padding=1, groups=2, exact=True),
    cases("8-images", (20, 4, 9, 8), (18, 3, 3), padding=2, exact=True),
    cases("4-images", (20, 4, 9, 4), (18, 3, 3), padding=1),
    cases("100-images", (3, 4, 2, 100), (18, 3, 3), padding=1, exact=True),
    cases("129-images-integers", (3, 3, 4, 129), (9, 2, 3), padding=1, exact=True),
    cases("6-images-1050-wide", (16, 1, 1050, 6), (2, 1, 3), padding=1, exact=True),
    cases("1-image-600-wide", (2, 2, 600, 1), (3, 1, 5), padding=2, exact=True),
    cases("1-image-sums-in-parts", (500, 3, 2, 1), (17, 3, 3), padding=1, exact=True),
    cases("1-image-stride4-3-channels", (3, 21, 18, 1), (20, 5, 7), stride=4, padding=2, exact=True),
    cases("3-images-stride2-groups", (6, 7, 8, 3), (34, 3, 3), stride=2, padding=1, groups=2, exact=True),
    cases("7-images-taps-on-padding", (2, 2, 3, 7), (5, 4, 3), stride=2, padding=3, exact=True),
    cases("1-image-1x1", (40, 1, 1, 1), (130, 1, 1), exact=True),
    # strides, and windows that hang over the edge
    cases("stride2", (7, 7, 5, 3), (5, 3, 3), stride=2, padding=1, exact=True),
    cases("stride2-ceil", (3, 8, 9, 5), (17, 4, 3), stride=2),
    cases("stride3-over-the-edge", (4, 9, 11, 4), (3, 4, 5), stride=3, padding=2),
    cases("narrower-than-the-stride", (3, 7, 1, 3), (4, 3, 1), stride=2, exact=True),
    cases("many-channels-tall-acts", (60, 5, 3, 4), (9, 3, 3), exact=True),
    cases("nine-rows-in-parts", (60, 3, 3, 33), (9, 3, 3), exact=True),
    cases("64-channels-and-filters", (64, 3, 3, 5), (64, 2, 2), exact=True),
    cases("alexnet-conv1", (3, 24, 24, 2), (16, 11, 11), stride=4),
    cases("pixels-no-window-sees", (3, 6, 7, 3), (5, 1, 2), stride=3, exact=True),
    cases("windows-beyond-the-edge", (2, 6, 6, 5), (3, 1, 1), stride=4),
    cases("padding-beyond-the-filter", (3, 3, 4, 3), (4, 2, 2), padding=3),
    # groups
    cases("2-groups", (6, 5, 5, 5), (8, 3, 3), padding=1, groups=2, exact=True),
    cases("3-groups-odd-sizes", (21, 4, 3, 3), (15, 2, 3), padding=1, stride=2, groups=3),
    cases("a-group-a-channel", (7, 4, 4, 3), (7, 3, 3), padding=1, groups=7),
    cases("2-groups-many-images", (34, 3, 2, 129), (68, 2, 2), groups=2, exact=True),
    # Winograd: 13 = two tiles and a column, a tile that hangs over, all widths of filters, all kinds of lanes
    cases("fast-3x3", (16, 7, 13, 17), (17, 3, 3), padding=1, fast=True),
    cases("fast-5x5-16-images", (16, 6, 9, 16), (16, 5, 5), padding=2, fast=True),
    cases("fast-129-images", (16, 4, 6, 129), (16, 3, 3), padding=1, fast=True),
    cases("fast-2-groups-2x4", (34, 5, 9, 20), (40, 2, 4), groups=2, fast=True),
    cases("fast-padding-2", (16, 9, 8, 18), (16, 3, 3), padding=2, fast=True),
    cases("fast-padding-beyond-the-filter", (16, 5, 7, 16), (16, 3, 3), padding=4, fast=True),
    cases("fast-many-channels", (150, 3, 6, 19), (35, 3, 3), padding=1, fast=True),
    cases("fast-many-filters-and-images", (16, 15, 12, 70), (150, 1, 3), fast=True),
    # against central differences
    cases("gradient", (2, 4, 5, 3), (3, 3, 2), padding=1, check=True),
    cases("gradient-strided-groups", (4, 5, 4, 2), (6, 3, 3), stride=2, padding=2, groups=2, check=True),
) for case in group]

# Tensor cores: all that has more than 32 rows and 64 columns takes them.
TENSOR_CORES = [case for group in (
    cases("tensor-cores-odd-sizes", (37, 6, 5, 9), (45, 3, 3), padding=1),
    cases("tensor-cores-integers", (34, 5, 6, 33), (33, 3, 2), padding=2, exact=True),
    cases("tensor-cores-2-groups-strided", (80, 7, 9, 6), (72, 3, 3), stride=2, padding=1, groups=2),
    cases("tensor-cores-over-a-tile", (130, 3, 3, 40), (133, 2, 2), exact=True),
    cases("tensor-cores-in-parts", (72, 9, 8, 8), (36, 3, 3), padding=1),
    cases("tensor-cores-few-products", (34, 2, 1, 33), (35, 2, 1), exact=True),
) for case in group]
CASES += [at_precision(case, precision) for precision in ROUNDED for case in TENSOR_CORES]
