"""Convolution: any groups, strides and padding, windows that hang over the edge (Krizhevsky et al. 2012, section 3)."""
from __future__ import annotations

import numpy as np

from . import Case, integers, normal


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


def cases(name, images, filters, stride=1, padding=0, groups=1, exact=False, check=False):
    """Forward and both backwards of images (channels, height, width, images) and filters (filters, height, width)."""
    channels, (F, *size) = images[0] // groups, filters
    filters = (channels, *size, F)
    acts = conv_shape(images, filters, stride, padding)
    values = integers if exact else normal
    x, w, d = values(*images, seed=1), values(*filters, seed=2), values(*acts, seed=3)
    scalars = {"stride": stride, "padding": padding, "groups": groups}

    def cost_of_images(at):
        return (conv_forward(at, w, **scalars) * d).sum()

    def cost_of_filters(at):
        return (conv_forward(x, at, **scalars) * d).sum()

    area = size[0] * size[1]
    return [
        Case("conv_forward", name, {"images": x, "filters": w}, {"acts": acts}, conv_forward, scalars,
             sums=channels * area, exact=exact),
        Case("conv_backward_data", name, {"acts_grad": d, "filters": w}, {"images_grad": images}, backward_data(images), scalars,
             sums=F // groups * area, exact=exact, cost=cost_of_images if check else None, at=x),
        Case("conv_backward_filters", name, {"images": x, "acts_grad": d}, {"filters_grad": filters}, backward_filters(filters), scalars,
             sums=int(np.prod(acts[1:])), exact=exact, cost=cost_of_filters if check else None, at=w),
    ]


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
    # against central differences
    cases("gradient", (2, 4, 5, 3), (3, 3, 2), padding=1, check=True),
    cases("gradient-strided-groups", (4, 5, 4, 2), (6, 3, 3), stride=2, padding=2, groups=2, check=True),
) for case in group]
