"""Whether a method's learning rate was searched to where its learning falls again."""

from __future__ import annotations

from lorasweep.analysis.sensitivity.peak import FEWEST_LRS, are_rates
from lorasweep.analysis.table import Row, Table


def unsettled(table: Table, who: str) -> str | None:
    """Say that a method may do better beyond the learning rates that were tried, or None.

    Methods are compared at their best. One whose best lies at the end of what was tried has not
    been searched to its best, and being behind says nothing. Rates that were stopped early or
    diverged count as tried; a few rates, set by hand, count as chosen.
    """
    scored = [row for row in table.rows if row.learning is not None]
    if not scored or not are_rates(table):
        return None
    tried = sorted({_rate(row) for row in table.rows})
    if len(tried) < FEWEST_LRS:
        return None
    best = _rate(max(scored, key=lambda row: row.learning or 0.0))
    ends = {tried[0]: "lowest", tried[-1]: "highest"}
    if best not in ends:
        return None
    return (
        f"{who} learns most at lr {best:.3g}, the {ends[best]} that was tried, and may learn more "
        "beyond"
    )


def _rate(row: Row) -> float:
    return float(row.levels["lr"])
