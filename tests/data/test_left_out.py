import pytest

from lorasweep.data.left_out import LeftOutRows, listed


def test_rows_are_counted_by_reason_and_the_first_ones_named():
    rows = LeftOutRows()
    for number in range(1, 8):
        rows.add("their response is empty", number)
    rows.add("they are too long", 9, "a.jsonl")
    assert rows.notes(1200) == [
        "7 of 1,200 rows were left out, because their response is empty "
        "(rows 1, 2, 3, 4, 5 and 2 more)",
        "1 of 1,200 rows was left out, because they are too long (row 9 of 'a.jsonl')",
    ]
    assert rows.total == 8
    assert LeftOutRows().notes(3) == []


@pytest.mark.parametrize(
    ("places", "count", "text"),
    [
        ([(4, "")], 1, " (row 4)"),
        ([(4, ""), (7, "")], 2, " (rows 4 and 7)"),
        ([(4, ""), (7, ""), (9, "")], 3, " (rows 4, 7 and 9)"),
        ([(4, "")], 3, " (rows 4 and 2 more)"),
        ([(4, "a"), (7, "a"), (1, "b")], 3, " (rows 4 and 7 of 'a' and row 1 of 'b')"),
        ([(4, "a"), (1, "b")], 9, " (row 4 of 'a', row 1 of 'b' and 7 more)"),
        ([(0, "")], 3, ""),
        ([], 3, ""),
    ],
)
def test_places_are_listed(places, count, text):
    assert listed(places, count) == text
