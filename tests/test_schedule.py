"""Learning-rate schedules (SEMANTICS 2.3); golden rates from the comments in A12's configs."""

import math

import numpy as np
import pytest

from convnet.schedule import parse_schedule, progress, split_list

A12 = "[tgtFactor=250,noiseStdev=0,numSteps=4]"
TENTHS = [i / 10 for i in range(11)]


def rates(text, base=None, at=TENTHS):
    schedule = parse_schedule(text, base)
    return [schedule.rate(p) for p in at]


@pytest.mark.parametrize("batches_done, expected", [
    (0, 0.0), (1, 0.0), (2, 0.01), (51, 0.5), (101, 1.0), (1000, 1.0),
])
def test_progress_counts_from_the_first_batch_and_is_clipped(batches_done, expected):
    assert progress(batches_done, epochs=20, batches_per_epoch=5) == expected


def test_progress_of_a_run_of_no_epochs_is_zero():
    assert progress(3, epochs=0, batches_per_epoch=5) == 0.0


@pytest.mark.parametrize("text, base", [
    ("0.001", None), ("1e-3", None), ("const[base=.001]", None), (".001", None),
    ("const", 0.001), ("default", 0.001), ("Default", 0.001),
])
def test_const_never_changes(text, base):
    assert rates(text, base) == [0.001] * 11


def test_linear_ends_at_base_over_factor():
    assert rates("linear[tgtFactor=4]", 0.8) == pytest.approx(
        [0.8 * (1 - p) + 0.2 * p for p in TENTHS], rel=1e-14)


def test_exp_falls_by_the_same_factor_at_each_step():
    assert rates("exp[tgtFactor=1000]", 0.1, [0, 1 / 3, 2 / 3, 1]) == pytest.approx(
        [0.1, 0.01, 0.001, 0.0001], rel=1e-14)


def test_exp_with_base_one_is_not_degenerate():
    assert rates("exp[tgtFactor=100]", 1.0, [0, 0.5, 1]) == pytest.approx([1, 0.1, 0.01])


def test_dexp_takes_the_rates_that_the_authors_set_by_hand():
    # layer-params-170.cfg: "set epsw to 0.0015874011 -- which is the correct one", 0.00025198421
    at = [0, 0.25, 0.2500001, 0.5, 0.5000001, 0.75, 0.7500001, 1]
    assert rates("dexp" + A12, 0.01, at) == pytest.approx(
        [0.01] * 2 + [0.0015874011] * 2 + [0.00025198421] * 2 + [0.00004] * 2, rel=1e-7)


def test_dexp_changes_exactly_after_i_plus_1_over_n():
    schedule = parse_schedule("dexp[base=1;tgtFactor=2;numSteps=49]")  # 1/49*49 < 1 in floats
    for i in range(48):
        edge = (i + 1) / 49
        assert schedule.rate(edge) == schedule.rate(edge - 1e-9)
        assert schedule.rate(math.nextafter(edge, 2)) < schedule.rate(edge)


def test_dexp_of_one_step_is_constant():
    assert rates("dexp[tgtFactor=250,numSteps=1]", 0.01) == [0.01] * 11


def test_jdexp_jumps_back_halfway_in_the_middle_of_a_step():
    # layer-params-170.cfg: "set epsw to 0.00063245555", the mean of the 2nd and the 3rd rate
    dexp, jdexp = (parse_schedule(kind + A12, 0.01) for kind in ("dexp", "jdexp"))
    assert jdexp.rate(0.625) == dexp.rate(0.625)
    assert jdexp.rate(0.63) == pytest.approx(0.00063245555, rel=1e-7)
    assert jdexp.rate(0.63) == pytest.approx(math.sqrt(dexp.rate(0.4) * dexp.rate(0.63)))


@pytest.mark.parametrize("p, jumps", [
    (0.2, False),    # the first step has no previous rate
    (0.3, False), (0.4, True), (0.6, False), (0.7, True), (0.8, False), (0.89, True), (0.9, False),
    (1.0, False),
])
def test_jdexp_jumps_only_inside_its_range(p, jumps):
    dexp, jdexp = (parse_schedule(kind + A12, 0.01) for kind in ("dexp", "jdexp"))
    assert (jdexp.rate(p) != dexp.rate(p)) == jumps


def test_jdexp_does_not_jump_before_a_fifth_of_the_run():
    many = "[tgtFactor=250,numSteps=20]"
    dexp, jdexp = (parse_schedule(kind + many, 0.01) for kind in ("dexp", "jdexp"))
    assert jdexp.rate(0.19) == dexp.rate(0.19)  # second half of the fourth step
    assert jdexp.rate(0.24) > dexp.rate(0.24)   # of the fifth


def test_the_dialects_agree():
    schedule = parse_schedule("dexp" + A12, 0.01)
    assert parse_schedule("dexp[base=0.01;tgtFactor=250;numSteps=4]") == schedule
    assert parse_schedule(" DEXP [ TGTFACTOR = 250 ; num_steps = 4.0 ] ", 0.01) == schedule


@pytest.mark.parametrize("positional, named", [
    ("dexp[500,4]", "dexp[tgtFactor=500,numSteps=4]"),
    ("dexp[250,0,4]", "dexp[tgtFactor=250,noiseStdev=0,numSteps=4]"),
    ("jdexp[1000,4]", "jdexp[tgtFactor=1000,numSteps=4]"),
    ("exp[1000]", "exp[tgtFactor=1000]"),
    ("linear[1000]", "linear[tgtFactor=1000]"),
    ("linear[10,1]", "linear[tgtFactor=10,noiseStdev=1]"),
])
def test_positional_parameters_are_read_as_meant_with_a_warning(positional, named):
    schedule = parse_schedule(positional, 0.01)
    assert schedule == parse_schedule(named, 0.01)
    assert schedule.warning == f"{positional}: parameters without names, read as {named}"
    assert parse_schedule(named, 0.01).warning == ""


def test_strict_legacy_refuses_positional_parameters_and_shows_the_named_form():
    with pytest.raises(ValueError, match=r"expected dexp\[tgtFactor=250,noiseStdev=0,numSteps=4\]"):
        parse_schedule("dexp[250,0,4]", 0.01, strict_legacy=True)
    assert parse_schedule("dexp" + A12, 0.01, strict_legacy=True).rate(1) == pytest.approx(4e-5)


@pytest.mark.parametrize("text, base, message", [
    ("dxep[tgtFactor=2,numSteps=4]", 0.1, "expected one of const, .*did you mean dexp"),
    ("", 0.1, "expected one of"),
    ("fast", None, "expected a number or one of"),
    ("0.01", 0.1, "expected one of"),                # a rate where A12 wants a schedule
    ("dexp[tgtFactor=2", 0.1, "expected one of"),
    ("-0.1", None, "0 or more"),
    ("const", -0.1, "0 or more"),
    ("const", math.nan, "0 or more"),
    ("const[base=1e999]", None, "finite"),
    ("const[base=ten]", None, "base rate=ten: expected a number"),
    ("dexp[tgtFactor=2;numSteps=4]", None, r"no base; expected dexp\[base=NUMBER;tgtFactor"),
    ("dexp[base=1;tgtFactor=2;numSteps=4]", 0.1, "base= inside"),
    ("dexp[tgtFactor=2]", 0.1, "no numSteps"),
    ("dexp", 0.1, "no tgtFactor"),
    ("exp[]", 0.1, "no tgtFactor"),
    ("exp[tgtFactor=0]", 0.1, "tgtFactor=0: expected a number above 0"),
    ("exp[tgtFactor=-2]", 0.1, "above 0"),
    ("exp[tgtFactor=1e-320]", 0.1, "not finite"),
    ("exp[tgtFactor=1e-320]", 1e-20, "not finite"),  # it overflows on the way to 1e300
    ("exp[tgtfactr=2]", 0.1, "no parameter tgtfactr.*did you mean tgtFactor"),
    ("exp[tgtFactor=2,numSteps=3]", 0.1, "exp has no parameter numSteps"),
    ("exp[tgtFactor=2,tgt_factor=3]", 0.1, "twice"),
    ("exp[tgtFactor=2,0.1]", 0.1, "has no name"),
    ("exp[tgtFactor=1_0]", 0.1, "expected a number"),
    ("exp[tgtFactor=2,noiseStdev=-1]", 0.1, "noiseStdev=-1: expected a number of 0 or more"),
    ("dexp[tgtFactor=2,numSteps=0]", 0.1, "whole number"),
    ("dexp[tgtFactor=2,numSteps=2.5]", 0.1, "whole number"),
    ("dexp[tgtFactor=2,numSteps=1e30]", 0.1, "whole number"),
    ("dexp[2]", 0.1, "1 parameters without names"),
    ("dexp[1,2,3,4]", 0.1, "4 parameters without names"),
    ("const[5]", 0.1, "without names"),
])
def test_a_bad_schedule_says_what_was_expected(text, base, message):
    with pytest.raises(ValueError, match=message):
        parse_schedule(text, base)


@pytest.mark.parametrize("text, base, falls", [
    ("0.1", None, False), ("const", 0.1, False),
    ("exp[tgtFactor=10]", 0.1, True), ("linear[tgtFactor=10]", 0.1, True),
    ("dexp" + A12, 0.1, True), ("jdexp" + A12, 0.1, True),
    ("dexp" + A12, 0.0, False),                 # frozen
    ("linear[tgtFactor=1,noiseStdev=1]", 0.1, False),
    ("dexp[tgtFactor=9,numSteps=1]", 0.1, False),
])
def test_falls_tells_whether_the_rate_depends_on_the_planned_epochs(text, base, falls):
    schedule = parse_schedule(text, base)
    assert schedule.falls == falls
    if not falls and not schedule.noise_stdev:
        assert schedule.rate(1.0) == schedule.base


def test_a_frozen_tensor_stays_frozen():
    assert rates("linear[1,1]", 0.0) == [0.0] * 11


@pytest.mark.parametrize("text", ["0.01", "exp[base=0.1;tgtFactor=3]", "linear[base=1;tgtFactor=2]",
                                  "jdexp[base=1e-05;tgtFactor=7;numSteps=3;noiseStdev=0.5]"])
def test_a_schedule_prints_as_it_parses(text):
    schedule = parse_schedule(text)
    assert parse_schedule(str(schedule)) == schedule


def test_noise_is_a_function_of_seed_name_and_step():
    def rate(name="conv1", step=1, seed=1):
        return parse_schedule("linear[tgtFactor=1,noiseStdev=1]", 0.1, name=name).rate(
            0.5, step=step, seed=seed)

    assert rate() == rate()
    assert len({rate(), rate(name="conv2"), rate(step=2), rate(seed=2),
                rate(seed=2**64 - 1), rate(seed=2**64 - 2)}) == 6
    # Pinned, and equal to Philox4x64-10 written out by hand: what a run draws must not change.
    assert rate() == pytest.approx(0.1892183523221054, rel=1e-12)


def test_noise_multiplies_by_one_plus_a_half_normal():
    schedule = parse_schedule("linear[tgtFactor=1,noiseStdev=2]", 0.1, name="conv1")
    z = np.array([(schedule.rate(0, step, seed=3) / 0.1 - 1) / 2 for step in range(4000)])
    assert z.min() >= 0
    # E|z| = sqrt(2/pi), E z^2 = 1; six standard errors of 4000 draws
    assert abs(z.mean() - math.sqrt(2 / math.pi)) < 6 * math.sqrt((1 - 2 / math.pi) / 4000)
    assert abs((z**2).mean() - 1) < 6 * math.sqrt(2 / 4000)


@pytest.mark.parametrize("text, items", [
    ("0.1", ["0.1"]),
    ("0.1, 0.2", ["0.1", "0.2"]),
    ("dexp[tgtFactor=2,numSteps=4],default", ["dexp[tgtFactor=2,numSteps=4]", "default"]),
    ("dexp[base=1;tgtFactor=2;numSteps=4], 0.1 ,exp[a,b]",
     ["dexp[base=1;tgtFactor=2;numSteps=4]", "0.1", "exp[a,b]"]),
    ("a,,b,", ["a", "", "b", ""]),
    (" ", []),
])
def test_commas_inside_brackets_do_not_divide_a_list(text, items):
    assert split_list(text) == items
