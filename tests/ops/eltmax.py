"""Element-wise maxima."""
from __future__ import annotations

import numpy as np

from . import Case, integers, normal


def eltmax_backward(inputs, acts, acts_grad):
    return np.where(inputs == acts, acts_grad, 0)


def cases(name, shape, small=False, check=False):
    """small: small integers, with many ties."""
    a, b = (integers(*shape, seed=s) if small else normal(*shape, seed=s) for s in (1, 2))
    if check:
        b = np.where(np.abs(a - b) < 0.01, a + 0.01, b)  # no tie is near
    acts_grad = normal(*shape, seed=3)
    return [
        Case("eltmax_forward", name, {"inputs": a, "others": b}, {"acts": shape}, np.maximum, exact=True),
        Case("eltmax_backward", name, {"inputs": a, "acts": np.maximum(a, b), "acts_grad": acts_grad}, {"inputs_grad": shape}, eltmax_backward,
             exact=True, cost=(lambda x: (np.maximum(x, b) * acts_grad).sum()) if check else None, at=a),
    ]


CASES = [case for name, shape in {"one-element": (1, 1, 1, 1), "pixels": (3, 5, 4, 3), "129-images": (7, 2, 3, 129), "rank-2": (17, 65)}.items()
         for case in cases(name, shape)]
CASES += [*cases("ties", (3, 5, 4, 65), small=True), *cases("gradient", (3, 2, 4, 3), check=True)]

# A NaN must not hide behind a number, on either side; and no gradient passes through it.
NAN, ONE = np.full((1, 1, 1, 3), np.nan), np.ones((1, 1, 1, 3))
CASES += [
    Case("eltmax_forward", "nan-first", {"inputs": NAN, "others": ONE}, {"acts": ONE.shape}, np.maximum, exact=True),
    Case("eltmax_forward", "nan-second", {"inputs": ONE, "others": NAN}, {"acts": ONE.shape}, np.maximum, exact=True),
    Case("eltmax_backward", "nan", {"inputs": NAN, "acts": NAN, "acts_grad": ONE}, {"inputs_grad": ONE.shape}, eltmax_backward, exact=True),
]
