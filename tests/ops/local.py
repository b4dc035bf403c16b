"""Locally connected layers: a convolution whose filters are those of one pixel of the acts."""
from __future__ import annotations

import numpy as np

from . import Case, integers, normal
from .conv import conv_shape, frame


def windows(acts_shape, weights_shape, stride, groups):
    """For each pixel of the acts and each group: its window in the frame, and its filters."""
    _, C, height, width, filters = weights_shape
    F = filters // groups
    for y, x in np.ndindex(acts_shape[1:3]):
        for g in range(groups):
            window = np.s_[g * C : g * C + C, y * stride : y * stride + height, x * stride : x * stride + width]
            yield (y, x), window, slice(g * F, g * F + F)


def local_forward(images, weights, stride, padding, groups):
    acts = np.zeros(conv_shape(images.shape, weights.shape[1:], stride, padding))
    framed, inside = frame(images.shape, acts.shape, weights.shape[1:], stride, padding)
    framed[inside] = images
    for (y, x), window, f in windows(acts.shape, weights.shape, stride, groups):
        acts[f, y, x] = np.tensordot(weights[y * acts.shape[2] + x, ..., f], framed[window], ((0, 1, 2), (0, 1, 2)))
    return acts


def backward_data(images_shape):
    def local_backward_data(acts_grad, weights, stride, padding, groups):
        framed, inside = frame(images_shape, acts_grad.shape, weights.shape[1:], stride, padding)
        for (y, x), window, f in windows(acts_grad.shape, weights.shape, stride, groups):
            framed[window] += np.tensordot(weights[y * acts_grad.shape[2] + x, ..., f], acts_grad[f, y, x], (3, 0))
        return framed[inside]
    return local_backward_data


def backward_weights(weights_shape):
    def local_backward_weights(images, acts_grad, stride, padding, groups):
        framed, inside = frame(images.shape, acts_grad.shape, weights_shape[1:], stride, padding)
        framed[inside] = images
        weights_grad = np.zeros(weights_shape)
        for (y, x), window, f in windows(acts_grad.shape, weights_shape, stride, groups):
            weights_grad[y * acts_grad.shape[2] + x, ..., f] = np.tensordot(framed[window], acts_grad[f, y, x], (3, 1))
        return weights_grad
    return local_backward_weights


def cases(name, images, filters, stride=1, padding=0, groups=1, exact=False, check=False):
    """Forward and both backwards of images (channels, height, width, images) and filters (filters, height, width)."""
    F, *size = filters
    acts = conv_shape(images, (images[0] // groups, *size, F), stride, padding)
    weights = (acts[1] * acts[2], images[0] // groups, *size, F)
    values = integers if exact else normal
    x, w, d = values(*images, seed=1), values(*weights, seed=2), values(*acts, seed=3)
    scalars = {"stride": stride, "padding": padding, "groups": groups}

    def cost_of_images(at):
        return (local_forward(at, w, **scalars) * d).sum()

    def cost_of_weights(at):
        return (local_forward(x, at, **scalars) * d).sum()

    area = size[0] * size[1]
    return [
        Case("local_forward", name, {"images": x, "weights": w}, {"acts": acts}, local_forward, scalars,
             sums=weights[1] * area, exact=exact),
        Case("local_backward_data", name, {"acts_grad": d, "weights": w}, {"images_grad": images}, backward_data(images), scalars,
             sums=F // groups * area, exact=exact, cost=cost_of_images if check else None, at=x),
        Case("local_backward_weights", name, {"images": x, "acts_grad": d}, {"weights_grad": weights}, backward_weights(weights), scalars,
             sums=images[3], exact=exact, cost=cost_of_weights if check else None, at=w),
    ]


CASES = [case for group in (
    # images and filters: the common sizes and the odd ones
    cases("one-of-everything", (1, 1, 1, 1), (1, 1, 1)),
    cases("1x1-filters", (7, 3, 5, 3), (17, 1, 1), exact=True),
    cases("1-image", (3, 9, 6, 1), (5, 3, 2), padding=1),
    cases("3-images", (3, 5, 6, 3), (7, 5, 5), padding=2),
    cases("5-images-integers", (17, 5, 4, 5), (17, 3, 3), padding=1, exact=True),
    cases("129-images", (3, 4, 3, 129), (17, 3, 3), padding=1, exact=True),
    cases("300-images-2-filters", (2, 3, 2, 300), (2, 2, 2)),
    cases("128-images-64-filters", (4, 2, 2, 128), (64, 3, 3), padding=1, exact=True),
    cases("filters-over-a-tile", (5, 3, 3, 20), (70, 2, 2), exact=True),
    cases("channels-over-a-tile", (70, 3, 3, 20), (6, 2, 2)),
    cases("blocks-of-inputs-and-outputs", (120, 3, 3, 36), (130, 3, 3), exact=True),
    cases("products-in-several-parts", (200, 3, 2, 4), (40, 3, 2)),
    cases("65-images-in-parts", (64, 3, 3, 65), (64, 3, 3), exact=True),
    cases("channels-and-rows-of-whole-tiles", (32, 3, 3, 4), (33, 2, 2), exact=True),
    cases("tall-filters", (2, 11, 3, 4), (3, 7, 1), padding=1),
    cases("filters-as-large-as-the-images", (6, 4, 5, 9), (10, 4, 5)),
    # strides, and windows that hang over the edge
    cases("stride2", (7, 7, 5, 3), (5, 3, 3), stride=2, padding=1, exact=True),
    cases("stride2-ceil", (3, 8, 9, 5), (17, 4, 3), stride=2),
    cases("stride3-over-the-edge", (4, 9, 11, 4), (3, 4, 5), stride=3, padding=2),
    cases("pixels-no-window-sees", (3, 6, 7, 3), (5, 1, 2), stride=3, exact=True),
    cases("windows-beyond-the-edge", (2, 6, 6, 5), (3, 1, 1), stride=4),
    cases("padding-beyond-the-filter", (3, 3, 4, 3), (4, 2, 2), padding=3),
    # groups
    cases("2-groups", (6, 5, 5, 5), (8, 3, 3), padding=1, groups=2, exact=True),
    cases("3-groups-odd-sizes", (21, 4, 3, 3), (15, 2, 3), padding=1, stride=2, groups=3),
    cases("a-group-a-channel", (7, 4, 4, 3), (7, 3, 3), padding=1, groups=7),
    cases("2-groups-many-images", (34, 3, 2, 129), (68, 2, 2), groups=2, exact=True),
    # against central differences
    cases("gradient", (2, 3, 4, 3), (3, 3, 2), padding=1, check=True),
    cases("gradient-strided-groups", (4, 5, 4, 2), (6, 3, 3), stride=2, padding=2, groups=2, check=True),
) for case in group]
