"""The suite finds devices that say of themselves what is not so, and takes what they refuse."""

from __future__ import annotations

from tests.conformance.planted import INFO, FaultyDevice

from hotplug.backend import YES, no
from hotplug.testing.conformance import BEHAVIOURS, Outcome, case_groups, check, check_behaviour
from hotplug.testing.reference import ReferenceDevice


class Shy(ReferenceDevice):
    def supports(self, node):
        return no("only adds") if node.op == "mul" else super().supports(node)


def test_what_a_device_does_not_support_is_skipped_with_its_reason():
    results = [check(Shy(INFO), case) for case in case_groups(slow=False)["mul"]]

    assert {result.outcome for result in results} == {Outcome.SKIPPED}
    assert all("only adds" in result.reason for result in results)


class Boaster(ReferenceDevice):
    def supports(self, node):
        return YES


def test_a_yes_that_is_not_true_is_found():
    result = check_behaviour(Boaster(INFO), "supports_never_raises")

    assert result.outcome is Outcome.FAILED


class Raising(ReferenceDevice):
    def supports(self, node):
        raise KeyError(node.op)


def test_supports_that_raises_is_found():
    result = check_behaviour(Raising(INFO), "supports_never_raises")

    assert result.outcome is Outcome.FAILED
    assert "KeyError" in result.reason


def test_a_mismatch_says_where_and_by_how_much():
    device = FaultyDevice(lambda node, operands, v: v + 1 if node.op == "neg" else v)
    case = next(c for c in case_groups(slow=False)["neg"] if c.name == "neg/f32/(33,)")

    result = check(device, case)

    assert "output 'y' f32[33]: 33 of 33 elements are wrong, first at [0]" in result.reason
    assert "allowed error 0" in result.reason


class KnowsFewOps(ReferenceDevice):
    def supports(self, node):
        known = node.is_leaf or node.op == "add"
        return super().supports(node) if known else no("it only adds")


def test_a_device_of_few_ops_is_not_held_to_others():
    device = KnowsFewOps(INFO)
    results = {name: check_behaviour(device, name) for name in BEHAVIOURS}

    assert [result for result in results.values() if result.outcome is Outcome.FAILED] == []
    skipped = {name for name, r in results.items() if r.outcome is Outcome.SKIPPED}
    assert skipped == {"results_are_the_same_every_time"}
    assert "it only adds" in results["results_are_the_same_every_time"].reason
