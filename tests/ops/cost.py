"""Multinomial logistic regression: cost, errors with credit for ties (SEMANTICS 3.4), gradients."""
from __future__ import annotations

import numpy as np

from . import Case, integers, normal
from .sgd import check_finite
from .softmax import rounded, softmax_forward, softmax_forward_magnitude

STATE = np.array([5.0, 1.0, 0.1])


def is_label(labels, probs):
    """(rows, images), True at the label."""
    return np.arange(len(probs)).reshape(-1, 1, 1, 1) == labels


def logreg_forward(labels, probs, topk):
    if not is_label(labels, probs).any(0).all():
        return np.full(3, np.nan)  # a label is none of the classes
    costs = np.zeros(3)
    for n, label in enumerate(labels[0, 0, 0].astype(int)):
        of_image = probs[:, 0, 0, n]
        likelier, tied = (of_image > of_image[label]).sum(), (of_image == of_image[label]).sum()
        with np.errstate(divide="ignore"):
            costs[0] += -np.log(of_image[label])
        for i, k in enumerate((1, topk)):
            costs[1 + i] += 1 - np.clip((k - likelier) / tied, 0, 1)
    return costs


def forward_magnitude(labels, probs, topk):
    """1 - credit is measured by 1, not by what is left of it."""
    wrong = logreg_forward(labels, probs, topk)
    return np.stack([wrong[0], *np.where(wrong[1:] > 0, labels.size, 0)])


def logreg_backward(labels, probs, coeff):
    return np.where(is_label(labels, probs), -coeff / probs, 0.0)


def logreg_softmax_backward(labels, probs, coeff, sign=-1):
    return coeff * (probs + sign * is_label(labels, probs))


def softmax_backward_magnitude(labels, probs, coeff):
    return logreg_softmax_backward(labels, probs, abs(coeff), sign=1)


def labels_of(classes, images):
    return integers(1, 1, 1, images, low=0, high=classes - 1, seed=2)


def forward_case(name, probs, topk, labels=None, exact=False):
    labels = labels_of(len(probs), probs.shape[-1]) if labels is None else labels
    return Case("logreg_forward", name, {"labels": labels, "probs": probs}, {"costs": (3,)}, logreg_forward, {"topk": topk},
                forward_magnitude, sums=probs.shape[-1], steps=1, exact=exact, keep={"costs": "float64"})


def logreg_softmax(labels, inputs, topk, coeff):
    probs = softmax_forward(inputs)
    costs = logreg_forward(labels, probs, topk)
    return check_finite(costs, STATE), probs, costs, logreg_softmax_backward(labels, probs, coeff)


def logreg_softmax_magnitude(labels, inputs, topk, coeff):
    """An error of a probability, relative to it, is an absolute one of its logarithm."""
    probs, sizes = softmax_forward(inputs), softmax_forward_magnitude(inputs)
    costs = forward_magnitude(labels, probs, topk)
    with np.errstate(invalid="ignore"):
        costs[0] += (sizes / probs)[is_label(labels, probs)].sum()
    return np.zeros(3), sizes, costs, abs(coeff) * (sizes + is_label(labels, probs))


def softmax_case(name, inputs, topk=1, coeff=1.0, labels=None, exact=False):
    labels = labels_of(len(inputs), inputs.shape[-1]) if labels is None else labels
    overwritten = {"probs": inputs.shape, "costs": (3,), "inputs_grad": inputs.shape}
    return Case("logreg_softmax", name, {"labels": labels, "inputs": inputs}, {"state": STATE.shape, **overwritten},
                logreg_softmax, {"topk": topk, "coeff": coeff}, logreg_softmax_magnitude, sums=len(inputs) + inputs.shape[-1], steps=4, exact=exact,
                initial={"state": STATE, **{name: np.full(shape, np.nan) for name, shape in overwritten.items()}}, keep={"costs": "float64", "state": "float64"}, adds=False)


def columns(*images):
    """The probabilities of each image's classes, as a tensor."""
    return np.array(images, np.float64).T.reshape(len(images[0]), 1, 1, len(images))


def ties_case(name, label, topk, credits_of):
    """credits_of: an image's probabilities -> its credit for the top 1 and for the top k. The label's is 1: its logarithm is exact."""
    probs = columns(*credits_of)
    return Case("logreg_forward", name, {"labels": np.full((1, 1, 1, probs.shape[-1]), float(label)), "probs": probs}, {"costs": (3,)},
                lambda labels, probs, topk: np.array([0.0, *(1 - np.array(list(credits_of.values()))).sum(0)]), {"topk": topk},
                exact=True, keep={"costs": "float64"})


def no_class_case(name, label):
    """One image's label is none of the three classes."""
    return Case("logreg_forward", name, {"labels": np.array([0.0, label]).reshape(1, 1, 1, 2), "probs": columns((1, 0, 0), (1, 0, 0))}, {"costs": (3,)},
                logreg_forward, {"topk": 1}, exact=True, keep={"costs": "float64"}, adds=False)


def backward_case(op, name, classes, images, coeff=1.0, check=False):
    labels = labels_of(classes, images)
    inputs = normal(classes, 1, 1, images)
    if op == "logreg_backward":
        # The cost of any positive numbers: away from 0, where its higher derivatives are small enough for differences.
        probs = rounded(np.random.default_rng(3).uniform(0.5, 1.5, inputs.shape)) if check else rounded(softmax_forward(inputs))
        reference, magnitude, at = logreg_backward, lambda labels, probs, coeff: np.abs(logreg_backward(labels, probs, coeff)), probs
        def cost(p):
            return -coeff * np.log(p[is_label(labels, p)]).sum()
    else:
        probs = softmax_forward(inputs) if check else rounded(softmax_forward(inputs))
        reference, magnitude, at = logreg_softmax_backward, softmax_backward_magnitude, inputs
        def cost(x):
            return -coeff * np.log(softmax_forward(x)[is_label(labels, x)]).sum()
    return Case(op, name, {"labels": labels, "probs": probs}, {("probs_grad" if op == "logreg_backward" else "inputs_grad"): inputs.shape}, reference,
                {"coeff": coeff}, magnitude, sums=2, steps=1, cost=cost if check else None, at=at)


def likely(classes, images):
    return rounded(softmax_forward(2 * normal(classes, 1, 1, images)))


CASES = [forward_case(f"{classes}-classes-{images}-images-top{k}", likely(classes, images), k)
         for classes, images, k in ((1, 1, 1), (3, 3, 2), (7, 5, 5), (17, 129, 5), (40, 33, 3), (10, 64, 100))]
CASES += [
    forward_case("uniform", np.full((7, 1, 1, 5), 0.25), 3),
    forward_case("uniform-70-classes", np.full((70, 1, 1, 5), 0.25), 40),
    forward_case("the-last-44-of-300-wrong", columns(*[(0.75, 0.25)] * 256, *[(0.25, 0.75)] * 44), 1, np.zeros((1, 1, 1, 300))),
    no_class_case("a-label-one-too-large", 3.0),
    no_class_case("a-label-below-0", -1.0),
    ties_case("ties", 0, 2, {(1, .5, .5, .5): (1, 1), (1, 1, .5, 0): (.5, 1), (1, 2, .5, .25): (0, 1), (1, 1, 1, 1): (.25, .5)}),
    ties_case("ties-behind-others", 3, 3, {(1, 1, 1, 1, 0): (.25, .75), (2, 1, 0, 1, 0): (0, 1), (2, 2, 1, 1, 0): (0, .5), (2, 2, 2, 1, 1): (0, 0)}),
    forward_case("all-probs-0", columns((0, 0), (1, 0)), 1, np.zeros((1, 1, 1, 2)), exact=True),
    forward_case("prob-0-costs-infinity", columns((0, 1), (1, 0), (1, 0)), 1, np.zeros((1, 1, 1, 3)), exact=True),
]
for op in ("logreg_backward", "logreg_softmax_backward"):
    CASES += [backward_case(op, f"{classes}-classes-{images}-images", classes, images, coeff)
              for classes, images, coeff in ((1, 1, 1.0), (3, 3, 0.3), (7, 5, -2.0), (17, 129, 1.0))]
    CASES += [backward_case(op, "gradient", 5, 3, 0.7, check=True)]
CASES += [softmax_case(f"{classes}-classes-{images}-images-top{k}", 2 * normal(classes, 1, 1, images), k, coeff)
          for classes, images, k, coeff in ((1, 1, 1, 1.0), (3, 3, 2, 0.3), (7, 5, 5, -2.0), (17, 129, 5, 1.0), (40, 33, 3, 1.0), (12, 64, 2, 1.0), (10, 257, 100, 1.0))]
CASES += [
    softmax_case("equal", np.full((8, 1, 1, 3), 0.5), 3),
    softmax_case("equal-70-classes", np.full((70, 1, 1, 5), 0.5), 40),
    softmax_case("prob-0-costs-infinity", columns((0, -2000), (-2000, 0), (-2000, 0)), labels=np.zeros((1, 1, 1, 3)), exact=True),
    softmax_case("two-labels-that-are-no-class", np.full((4, 1, 1, 4), 0.5), labels=np.array([0.0, 4.0, -1.0, 3.0]).reshape(1, 1, 1, 4), exact=True),
]
