"""What the lanes of a sweep were, and whose trials each of them held."""

from __future__ import annotations

from lorasweep.report.wording import percent
from lorasweep.store.records import LaneEnded
from lorasweep.store.results import SweepResults


def describe_lanes(results: SweepResults) -> list[tuple[str, str]]:
    """Say of each lane how many trials shared its base, and why; what recurs is said once."""
    several = results.spec is not None and len(results.spec.studies) > 1
    rows: dict[tuple[str, str], None] = {}
    for lane in results.lanes:
        of = f" ({lane.study})" if several and lane.study else ""
        rows[f"Lane {lane.ended.lane}{of}", _told(lane.ended)] = None
    return list(rows)


def _told(lane: LaneEnded) -> str:
    speeds = ", ".join(f"{speed:,.0f} with {n}" for n, speed in lane.tokens_per_s.items())
    measured = f" (tokens a second: {speeds})" if speeds else ""
    busy = "" if lane.occupancy is None else f"; {percent(lane.occupancy)} of them were filled"
    slots = "1 slot" if lane.slots == 1 else f"{lane.slots} slots"
    return f"{slots} on one base, {lane.reason}{measured}{busy}"
