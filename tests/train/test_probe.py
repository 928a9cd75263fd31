from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorasweep.train.probe import CYCLES, SlotChoice, SlotProbe, choose_slots

TRIALS = [f"trial {number}" for number in range(8)]


@pytest.mark.parametrize(
    ("speeds", "slots"),
    [
        ({1: 100}, 1),
        ({1: 100, 2: 109, 4: 109}, 1),  # under a tenth more
        ({1: 100, 2: 110, 4: 110}, 2),
        ({1: 100, 2: 180, 4: 200, 8: 201}, 4),  # within a twentieth of the best
        ({1: 100, 2: 191, 4: 200, 8: 201}, 2),
        ({1: 100, 2: 190, 4: 200}, 2),  # exactly a twentieth
        ({1: 100, 2: 189, 4: 200}, 4),
        ({1: 100, 2: 105, 4: 300, 8: 250}, 4),  # the most are not the best
        ({1: 100, 2: 90, 4: 80}, 1),
        ({1: 107, 2: 110, 4: 112}, 1),
    ],
)
def test_the_fewest_slots_near_the_best_speed_are_chosen(speeds: dict[int, float], slots: int):
    choice = choose_slots(speeds)
    assert choice.slots == slots
    assert choice.tokens_per_s == speeds
    assert choice.reason


def test_a_choice_has_its_reason():
    assert choose_slots({1: 100, 2: 104}).reason == "packing gains 4% at most, under 10%"
    assert choose_slots({1: 100, 2: 260, 4: 262}).reason == (
        "2 slots train 2.60 times as many tokens a second as 1"
    )


@given(st.dictionaries(st.sampled_from([2, 4, 8, 16]), st.floats(1, 1e6)), st.floats(1, 1e6))
def test_several_slots_are_chosen_only_if_packing_pays(rest: dict[int, float], alone: float):
    speeds = {1: alone, **rest}
    choice = choose_slots(speeds)
    best = max(speeds.values())
    if choice.slots == 1:
        assert best < 1.1 * alone or alone >= 0.95 * best
    else:
        assert speeds[choice.slots] >= 0.95 * best
        assert all(speeds[n] < 0.95 * best for n in speeds if n < choice.slots)


def probed(
    trials: list[str], most: int, seconds: Callable[[int], float] = lambda _: 1.0
) -> tuple[SlotChoice, list[list[str]]]:
    """Train 10 tokens a step with every trial; return the choice and the groups that trained."""
    probe = SlotProbe(trials, most)
    groups = []
    while probe.choice is None:
        group = list(probe.group)
        groups.append(group)
        probe.record(10 * len(group), seconds(len(group)))
    return probe.choice, groups


def sizes(groups: Iterable[list[str]]) -> list[int]:
    return [len(group) for group in groups]


def test_every_size_is_measured_on_the_same_trials():
    choice, groups = probed(TRIALS, 8)
    assert sizes(groups) == ([1] * 8 + [2] * 4 + [4] * 2 + [8]) * CYCLES
    for size in (1, 2, 4, 8):
        trained = [trial for group in groups if len(group) == size for trial in group]
        assert trained == TRIALS * CYCLES
    assert choice.tokens_per_s == {1: 10, 2: 20, 4: 40, 8: 80}
    assert choice.slots == 8


def test_the_first_round_of_a_size_warms_up_and_is_not_measured():
    probe = SlotProbe(TRIALS[:2], 2)
    seen: dict[int, int] = {}
    while probe.choice is None:
        size = len(probe.group)
        seen[size] = seen.get(size, 0) + 1
        first = seen[size] <= 2 // size
        probe.record(10 * size, 0.001 if first else 1.0)
    assert probe.choice.tokens_per_s == {1: 10, 2: 20}


@pytest.mark.parametrize("busy", [1, 2])
def test_a_temporary_load_on_the_machine_does_not_change_the_choice(busy: int):
    probe = SlotProbe(TRIALS[:2], 2)
    steps = 0
    while probe.choice is None:
        cycle, steps = steps // 3, steps + 1
        probe.record(10 * len(probe.group), len(probe.group) * (5.0 if cycle == busy else 1.0))
    assert probe.choice.tokens_per_s == {1: 10, 2: 10}


def test_one_slot_is_chosen_if_time_grows_with_the_tokens():
    choice, _ = probed(TRIALS, 8, lambda size: size * 1.0)
    assert (choice.slots, choice.reason) == (1, "packing gains 0% at most, under 10%")


def test_the_fewest_slots_are_chosen_if_speed_levels_off():
    choice, _ = probed(TRIALS, 8, lambda size: max(1.0, size / 4))
    assert choice.slots == 4


@pytest.mark.parametrize(
    ("count", "most", "largest"), [(8, 4, 4), (8, 7, 4), (5, 8, 4), (3, 8, 2), (2, 2, 2)]
)
def test_no_size_beyond_the_slots_or_the_trials_is_tried(count: int, most: int, largest: int):
    choice, groups = probed(TRIALS[:count], most)
    assert max(sizes(groups)) == max(choice.tokens_per_s) == largest
    for trial in TRIALS[:count]:
        trained = sum(trial in group for group in groups)
        assert trained == CYCLES * len(choice.tokens_per_s)  # a rest that fills no group, too


@pytest.mark.parametrize(("count", "most"), [(1, 8), (8, 1), (1, 1)])
def test_nothing_is_measured_with_one_trial_or_one_slot(count: int, most: int):
    choice = SlotProbe(TRIALS[:count], most).choice
    assert choice == SlotChoice(1, {}, "too few trials at once to share a base")


def test_running_out_of_memory_ends_the_probe_with_the_speeds_known_so_far():
    probe = SlotProbe(TRIALS, 8)
    while len(probe.group) < 4:
        probe.record(10 * len(probe.group), 1.0)
    assert probe.choice is None
    probe.stop()
    assert probe.choice is not None
    assert probe.choice.tokens_per_s == {1: 10, 2: 20}
    assert probe.choice.slots == 2


def test_running_out_of_memory_at_once_leaves_one_slot():
    probe = SlotProbe(TRIALS, 8)
    probe.record(10, 1.0)
    probe.stop()
    assert probe.choice == SlotChoice(1, {}, "memory holds one trial at a time")


@pytest.mark.parametrize("groups", range(3))
@pytest.mark.parametrize("cycles", range(CYCLES))
def test_a_size_that_runs_out_of_memory_midway_is_not_chosen(cycles: int, groups: int):
    probe = SlotProbe(TRIALS[:6], 3)
    for _ in range(cycles * (6 + 3) + 6 + groups):
        probe.record(10 * len(probe.group), 1.0 if len(probe.group) == 1 else 0.001)
    assert probe.choice is None
    probe.stop()
    assert probe.choice is not None
    assert probe.choice.tokens_per_s == {1: 10}
    assert probe.choice.slots == 1
