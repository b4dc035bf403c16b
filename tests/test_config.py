"""What config files mean, and every message about a mistake in one."""
from __future__ import annotations

import pytest

from convnet.cfgfile import parse_cfg
from convnet.config import dialect_of, parse_config, read_config
from convnet.errors import ConfigError, MissingInput
from convnet.graph import Graph

LAYERS = """\
[data]
type=data
dataIdx=0
[labels]
type=data
dataIdx=1
[conv1]
type=conv
inputs=data
channels=3
filters=4
filterSize=3
padding=1
neuron=relu
[fc2]
type=fc
inputs=conv1
outputs=10
[probs]
type=softmax
inputs=fc2
[logprob]
type=cost.logreg
inputs=labels,probs
"""
PARAMS = """\
[conv1]
epsW=0.001
epsB=0.002
momW=0.9
momB=0.9
wc=0.004
[fc2]
epsW=0.001
epsB=0.002
momW=0.9
momB=0.9
[logprob]
coeff=1
"""
IMAGES = ((3, 8, 8), (1, 1, 1))


def edit(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def parse(layers: dict[str, str] | None = None, params: dict[str, str] | None = None):
    return parse_config(edit(LAYERS, layers or {}), edit(PARAMS, params or {}))


def message(layers: dict[str, str] | None = None, params: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as raised:
        Graph(parse(layers, params).layers, IMAGES)
    return str(raised.value)


def layer(config, name: str):
    return next(layer for layer in config.layers if layer.name == name)


# ---- what is meant ------------------------------------------------------------------------------


def test_fields_have_the_types_of_the_grammar():
    config = parse({"filterSize=3": "FILTER_SIZE = 3 ; the same key"})
    conv1, fc2 = layer(config, "conv1"), layer(config, "fc2")
    assert (conv1.filters, conv1.filter_size, conv1.padding, conv1.stride) == ((4,), (3,), (1,), (1,))
    assert (conv1.shared_biases, conv1.init_w, conv1.wc, fc2.wc) == (True, (0.01,), (0.004,), (0.0,))
    assert fc2.outputs == 10 and layer(config, "logprob").topk == 1
    assert config.warnings == [] and config.options == {}


def test_neuron_becomes_a_layer_that_the_readers_read():
    config = parse({"neuron=relu": "neuron=tanh[1.7,-0.6]"})
    names = [layer.name for layer in config.layers]
    assert names == ["data", "labels", "conv1", "conv1_neuron", "fc2", "probs", "logprob"]
    neuron = layer(config, "conv1_neuron")
    assert neuron.inputs == ("conv1",) and layer(config, "fc2").inputs == ("conv1_neuron",)
    assert neuron.constants() == {"neuron": "tanh", "a": 1.7, "b": 0.6}


def test_ident_is_no_layer():
    assert len(parse({"neuron=relu": "neuron=ident"}).layers) == 6


def test_a_list_of_one_value_serves_all_inputs():
    config = parse({"inputs=conv1": "inputs=conv1,data,conv1\ninitW=0.1"}, {"[fc2]\nepsW=0.001": "[fc2]\nepsW=0.1,0.2,0.3"})
    fc2 = layer(config, "fc2")
    assert fc2.inputs == ("conv1_neuron", "data", "conv1_neuron")
    assert fc2.init_w == (0.1, 0.1, 0.1) and fc2.mom_w == (0.9, 0.9, 0.9)
    assert [rate.base for rate in fc2.rates().values()] == [0.1, 0.2, 0.3, 0.002]


def test_sections_that_appear_twice_merge():
    config = parse_config(LAYERS + "[conv1]\nfilters=7\n", PARAMS + PARAMS)
    assert layer(config, "conv1").filters == (7,)


def test_schedules_of_both_programs():
    one = parse(params={"epsW=0.001": "epsW=0.1\nschedW=dexp[tgtFactor=250,numSteps=4]"})
    two = parse(params={"epsW=0.001": "epsW=dexp[base=0.1;tgtFactor=250;numSteps=4]"})
    assert layer(one, "conv1").rates()["W0"] == layer(two, "conv1").rates()["W0"]


def test_options_stand_in_the_params_file():
    config = parse(params={"[conv1]": "[convnet-train]\ntrain-range=1-5\n[conv1]"})
    assert {key: value.text for key, value in config.options.items()} == {"train-range": "1-5"}


def test_keys_in_the_default_section_go_to_those_they_suit():
    config = parse_config("[DEFAULT]\nfilterSize=5\ngpu=0\n" + LAYERS.replace("filterSize=3\n", ""), PARAMS)
    assert layer(config, "conv1").filter_size == (5,) and config.warnings == []


# ---- errors -------------------------------------------------------------------------------------


ERRORS = {
    "a misspelt type": (
        {"type=conv": "type=conf"}, {},
        "layers.cfg:8: [conv1] type=conf: no such layer type; did you mean conv?"),
    "a type of the family that is not here yet": (
        {"type=conv": "type=cost.tica"}, {},
        "layers.cfg:8: [conv1] type=cost.tica: a type that cuda-convnet knows and this program does not have yet"),
    "no type": (
        {"type=softmax": ""}, {},
        "layers.cfg:19: [probs] no type=, expected one of conv, cost.logreg, "),
    "an input that does not exist": (
        {"inputs=conv1": "inputs=conv2"}, {},
        "layers.cfg:17: [fc2] inputs=conv2: no layer of that name above it; did you mean conv1?"),
    "an input that is below": (
        {"inputs=data": "inputs=fc2"}, {},
        "layers.cfg:9: [conv1] inputs=fc2: no layer of that name above it"),
    "a cost as input": (
        {"[probs]": "[extra]\ntype=cost.logreg\ninputs=labels,fc2\n[probs]", "inputs=fc2\n[log": "inputs=extra\n[log"}, {"[logprob]": "[extra]\n[logprob]"},
        "[probs] inputs=extra: a cost, which no layer can read; expected one of data, labels, conv1, fc2"),
    "too few inputs": (
        {"inputs=labels,probs": "inputs=probs"}, {},
        "layers.cfg:24: [logprob] inputs=probs: 1 inputs, expected 2"),
    "no inputs": (
        {"inputs=fc2\n": ""}, {},
        "layers.cfg:19: [probs] inputs=: no inputs, expected 1"),
    "a bad number": (
        {"filters=4": "filters=many"}, {},
        "layers.cfg:11: [conv1] filters=many: expected a whole number"),
    "an empty list": (
        {}, {"wc=0.004": "wc="},
        "params.cfg:6: [conv1] wc=: expected a value for each input, or one for all"),
    "a fraction": (
        {"outputs=10": "outputs=10.5"}, {},
        "layers.cfg:18: [fc2] outputs=10.5: expected a whole number"),
    "a number that is too small": (
        {"filters=4": "filters=4\ngroups=0"}, {},
        "layers.cfg:12: [conv1] groups=0: expected 1 or more"),
    "infinity": (
        {}, {"momW=0.9": "momW=inf"},
        "params.cfg:4: [conv1] momW=inf: expected a finite number"),
    "neither 0 nor 1": (
        {"padding=1": "padding=1\nsharedBiases=maybe"}, {},
        "layers.cfg:14: [conv1] sharedBiases=maybe: expected 0 or 1"),
    "a word that is no choice": (
        {"[fc2]": "[pool]\ntype=pool\ninputs=conv1\npool=median\nsizeX=2\nstride=2\n[fc2]", "inputs=conv1\noutputs": "inputs=pool\noutputs"}, {},
        "layers.cfg:18: [pool] pool=median: expected one of max, maxabs, avg, rand"),
    "a missing key of the layers file": (
        {"outputs=10\n": ""}, {},
        "layers.cfg:15: [fc2] no outputs=; a layer of type fc needs it here"),
    "missing keys of the params file": (
        {}, {"epsW=0.001\nepsB=0.002\n": ""},
        "params.cfg:1: [conv1] no epsW=, epsB=; a layer of type conv needs them here"),
    "a missing section": (
        {}, {"[logprob]\ncoeff=1\n": ""},
        "layers.cfg:22: [logprob] no section [logprob] in params.cfg; a layer of type cost.logreg needs one, with coeff, topk"),
    "a list of a wrong length": (
        {"inputs=conv1": "inputs=conv1,conv1,conv1"}, {"[fc2]\nepsW=0.001": "[fc2]\nepsW=0.1,0.2"},
        "params.cfg:8: [fc2] epsW: 2 values for 3 inputs, expected one for each, or one for all"),
    "no schedule": (
        {}, {"epsB=0.002": "epsB=fast"},
        "params.cfg:3: [conv1] epsB: 'fast': no learning-rate schedule; expected a number or one of const, linear"),
    "a bad schedule beside a rate": (
        {}, {"epsW=0.001": "epsW=0.001\nschedW=dexp[tgtFactor=9]"},
        "params.cfg:3: [conv1] schedW: dexp[tgtFactor=9]: no numSteps; expected dexp"),
    "an unknown neuron": (
        {"neuron=relu": "neuron=rellu"}, {},
        "layers.cfg:14: [conv1] neuron=rellu, expected one of ident, relu"),
    "a neuron without its numbers": (
        {"neuron=relu": "neuron=tanh[1]"}, {},
        "layers.cfg:14: [conv1] neuron=tanh[1], expected 2 numbers in [ ]"),
    "a name that the program makes": (
        {"[fc2]": "[conv1_neuron]", "inputs=fc2": "inputs=conv1_neuron"}, {"[fc2]": "[conv1_neuron]"},
        "layers.cfg:7: [conv1] there is another layer [conv1_neuron], a name that the program makes itself"),
    "a layer that nobody reads": (
        {"[probs]": "[spare]\ntype=softmax\ninputs=fc2\n[probs]"}, {},
        "layers.cfg:19: [spare] a layer of type softmax that no other layer reads"),
    "no cost": (
        {LAYERS[LAYERS.index("[logprob]"):]: ""}, {},
        "layers.cfg: no cost; expected a layer of type cost.logreg"),
    "a function that cannot be read": (
        {"outputs=10": "outputs=10\ninitWFunc=makew(conv1)"}, {},
        "layers.cfg:19: [fc2] initWFunc: makew(conv1): expected module.function or module.function(p1,p2)"),
    "channels that the input has not": (
        {"channels=3": "channels=4"}, {},
        "layers.cfg:7: [conv1] channels=4, but its input data has 3"),
    "groups that do not divide the channels": (
        {"filterSize=3": "filterSize=3\ngroups=2"}, {},
        "layers.cfg:7: [conv1] groups=2, expected a divisor of the 3 channels of data"),
    "filter channels that are not those of a group": (
        {"filterSize=3": "filterSize=3\ngroups=3\nfilterChannels=3"}, {},
        "layers.cfg:7: [conv1] filterChannels=3, expected channels / groups = 1"),
    "random channels for one group": (
        {"filterSize=3": "filterSize=3\nrandSparse=1"}, {},
        "layers.cfg:13: [conv1] randSparse: found groups=1, expected several groups, which read different channels"),
    "random channels that do not divide the channels": (
        {"filterSize=3": "filterSize=3\ngroups=3\nrandSparse=1\nfilterChannels=2"}, {},
        "layers.cfg:7: [conv1] filterChannels=2, expected a divisor of the 3 channels of data"),
    "channels that could not be read equally often": (
        {"filterSize=3": "filterSize=3\ngroups=4\nrandSparse=1\nfilterChannels=1"}, {},
        "layers.cfg:7: [conv1] groups=4 of filterChannels=1 are 4 connections, expected a multiple of the 3 channels of data"),
    "a filter larger than the image": (
        {"filterSize=3": "filterSize=11"}, {},
        "layers.cfg:7: [conv1] conv_shape: filters of 11 pixels on an image of 8 with padding 1, expected 1 to 10"),
    "more guesses than classes": (
        {}, {"coeff=1": "topk=11"},
        "layers.cfg:22: [logprob] topk=11, expected 1 to 10, the classes of probs"),
    "data that do not exist": (
        {"dataIdx=1": "dataIdx=2"}, {},
        "layers.cfg:4: [labels] dataIdx=2: the data have 2 tensors, expected 0 to 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_error_names_place_and_way_out(name):
    layers, params, expected = ERRORS[name]
    assert expected in message(layers, params)


def test_every_error_is_told_at_once_and_none_twice():
    found = message({"type=conv": "type=conf", "inputs=labels,probs": "inputs=labels,prob"}, {"[fc2]\nepsW=0.001\n": "[fc2]\n"})
    assert found.splitlines() == [
        "layers.cfg:8: [conv1] type=conf: no such layer type; did you mean conv?",
        "params.cfg:7: [fc2] no epsW=; a layer of type fc needs it here",
        "layers.cfg:24: [logprob] inputs=prob: no layer of that name above it; did you mean probs?",
    ]


def test_bad_lines_and_bad_values_are_all_told():
    found = message({"filters=4": "filters=many", "filterSize=3": "filterSize=no", "[fc2]": "[fc2"}, {"[logprob]": "logprob", "coeff=1": "coeff"})
    assert found.splitlines() == [
        "params.cfg:12: logprob: expected [section] or key=value",
        "params.cfg:13: coeff: expected [section] or key=value",
        "layers.cfg:15: [fc2: expected [section] or key=value",
    ]
    found = message({"filters=4": "filters=many", "neuron=relu": "neuron=rel", "outputs=10": ""}, {"epsW=0.001\n": ""})
    assert [line.split(":")[1] for line in found.splitlines()] == ["11", "14", "1", "15"]


def test_shapes_that_do_not_fit_are_all_told():
    found = message({"dataIdx=1": "dataIdx=2", "channels=3": "channels=4"})
    assert [line.split(":")[1] for line in found.splitlines()] == ["4", "7"]


def test_an_empty_file_has_no_layer():
    with pytest.raises(ConfigError, match=r"net.cfg: no layer; expected sections \[name\]"):
        parse_config("# nothing\n", "", "net.cfg")


def test_files_that_do_not_exist(tmp_path):
    with pytest.raises(MissingInput, match=r"no.cfg: cannot read this config file: No such file"):
        read_config(tmp_path / "no.cfg", tmp_path / "no.cfg")


# ---- warnings -----------------------------------------------------------------------------------


WARNINGS = {
    "an unknown key": (
        {"padding=1": "paddin=1"}, {},
        "layers.cfg:13: [conv1] paddin= means nothing to a layer of type conv and is ignored; did you mean padding?"),
    "an unknown key of the params file": (
        {}, {"coeff=1": "coef=1"},
        "params.cfg:13: [logprob] coef= means nothing to a layer of type cost.logreg and is ignored; did you mean coeff?"),
    "a neuron in the params file": (
        {}, {"wc=0.004": "wc=0.004\nneuron=relu"},
        "params.cfg:7: [conv1] neuron= means nothing to a layer of type conv and is ignored"),
    "params of no layer": (
        {}, {"[logprob]": "[fc3]\nepsW=1\n[logprob]"},
        "params.cfg:12: [fc3]: no layer of that name; did you mean fc2?"),
    "a key in the wrong file": (
        {"padding=1": "padding=1\nwc=0.1"}, {"wc=0.004\n": ""},
        "layers.cfg:14: [conv1] wc= belongs in the params file; taken from here"),
    "a schedule without names": (
        {}, {"epsW=0.001": "epsW=0.001\nschedW=dexp[250,0,4]"},
        "params.cfg:3: [conv1] schedW: dexp[250,0,4]: parameters without names, read as dexp[tgtFactor=250,noiseStdev=0,numSteps=4]"),
    "an old key of a schedule": (
        {}, {"momW=0.9": "momW=0.9\nsched=dexp[tgtFactor=250,numSteps=4]"},
        "params.cfg:5: [conv1] sched=dexp[tgtFactor=250,numSteps=4]: an old key, read as schedW=dexp[tgtFactor=250,numSteps=4] and schedB=dexp[tgtFactor=250,numSteps=4]"),
    "an old key beside one of the new": (
        {}, {"momW=0.9": "momW=0.9\nsched=exp[tgtFactor=10]\nschedB=default"},
        "params.cfg:5: [conv1] sched=exp[tgtFactor=10]: an old key, read as schedW=exp[tgtFactor=10]"),
    "an old key of a constraint that is off": (
        {}, {"wc=0.004": "wc=0.004\nwcnorm=0"},
        "params.cfg:7: [conv1] wcnorm=0: an old key, read as wcNormMax=0"),
    "a key of the layers file": (
        {}, {"wc=0.004": "wc=0.004\nfilters=9"},
        "params.cfg:7: [conv1] filters= belongs in the layers file and is ignored"),
}  # fmt: skip


@pytest.mark.parametrize("name", WARNINGS)
def test_warning_names_the_place(name):
    layers, params, expected = WARNINGS[name]
    assert parse(layers, params).warnings == [expected]


def test_an_old_schedule_is_that_of_weights_and_biases():
    config = parse(params={"momW=0.9": "momW=0.9\nsched=linear[1000]"})
    assert [rate.rate(1.0) for rate in layer(config, "conv1").rates().values()] == pytest.approx([0.000001, 0.000002])
    assert config.warnings == [
        "params.cfg:5: [conv1] sched=linear[1000]: an old key, read as schedW=linear[tgtFactor=1000] and schedB=linear[tgtFactor=1000]"]


def test_each_input_may_have_a_schedule_of_its_own():
    config = parse({"inputs=conv1": "inputs=conv1,data"}, {"[fc2]\nepsW=0.001": "[fc2]\nepsW=0.1\nschedW=exp[tgtFactor=10],dexp[tgtFactor=100,numSteps=2]"})
    assert [rate.rate(1.0) for rate in layer(config, "fc2").rates().values()] == pytest.approx([0.01, 0.001, 0.002])


NORM = {"[fc2]": "[norm]\ntype=cmrnorm\ninputs=conv1\nsize=3\nscale=0.3\npow=0.5\nminDiv=2\n[fc2]", "inputs=conv1\noutputs": "inputs=norm\noutputs"}


def test_a_normalization_of_before_2011_has_its_params_in_the_layers_file():
    config = parse(NORM)
    norm = layer(config, "norm")
    assert (norm.scale, norm.pow, norm.min_div) == (0.3, 0.5, 2)
    assert config.warnings == [f"layers.cfg:{line}: [norm] {key}= belongs in the params file; taken from here"
                               for line, key in ((19, "scale"), (20, "pow"), (21, "minDiv"))]


STRICT = {
    "schedule": ({}, {"epsW=0.001": "epsW=0.001\nschedW=dexp[250,0,4]"}, "params.cfg:3: [conv1] schedW: dexp[250,0,4]: parameters without names, which the released"),
    "norm": (NORM, {}, "layers.cfg:15: [norm] no section [norm] in params.cfg; a layer of type cmrnorm needs one, with scale, pow, minDiv"),
    "half a norm": (NORM, {"[fc2]": "[norm]\npow=1\n[fc2]"}, "params.cfg:7: [norm] no scale=; a layer of type cmrnorm needs it here"),
}  # fmt: skip


@pytest.mark.parametrize("name", STRICT)
def test_strict_legacy_refuses_what_the_released_programs_refused(name):
    layers, params, expected = STRICT[name]
    with pytest.raises(ConfigError) as raised:
        parse_config(edit(LAYERS, layers), edit(PARAMS, params), strict_legacy=True)
    assert expected in str(raised.value)


def test_strict_legacy_ignores_what_the_released_programs_ignored():
    params = edit(PARAMS, {"wc=0.004": "wc=0.004\nsched=no schedule at all\nwcnorm=7"})
    config = parse_config(LAYERS.replace("padding=1", "padding=1\nwc=1"), params, strict_legacy=True)
    assert not any(rate.falls for rate in layer(config, "conv1").rates().values()) and layer(config, "conv1").wc == (0.004,)
    assert config.warnings == [
        "layers.cfg:14: [conv1] wc= belongs in the params file; ignored, as by the released program (--strict-legacy)",
        "params.cfg:7: [conv1] sched=no schedule at all: an old key, ignored, as by the released program (--strict-legacy)",
        "params.cfg:8: [conv1] wcnorm=7: an old key, ignored, as by the released program (--strict-legacy)",
    ]


DIALECTS = {
    "A12": ({}, {}),
    "V1": ({}, {"wc=0.004": "dropout=0"}),
    "V2": ({"padding=1": "padding=1\nsumWidth=3"}, {}),
    "V2 by a schedule": ({}, {"epsW=0.001": "epsW=dexp[ base=0.1;tgtFactor=250;numSteps=4]"}),
    "V2 by replicas": ({"padding=1": "padding=1\ngpu=0,1"}, {}),
    "V2 by a type": ({"type=cost.logreg": "type=cost.bce"}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", DIALECTS)
def test_the_dialect_is_told_by_what_one_program_alone_has(name):
    layers, params = DIALECTS[name]
    found, reason = dialect_of([*parse_cfg(edit(LAYERS, layers), "l.cfg"), *parse_cfg(edit(PARAMS, params), "p.cfg")])
    assert found == name[:3].strip() and bool(reason) == (found != "A12")


def test_features_that_are_switched_off_say_nothing():
    config = parse(params={"wc=0.004": "wc=0.004\nwball=0\nwcNormMax=0.0\nupdatePeriod=0"})
    assert config.warnings == []


# ---- dropout= of cuda-convnet 1 ------------------------------------------------------------------------------

def test_dropout_of_any_layer_is_a_layer_before_its_neuron():
    layers = parse(params={"[conv1]\n": "[conv1]\ndropout=0.25\n", "[fc2]\n": "[fc2]\ndropout=0.5\n"}).layers
    assert [(layer.name, layer.kind, layer.inputs) for layer in layers[2:7]] == [
        ("conv1", "conv", ("data",)), ("conv1_dropout", "hs", ("conv1",)), ("conv1_neuron", "neuron", ("conv1_dropout",)),
        ("fc2", "fc", ("conv1_neuron",)), ("fc2_dropout", "hs", ("fc2",))]
    assert [layer.keep for layer in layers if layer.kind == "hs"] == [0.75, 0.5] and layers[7].inputs == ("fc2_dropout",)


@pytest.mark.parametrize(("section", "value", "message"), [
    ("fc2", "1", "params.cfg:8: [fc2] dropout: found 1, expected 0 or more, and below 1"),
    ("logprob", "0.5", "params.cfg:13: [logprob] dropout: found 0.5, expected none in a cost"),
])
def test_dropout_that_cannot_be_is_told(section, value, message):
    with pytest.raises(ConfigError) as caught:
        parse(params={f"[{section}]\n": f"[{section}]\ndropout={value}\n"})
    assert message in str(caught.value)
