import datetime as dt
from decimal import Decimal

import datasets
import pyarrow as pa
import pytest

from lorasweep.data.cells import refuse_types, text_of
from lorasweep.errors import DataError


def features_of(column: pa.Array) -> datasets.Features:
    return datasets.Dataset(pa.table({"answer": column})).features


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (pa.array([" NA\r\n"]), " NA\r\n"),
        (pa.array(["a"], pa.large_string()), "a"),
        (pa.array(["a"]).dictionary_encode(), "a"),
        (pa.array([7], pa.uint8()), "7"),
        (pa.array([-(2**63)]), "-9223372036854775808"),
        (pa.array([Decimal("1.10")]), "1.10"),
        (pa.array([Decimal("100")], pa.decimal128(10, -2)), "100"),
        (pa.array([None]), ""),
        (pa.array([None], pa.string()), ""),
    ],
)
def test_text_whole_numbers_and_decimals_have_one_text(column, text):
    refuse_types(features_of(column), "answer")
    assert text_of(column[0].as_py(), "answer", 1) == text


MOMENT = dt.datetime(2024, 5, 1, 10, 0, 5)


@pytest.mark.parametrize(
    ("column", "got", "kind"),
    [
        (pa.array([0.5]), "a float in row 3 (0.5)", "float64"),
        (pa.array([1.0], pa.float16()), "a float in row 3 (1.0)", "float16"),
        (pa.array([True]), "a bool in row 3 (True)", "bool"),
        (pa.array([MOMENT.date()]), "a date in row 3 (2024-05-01)", "date32"),
        (pa.array([MOMENT]), "a datetime in row 3 (2024-05-01 10:00:05)", "timestamp[us]"),
        (pa.array([MOMENT.time()]), "a time in row 3 (10:00:05)", "time64[us]"),
        (pa.array([dt.timedelta(1)]), "a timedelta in row 3 (1 day, 0:00:00)", "duration[us]"),
        (pa.array([b"a"]), "bytes in row 3 (b'a')", "binary"),
        (pa.array([["a"]]), "a list in row 3 (['a'])", "lists or objects"),
        (pa.array([{"a": "b" * 99}]), "a dict in row 3 ({'a': 'bbb", "lists or objects"),
    ],
)
def test_what_has_no_one_text_is_refused_by_value_and_by_type(column, got, kind):
    with pytest.raises(DataError) as caught:
        text_of(column[0].as_py(), "answer", 3)
    assert str(caught.value).startswith(f"data: column 'answer' must hold text, got {got}")
    with pytest.raises(DataError) as caught:
        refuse_types(features_of(column), "answer")
    sentence = str(caught.value)
    assert sentence.startswith(f"data: column 'answer' must hold text, got {kind} from row 1 on; ")
    fix = "name another column with" if kind == "lists or objects" else "cast the column to strings"
    assert fix in sentence
