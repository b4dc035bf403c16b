"""Each layer type and key of the config language, and a test that shows it.

    python tests/key_table.py > docs/coverage.md
"""
from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

from convnet.config import KNOWN_TYPES, OLD_KEYS, REFUSED_TYPES, grammar, spelled
from convnet.layers import LAYERS, Layer
from convnet.layers.neuron import PARAMETERS

HERE = Path(__file__).parent
FORMULA = "test_ops::test_value_is_within_the_bound_of_the_arithmetic"
LOCAL, IMAGE, NORM = "test_local::test_gradients_are_those_of_the_cost", "test_layers_image::", "test_layers_norm::"
ACTS, NO_GRADIENT = f"{IMAGE}test_acts_are_those_of_the_formula", f"{IMAGE}test_what_has_no_gradient_stands_on_what_does_not_learn"
JOIN, COST, POOL = (f"test_{name}::test_gradients_agree_with_differences" for name in ("join", "costs", "pool"))
KEEP = "test_keys::test_units_are_kept_as_often_as_the_keys_say"
COEFF = "test_keys::test_a_coefficient_is_of_the_gradient_alone"
CHANNELS = "test_keys::test_channels_are_checked"
UPDATES, KNOBS = "test_keys::test_updates_are_those_of_the_keys", "test_keys::test_knobs_that_mean_nothing_here_change_nothing"
MESSAGE = "test_config::test_error_names_place_and_way_out"
SCHEDULES = "test_keys::test_schedules_are_those_of_the_keys"
WINDOWS = "test_keys::test_windows_are_those_of_the_keys"
ALL = "test_keys::test_gradients_of_every_type_agree_with_differences"
ANYWHERE = "test_keys::test_a_layer_computes_the_same_on_another_device"

OWN = "test_own_layers::"

# Type -> tests of its formula and of its gradient (against differences, on host and simt).
TYPES = {
    "data": ("test_keys::test_a_part_of_the_data_is_read", ""),
    "conv": (FORMULA, LOCAL), "local": ("test_local::test_local_with_the_same_filters_everywhere_is_a_convolution", LOCAL),
    "fc": ("test_keys::test_a_part_of_the_data_is_read", ALL), "sfc": ("test_fc::test_every_part_sees_its_part_of_the_input", "test_fc::test_gradients_agree_with_differences"),
    "treefc": ("test_tree::test_the_weights_of_a_class_are_the_sum_of_those_above_it", "test_tree::test_gradients_agree_with_differences"),
    **dict.fromkeys(("blur", "nailbed", "href", "crop"), (ACTS, f"{IMAGE}test_gradients_are_right")),
    **dict.fromkeys(("resize", "rgb2yuv", "rgb2lab"), (ACTS, NO_GRADIENT)),
    "rscale": (f"{IMAGE}test_rscale_draws_a_size_and_a_crop_for_each_training_step", f"{IMAGE}test_what_has_no_gradient_is_refused_above_weights"),
    **dict.fromkeys(("concat", "pass"), ("test_keys::test_joined_inputs_lie_one_after_the_other", ALL)),
    "eltsum": ("test_keys::test_labels_may_be_joined_with_what_the_net_computes", JOIN), "eltmax": ("test_join::test_the_maximum_is_that_of_all_inputs", JOIN),
    "neuron": (FORMULA, "test_neurons::test_gradients_agree_with_differences"),
    "cmrnorm": (f"{NORM}test_the_scale_is_divided_by_the_size_of_the_window", f"{NORM}test_gradients_are_right"),
    "rnorm": (f"{NORM}test_the_scale_is_divided_by_the_size_of_the_window", f"{NORM}test_gradients_are_right"),
    "cnorm": (f"{NORM}test_the_scale_is_divided_by_the_size_of_the_window", f"{NORM}test_gradients_of_contrast_normalization_hold_the_means_constant"),
    "pool": (WINDOWS, POOL), "cmpool": (FORMULA, POOL), "softmax": (FORMULA, ALL),
    **dict.fromkeys(("hs", "dropout", "dropout2"), (KEEP, ALL)),
    "cuda": (f"{OWN}test_the_kernels_compute_what_they_say", f"{OWN}test_their_gradients_are_checked"),
    "cost.logreg": (FORMULA, LOCAL), "cost.bce": ("test_keys::test_labels_of_1_count_as_much_as_pos_weight_says", COST),
    "cost.crossent2": ("test_keys::test_labels_of_1_count_as_much_as_pos_weight_says", COST),
    **dict.fromkeys(("cost.sum2", "cost.gsum2", "cost.rflickr"), (FORMULA, COST)),
}
# Class that has a key, and those made of it -> key -> test; what stands at a class nearer to the type wins.
KEYS = {
    "Layer": {
        "inputs": "test_config::test_a_list_of_one_value_serves_all_inputs", "gpu": ANYWHERE,
        **dict.fromkeys(("quantF", "quantB"), "test_replicas::test_activities_and_gradients_cross_in_half_precision_where_the_config_says_so"),
        "dropout": "test_config::test_dropout_of_any_layer_is_a_layer_before_its_neuron",
    },
    "Cost": {"coeff": COEFF},
    "LogisticRegression": {"topk": "test_train::test_a_third_number_for_topk"},
    "BinaryCrossEntropy": {"posWeight": "test_keys::test_labels_of_1_count_as_much_as_pos_weight_says"},
    "Data": {"dataIdx": MESSAGE, **dict.fromkeys(("start", "end"), "test_keys::test_a_part_of_the_data_is_read")},
    "Dropout": {"keep": KEEP, "enable": KEEP},
    "WeightLayer": {
        **dict.fromkeys(("initW", "initB"), "test_keys::test_initial_weights_are_those_of_the_keys"),
        **dict.fromkeys(("initWFunc", "initBFunc"), "test_initial::test_functions_are_given_the_shapes_of_the_originals"),
        **dict.fromkeys(("epsW", "epsB", "momW", "momB", "wc"), UPDATES), **dict.fromkeys(("schedW", "schedB"), SCHEDULES),
        "weightSource": "test_keys::test_weights_are_shared_by_layers_of_one_type", "updatePeriod": "test_keys::test_updates_wait_for_their_period",
        "wball": "test_constraints::test_the_2012_program_limits_norms_by_wball_times_the_weights_of_a_filter",
        "superEps": "test_constraints::test_super_eps_divides_by_the_spread_of_the_gradient", "superMom": KNOBS,
    },
    "FilterLayer": {
        **dict.fromkeys(("filters", "filterSize", "stride", "padding", "groups"), LOCAL), "channels": CHANNELS,
        "randSparse": "test_local::test_a_group_reads_the_channels_that_it_is_connected_to", "filterChannels": "test_local::test_each_permutation_has_every_channel_once",
        "modulesX": "test_keys::test_modules_are_checked", "initCFunc": "test_initial::test_a_function_connects_groups_with_channels",
    },
    "Conv": {
        "sharedBiases": LOCAL, "partialSum": KNOBS, "sumWidth": KNOBS,
        **dict.fromkeys(("wcNormMin", "wcNormMax"), "test_constraints::test_spreads_are_limited_before_norms"),
    },
    "Local": {"wball": "test_constraints::test_local_layers_limit_the_filters_of_each_pixel"},
    "Fc": {"outputs": MESSAGE}, "SplitFc": {"parts": "test_fc::test_every_part_sees_its_part_of_the_input"},
    "TreeFc": {
        **dict.fromkeys(("epsW", "momW", "wc"), "test_tree::test_a_node_above_n_classes_goes_an_nth_of_the_way"),
        **dict.fromkeys(("wball", "superEps"), "test_tree::test_what_the_2012_program_does_not_do_to_a_tree"),
        **dict.fromkeys(("initWFunc", "weightSource"), "test_tree::test_what_the_2012_program_does_not_do_to_a_tree"),
    },
    "ImageLayer": {"channels": CHANNELS},
    "Blur": dict.fromkeys(("filterSize", "stdev"), ACTS), "Nailbed": {"stride": ACTS}, "Crop": dict.fromkeys(("sizeX", "startX", "startY"), ACTS),
    "Resize": {"scale": ACTS}, "RandomScale": dict.fromkeys(("maxScale", "tgtSize"), f"{IMAGE}test_rscale_cuts_the_middle_when_testing"),
    "Lab": {"center": ACTS},
    "ElementwiseSum": {"coeffs": "test_join::test_coeffs_stand_in_either_file"},
    "NeuronLayer": {"neuron": "test_neurons::test_gradients_agree_with_differences"},
    "Normalization": {
        **dict.fromkeys(("size", "scale", "pow"), f"{NORM}test_the_scale_is_divided_by_the_size_of_the_window"),
        "minDiv": f"{NORM}test_the_constant_is_1_where_the_config_says_nothing", "channels": CHANNELS, "blocked": f"{NORM}test_blocks_are_refused_within_a_map",
    },
    "CrossMapNorm": {"blocked": f"{NORM}test_gradients_are_right"},
    "Pool": {
        **dict.fromkeys(("pool", "sizeX", "stride", "start", "outputsX"), WINDOWS), "channels": CHANNELS, "sum": POOL,
        "doMax": "test_pool::test_do_max_is_max_pooling_in_every_phase",
    },
    "OwnKernels": {
        **dict.fromkeys(("source", "numbers"), f"{OWN}test_the_kernels_compute_what_they_say"),
        **dict.fromkeys(("outputs", "outputsX"), f"{OWN}test_the_shape_may_differ_and_a_gradient_is_added_to_others"),
    },
    "CrossMapPool": {**dict.fromkeys(("pool", "size", "stride", "start", "outputs"), POOL), "channels": CHANNELS},
}
# What the page of semantics says beside types and keys.
RULES = {
    "sizes rounded up; the last window of a convolution reads zeros": "test_plan::test_the_plan_of_the_papers_net_is_the_stored_one",
    "keys in any case, with or without underscores; sections are case-sensitive": "test_cfgfile::test_keys_match_in_any_case_and_without_underscores",
    "sections that appear twice merge, the later key wins": "test_cfgfile::test_a_section_that_comes_twice_merges_and_the_later_key_wins",
    "comments, delimiters, continued lines, no interpolation": "test_cfgfile::test_values",
    "`[DEFAULT]`": "test_cfgfile::test_default_gives_keys_to_every_section_and_own_keys_win",
    "an input is defined above; every layer is read": MESSAGE,
    "an unknown key is a warning with a suggestion": "test_config::test_warning_names_the_place",
    "`neuron=` makes a layer `<name>_neuron`": "test_config::test_neuron_becomes_a_layer_that_the_readers_read",
    "`initw.make...` take weights from `--init-from`": "test_initial::test_makew_takes_the_weights_of_a_layer_by_its_name",
    "schedules const, linear, exp, dexp, jdexp, with noiseStdev": "test_schedule::test_dexp_takes_the_rates_that_the_authors_set_by_hand",
    "schedules in the spellings of both programs": "test_schedule::test_the_dialects_agree",
    "positional schedules are read as meant, with a warning": "test_schedule::test_positional_parameters_are_read_as_meant_with_a_warning",
    f"old keys {', '.join(OLD_KEYS)}": "test_config::test_warning_names_the_place",
    "norm keys in the layers file, as before 2011": "test_config::test_a_normalization_of_before_2011_has_its_params_in_the_layers_file",
    "`--strict-legacy`": "test_config::test_strict_legacy_refuses_what_the_released_programs_refused",
    "wball of each program": "test_constraints::test_cuda_convnet2_sets_norms_to_wball",
    "several replicas, passes, updates in them": "test_replicas::test_a_hybrid_runs_the_passes_of_cuda_convnet2",
    "softmax under cost.logreg alone is one step": "test_plan::test_softmax_under_logistic_regression_alone_has_one_gradient",
    "logistic under cost.bce or crossent2 alone is one step": "test_costs::test_cross_entropy_over_a_logistic_neuron_alone_is_one_step",
    "ties in max-pooling and eltmax get the full gradient each": "test_join::test_equal_inputs_get_the_full_gradient_each",
    "every kind of config of the family loads, plans and trains a step": "test_family::test_a_pair_of_the_family_trains_a_step",
    "any text gives a net or a ConfigError, soon": "test_fuzz_config::test_mutated_pairs_are_nets_or_config_errors",
}


def test_of(cls: type[Layer], key: str) -> str:
    """The test of a key in a type; "": none."""
    return next((KEYS[base.__name__][key] for base in cls.__mro__ if key in KEYS.get(base.__name__, {})), "")


def keys_of(cls: type[Layer]) -> list[str]:
    return [spelled(field.name) for field in grammar(cls)[1].values()]


@cache
def is_there(test: str) -> bool:
    """Whether there is such a test, as test_pool::test_x."""
    file, _, name = test.partition("::")
    path = HERE / f"{file}.py"
    return path.is_file() and re.search(rf"^def {name}\(", path.read_text(), re.M) is not None


def missing() -> list[str]:
    """What has no test, and tests that are not there."""
    found = [f"{kind}: no test" for kind in LAYERS if kind not in TYPES] + [f"{kind}: no such type" for kind in TYPES if kind not in LAYERS]
    found += [f"{kind} {key}: no test" for kind, cls in LAYERS.items() for key in keys_of(cls) if not test_of(cls, key)]
    used = [*(test for tests in TYPES.values() for test in tests if test), *(test for keys in KEYS.values() for test in keys.values()), *RULES.values()]
    return found + [f"{test}: no such test" for test in dict.fromkeys(used) if not is_there(test)]


def page() -> str:
    common = keys_of(Layer)
    lines = ["# What shows that a config means what it meant", "",
             "Made by `python tests/key_table.py` from the table there; a test fails where a layer type or a key of it has none.", "",
             "## Layer types", "", "| type | its formula | its gradient, against differences |", "|---|---|---|",
             *(f"| {kind} | {formula} | {gradient or 'has none'} |" for kind, (formula, gradient) in TYPES.items()), "",
             *(f"{kind}: refused, {why}." for kind, why in REFUSED_TYPES.items()), "",
             f"{', '.join(KNOWN_TYPES)}: known and not built.", "",
             f"Neurons: {', '.join(PARAMETERS)}: test_neurons::test_gradients_agree_with_differences.", "",
             "## Keys", "", "| type | key | test |", "|---|---|---|",
             *(f"| every type | {key} | {KEYS['Layer'][key]} |" for key in common)]
    for cls in dict.fromkeys(LAYERS.values()):
        kinds = ", ".join(kind for kind, other in LAYERS.items() if other is cls)
        lines += [f"| {kinds} | {key} | {test_of(cls, key)} |" for key in keys_of(cls) if key not in common]
    lines += ["", "## Rules", "", "| rule | test |", "|---|---|", *(f"| {rule} | {test} |" for rule, test in RULES.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
