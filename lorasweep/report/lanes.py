"""Lanes of a sweep: how many trials shared each base, and why."""

from __future__ import annotations

from lorasweep.report.wording import percent
from lorasweep.store.records import LaneEnded
from lorasweep.store.results import SweepResults


def describe_lanes(results: SweepResults) -> list[tuple[str, str]]:
    """Describe each lane in a pair of words; equal descriptions appear once."""
    several = results.spec is not None and len(results.spec.studies) > 1
    rows: dict[tuple[str, str], None] = {}
    for lane in results.lanes:
        of = f" ({lane.study})" if several and lane.study else ""
        rows[f"Lane {lane.ended.lane}{of}", _describe(lane.ended)] = None
    return list(rows)


def _describe(lane: LaneEnded) -> str:
    speeds = ", ".join(f"{speed:,.0f} with {n}" for n, speed in lane.tokens_per_s.items())
    measured = f" (tokens a second: {speeds})" if speeds else ""
    busy = "" if lane.occupancy is None else f"; {percent(lane.occupancy)} in use"
    slots = "1 slot" if lane.slots == 1 else f"{lane.slots} slots"
    return f"{slots} on one base, {lane.reason}{measured}{busy}"
