# ruff: noqa: B905, I001, SIM115 (Python 2)
"""Writes the checkpoints beside it, as cuda-convnet's programs would: run by Python 2.7 with numpy 1.16.

    python2.7 tests/original/make_checkpoints.py tests/original

One net in three forms: `1.2`, layers by name and objects of the option parser (cuda-convnet2); `1.2.gz` and `1.2.zip`, a list
of layers whose inputs are numbers (cuda-convnet). Every weight is a small integer / 8, a function of its place.
"""
import cPickle
import gzip
import os
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np

options = types.ModuleType("options")
sys.modules["options"] = options
exec("""
class Option:
    pass
class OptionsParser:
    pass
class RangeOptionParser:
    pass
""", options.__dict__)


def option_parser():
    parser = options.OptionsParser()
    parser.options = {}
    for name, value in (("train_batch_range", [1, 2, 3]), ("test_batch_range", [4]), ("num_epochs", 20), ("minibatch_size", 16), ("data_path", "/data")):
        option = options.Option()
        option.name, option.value, option.parser, option.excuses = name, value, options.RangeOptionParser, []
        parser.options[name] = option
    return parser


def matrix(rows, columns, seed, order="C"):
    numbers = (np.arange(rows * columns) * 7 + seed) % 17 - 8
    return np.require(numbers.reshape(rows, columns).astype(np.float32) / 8, requirements=order)


def weights(shapes, biases, seed, order="C"):
    layer = {"weights": [matrix(rows, columns, seed + i, order) for i, (rows, columns) in enumerate(shapes)], "biases": matrix(biases[0], biases[1], seed + 5)}
    layer["weightsInc"] = [w / np.float32(64) for w in layer["weights"]]
    layer["biasesInc"] = layer["biases"] / np.float32(64)
    return layer


def layers(schedules):
    rates = {"momW": [0.9], "momB": 0.9, "wc": [0.004], "epsB": 0.002, "epsW": [0.001], "initB": 0.0, "weightSource": [""], "initW": [0.0001], "wball": [0.0]}
    if schedules:
        rates["epsW"] = [{"type": "dexp", "params": {"base": 0.001, "tgtFactor": 10.0, "numSteps": 2}}]
        rates["epsB"] = {"type": "const", "params": {"base": 0.002}}
    relu = {"type": "relu", "params": {}, "usesActs": True, "usesInputs": False}
    net = [
        dict(name="data", type="data", dataIdx=0, outputs=108),
        dict(name="labels", type="data", dataIdx=1, outputs=1),
        dict(rates, name="conv1", type="conv", inputs=["data"], channels=[3], filters=4, filterSize=[3], padding=[-1], stride=[1], groups=[1], modulesX=6,
             modules=36, sharedBiases=True, filterChannels=[3], randSparse=[False], outputs=144, neuron="relu", partialSum=0, **weights([(27, 4)], (4, 1), 1)),
        dict(name="conv1_neuron", type="neuron", inputs=["conv1"], neuron=relu, outputs=144),
        dict(name="pool1", type="pool", inputs=["conv1_neuron"], pool="max", channels=4, sizeX=3, stride=2, start=0, outputsX=3, outputs=36),
        dict(name="norm1", type="cmrnorm", inputs=["pool1"], channels=4, size=3, scale=0.75 / 3, pow=0.75, minDiv=1.0, blocked=False, outputs=36),
        dict(rates, name="conv2", type="conv", inputs=["norm1"], channels=[4], filters=4, filterSize=[3], padding=[-1], stride=[1], groups=[2], modulesX=3,
             modules=9, sharedBiases=False, filterChannels=[2], outputs=36, **weights([(18, 4)], (36, 1), 2)),
        dict(name="conv2_neuron", type="neuron", inputs=["conv2"], outputs=36,
             neuron={"type": "tanh", "params": {"b": 0.5, "a": 2.0}, "usesActs": True, "usesInputs": False}),
        dict(rates, name="local3", type="local", inputs=["conv2_neuron"], channels=[4], filters=2, filterSize=[3], padding=[0], stride=[1], groups=[1],
             modulesX=1, modules=1, filterChannels=[4], outputs=2, **weights([(36, 2)], (2, 1), 3)),
        dict(rates, name="fc4", type="fc", inputs=["local3", "conv2_neuron"], outputs=5, **weights([(2, 5), (36, 5)], (1, 5), 4, "F")),
        dict(name="probs", type="softmax", inputs=["fc4"], outputs=5),
        dict(name="logprob", type="cost.logreg", inputs=["labels", "probs"], coeff=1.0, topk=1, outputs=0),
    ]
    for key in ("momW", "wc", "epsW", "weightSource", "initW", "wball"):
        net[9][key] = net[9][key] * 2
    return net


def main(folder):
    for schedules in (False, True):
        net = layers(schedules)
        names = [layer["name"] for layer in net]
        for layer in net:
            if schedules:  # cuda-convnet2
                layer["gpu"], layer["inputLayers"] = [0], [net[names.index(name)] for name in layer.get("inputs", [])]
            elif "inputs" in layer:
                layer["inputs"] = [names.index(name) for name in layer["inputs"]]
        state = {"layers": OrderedDict(zip(names, net)) if schedules else net, "epoch": 1, "batchnum": 2,
                 "train_outputs": [({"logprob": [1.5, 0.5]}, 16)], "test_outputs": []}
        text = cPickle.dumps({"model_state": state, "op": option_parser()}, 2)
        path = os.path.join(folder, "1.2")
        if schedules:
            open(path, "wb").write(text)
            continue
        with open(path + ".gz", "wb") as file:
            gzip.GzipFile("", "wb", 9, file, 0).write(text)
        archive = zipfile.ZipFile(path + ".zip", "w", zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo("data"), text, zipfile.ZIP_DEFLATED)
        archive.close()


if __name__ == "__main__":
    main(sys.argv[1])
