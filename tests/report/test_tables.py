from lorasweep.analysis.sensitivity.alternatives import Alternatives, LevelBest
from lorasweep.analysis.sensitivity.divergence import DivergedShare, Divergence
from lorasweep.report.tables import alternatives_table, diverged_table, noise_table


def test_a_column_without_a_value_is_left_out():
    row = Alternatives(
        hyperparameter="rank",
        levels=(LevelBest(level="4", n=3, is_close=True), LevelBest(level="8", n=0)),
        spread=0.1,
    )
    table = alternatives_table("lora", [row])
    assert table.heads == ("hyperparameter", "levels at 90%", "spread of the best", "90% interval")
    assert table.rows == (("rank", "4", "0.100", "n/a"),)


def test_levels_are_listed_where_any_trial_diverged():
    stable = DivergedShare(level="4", finished=9, diverged=0, share=0.0, low=0.0, high=0.2)
    lost = DivergedShare(level="8", finished=9, diverged=9, share=1.0, low=0.8, high=1.0)
    table = diverged_table("lora", Divergence(by_level={"rank": (stable, lost)}))
    assert [row[1] for row in table.rows] == ["4", "8"]
    assert diverged_table("lora", Divergence(by_level={"rank": (stable,)})).rows == ()


def test_an_empty_table_has_no_rows():
    assert noise_table(()).rows == ()
