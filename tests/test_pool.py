"""Pooling in nets: gradients, stochastic pooling in training and testing, shapes and mistakes."""
from __future__ import annotations

import numpy as np
import pytest

from convnet.config import parse_config
from convnet.errors import ConfigError
from convnet.graph import Graph
from small_nets import (
    DATA,
    arrays_for,
    gradients_are_right,
    params_of,
    section,
    small_net,
)

IMAGE = (3, 6, 6)
COST = section("cost", type="cost.sum2", inputs="pool")


def below(maps: int) -> str:
    """A layer with weights of `maps` maps of 4 x 4 pixels."""
    return DATA + section("conv", type="conv", inputs="data", filters=maps, filterSize=3, initW=0.3)


def pool_net(**keys) -> str:
    return below(2) + section("pool", type="pool", inputs="conv", sizeX=3, stride=2, **keys) + COST


def cross_map_net(**keys) -> str:
    return below(7) + section("pool", type="cmpool", inputs="conv", **keys) + COST


NETS = {
    "max": (pool_net(pool="max"), {}),
    "maxabs": (pool_net(pool="maxabs"), {}),
    "avg": (pool_net(pool="avg"), {}),
    "sum": (pool_net(pool="avg", sum=1), {}),
    "rand": (pool_net(pool="rand"), {}),
    "rand with doMax": (pool_net(pool="rand"), {"doMax": "true"}),
    "cmpool": (cross_map_net(size=3, stride=2), {}),
    "cmpool around every channel": (cross_map_net(size=3, stride=1, start=-1, outputs=7, channels=7, pool="max"), {}),
}


@pytest.mark.parametrize("backend", ["host", "simt"])
@pytest.mark.parametrize("name", NETS)
def test_gradients_agree_with_differences(name, backend):
    layers, own = NETS[name]
    assert gradients_are_right(layers, params_of(layers, pool=own), backend)


def forward(layers: str, phase: str, step: int = 0, backend: str = "host", **own) -> tuple[np.ndarray, np.ndarray]:
    """What the pool reads and gives in a phase; and in `train` nothing is learned."""
    with small_net(layers, params_of(layers, **own), backend, dtype="float32") as net:
        plan = net.plan(5, phase, ("conv", "pool"))
        plan.run({0: arrays_for(net)[0], "state": net.state(step)})
        plan.synchronize()
        return plan.fetch("conv")[0], plan.fetch("pool")[0]


def windows(inputs: np.ndarray) -> np.ndarray:
    """The inputs of each window of 3 every 2 from 0 on, of maps of 4 pixels: (maps, 2, 2, 9, images), beyond the edge 0."""
    padded = np.pad(inputs, ((0, 0), (0, 1), (0, 1), (0, 0)))
    return np.stack([np.stack([padded[:, y : y + 3, x : x + 3].reshape(2, 9, -1) for x in (0, 2)], 1) for y in (0, 2)], 1)


@pytest.mark.parametrize("backend", ["host", "simt"])
def test_stochastic_pooling_takes_an_input_in_training_and_the_mean_in_testing(backend):
    layers = pool_net(pool="rand")
    inputs, acts = forward(layers, "train", backend=backend)
    above = np.maximum(windows(inputs), 0)
    assert ((above == acts[..., None, :]).any(3)).all()
    assert (acts < above.max(3)).any(), "it is not max-pooling"
    inputs, acts = forward(layers, "test", backend=backend)
    above = np.maximum(windows(inputs), 0)
    np.testing.assert_allclose(acts, (above**2).sum(3) / above.sum(3), rtol=1e-5)


def test_stochastic_pooling_draws_anew_at_every_step():
    first, again, later = (forward(pool_net(pool="rand"), "train", step)[1] for step in (3, 3, 4))
    assert (first == again).all() and (first != later).any()


@pytest.mark.parametrize("phase", ["train", "test"])
def test_do_max_is_max_pooling_in_every_phase(phase):
    _, acts = forward(pool_net(pool="rand"), phase, pool={"doMax": "1"})
    assert (acts == forward(pool_net(pool="max"), phase)[1]).all()


def test_stochastic_pooling_passes_its_gradient_to_what_it_took():
    """The cost is the sum of the squares: the gradient of the biases is twice the sum of what was taken."""
    layers = pool_net(pool="rand")
    with small_net(layers, params_of(layers), dtype="float64") as net:
        plan = net.plan(5, "train", ("pool",))
        before = net.get("conv.b")
        plan.run({0: arrays_for(net)[0], "state": net.state(0, [0.0, 1.0])})
        plan.synchronize()
        np.testing.assert_allclose(before - net.get("conv.b"), 2 * plan.fetch("pool")[0].sum((1, 2, 3)) / 5, rtol=1e-12)


MISTAKES = {
    "a window over more channels than there are": (cross_map_net(size=9, stride=2), "[pool] size=9, expected at most the 7 channels of conv"),
    "steps over channels": (cross_map_net(size=2, stride=3), "[pool] stride: found 3, expected at most size, which is 2"),
    "a first window behind the first channel": (cross_map_net(size=2, stride=2, start=1), "[pool] start: found 1, expected -1 to 0"),
    "too few windows": (
        cross_map_net(size=3, stride=2, outputs=2),
        "[pool] outputs=2, expected 3 to 4, as many windows as cover the 7 channels of conv and hold one"),
    "windows of nothing": (cross_map_net(size=3, stride=2, outputs=5), "[pool] outputs=5, expected 3 to 4"),
    "other channels": (cross_map_net(size=3, stride=2, channels=8), "[pool] channels=8, but its input conv has 7"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_the_words_of_the_config(name):
    layers, expected = MISTAKES[name]
    with pytest.raises(ConfigError) as raised:
        Graph(parse_config(layers, params_of(layers)).layers, (IMAGE,))
    assert expected in str(raised.value)


@pytest.mark.parametrize("layers, own, expected", [
    (pool_net(pool="max", sum=1), {}, "[pool] sum: means nothing to pool=max, but to pool=avg, and is ignored"),
    (pool_net(pool="avg"), {"doMax": "true"}, "[pool] doMax: means nothing to pool=avg, but to pool=rand, and is ignored"),
])
def test_a_key_of_another_kind_of_pool_is_a_warning(layers, own, expected):
    (warning,) = parse_config(layers, params_of(layers, pool=own)).warnings
    assert warning.endswith(expected)
