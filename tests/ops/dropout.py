"""Dropout (Hinton et al. 2012), and Philox4x32-10 (Salmon et al. 2011), which all random draws come from."""
from __future__ import annotations

import numpy as np

from . import Case, integers, normal


def philox(counter, key):
    """Four words, each an array of uint64 below 2^32, for four counters and two key words that broadcast."""
    c = [np.asarray(word, np.uint64) for word in counter]
    k = [np.asarray(word, np.uint64) for word in key]
    low, bits = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        left, right = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(right >> bits) ^ c[1] ^ k[0], right & low, (left >> bits) ^ c[3] ^ k[1], left & low]
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return c


# Random123's kat_vectors: (counter, key, words).
KNOWN_ANSWERS = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]
for counter, key, words in KNOWN_ANSWERS:
    assert [int(word) for word in philox(counter, key)] == list(words), "this file's Philox is wrong"


def state_at(step):
    """The state at a step, which may be any whole number that a float64 holds."""
    return np.array([step, 1.0, 0.01])


def kept(shape, step, keep, seed, purpose, first_image):
    """(rows, images): which elements are kept."""
    rows, images = int(np.prod(shape[:-1])), shape[-1]
    places, image = np.meshgrid(np.arange(-(-rows // 4)), first_image + np.arange(images), indexing="ij")
    words = np.stack(philox((places, image, int(step) & 0xFFFFFFFF, int(step) >> 32), (seed, purpose)), axis=1)
    return (words.reshape(-1, images)[:rows] < np.uint64(int(keep * 2**32))).reshape(shape)


def dropout(inputs, state, keep, scale, seed, purpose, first_image):
    return np.where(kept(inputs.shape, state[0], keep, seed, purpose, first_image), inputs * scale, 0.0)


def case(name, shape, keep, scale=1.0, step=7, seed=1, purpose=0x9E3779B9, first_image=0, **more):
    inputs = integers(*shape) if scale == 1 else normal(*shape)
    return Case("dropout", name, {"inputs": inputs, "state": state_at(step)}, {"acts": shape}, dropout,
                {"keep": keep, "scale": scale, "seed": seed, "purpose": purpose, "first_image": first_image}, exact=scale == 1, keep={"state": "float64"}, **more)


def known_answer(word, offset):
    """Seed, purpose and step 0: the first four elements are kept as the published words say, to the last bit."""
    words = np.array(KNOWN_ANSWERS[0][2], np.float64)
    keep = (words[word] + offset) / 2**32
    mask = (words < words[word] + offset).astype(np.float64).reshape(4, 1, 1, 1)
    return Case("dropout", f"known-answer-{word}-{'kept' if offset else 'dropped'}", {"inputs": np.ones((4, 1, 1, 1)), "state": state_at(0)},
                {"acts": (4, 1, 1, 1)}, lambda inputs, state, **_: inputs * mask, {"keep": keep, "scale": 1.0, "seed": 0, "purpose": 0, "first_image": 0},
                exact=True, keep={"state": "float64"})


def gradient_case():
    shape, scalars = (5, 2, 1, 3), {"keep": 0.5, "scale": 2.0, "seed": 3, "purpose": 4, "first_image": 0}
    acts_grad, state = normal(*shape, seed=1), state_at(7)
    return Case("dropout", "gradient", {"inputs": acts_grad, "state": state}, {"acts": shape}, dropout, scalars, keep={"state": "float64"},
                cost=lambda x: (dropout(x, state, **scalars) * acts_grad).sum(), at=normal(*shape))


CASES = [case(f"{c}x{h}x{w}x{n}", (c, h, w, n), 0.5) for c, h, w, n in ((1, 1, 1, 1), (3, 1, 1, 3), (7, 3, 2, 5), (17, 1, 1, 129), (16, 2, 2, 64))]
CASES += [
    case("inverted", (7, 3, 2, 5), 0.7, scale=1 / 0.7),
    case("keep-all", (5, 1, 1, 33), 1.0),
    case("keep-none", (5, 1, 1, 33), 0.0),
    case("keep-none-inverted", (5, 1, 1, 33), 0.0, scale=3.0),
    case("33-rows", (33, 1, 1, 2), 0.5),
    case("step-0", (9, 1, 1, 17), 0.5, step=0),
    case("step-of-33-bits", (9, 1, 1, 17), 0.5, step=2**32 + 5),
    case("largest-seed", (9, 1, 1, 17), 0.5, seed=2**32 - 1, purpose=2**32 - 1),
    case("rank-2", (13, 9), 0.25),
    case("second-half-of-a-minibatch", (9, 1, 1, 17), 0.5, first_image=17),
    gradient_case(),
]
CASES += [known_answer(word, offset) for word in range(4) for offset in (0, 1)]
