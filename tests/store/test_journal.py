import contextlib
import io
import json
import multiprocessing
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorasweep.errors import JournalError, LorasweepError, UsageError
from lorasweep.spec.trial import LoraHyperparameters, canonical_json
from lorasweep.store import journal
from lorasweep.store.journal import Journal, decode, encode
from lorasweep.store.migrate import FORMAT, migrate
from lorasweep.store.records import (
    RECORD,
    BaseMeasured,
    Record,
    Rung,
    SessionChanged,
    StudyStarted,
    SweepStarted,
    TrialFinished,
    TrialStarted,
)
from lorasweep.store.results import fold_trials
from lorasweep.store.scores import Scores

RECORDS: list[Record] = [
    SweepStarted(name="s", identity="abc", data="def", time=1.5),
    SessionChanged(state="started", time=2.0, trials_planned=3, note="größer"),
    TrialStarted(
        trial="t1",
        number=0,
        stage="search",
        seed=0,
        configuration=LoraHyperparameters(lr=1e-05),
        time=3.0,
    ),
]
LAST: Record = TrialFinished(
    trial="t1",
    status="COMPLETE",
    number=0,
    stage="search",
    seed=0,
    configuration=LoraHyperparameters(lr=1e-05),
    learning=0.25,
    rungs=(Rung(percent=25, step=4, response_loss=1.0),),
    tasks={"math": 0.25},
    time=4.0,
)

times = st.floats(0, 2e9)
configurations = st.builds(
    LoraHyperparameters,
    lr=st.floats(1e-9, 1),
    rank=st.integers(1, 999),
    alpha=st.sampled_from(["2r", 32.0, "rslora:8"]),
)
measured = st.none() | st.floats()
rungs = st.builds(Rung, percent=st.integers(1, 99), step=st.integers(0), response_loss=measured)
scores = st.builds(Scores, learning=measured, tasks=st.dictionaries(st.text(), st.floats()))
records: st.SearchStrategy[Record] = st.one_of(
    st.builds(SweepStarted, name=st.text(), identity=st.text(), data=st.text(), time=times),
    st.builds(
        SessionChanged,
        state=st.sampled_from(["started", "complete", "interrupted", "failed"]),
        time=times,
        note=st.none() | st.text(),
        reason=st.none() | st.text(),
    ),
    st.builds(BaseMeasured, scores=scores, wall_s=times),
    st.builds(
        TrialStarted,
        trial=st.text(),
        number=st.integers(0),
        stage=st.sampled_from(["search", "confirm"]),
        seed=st.integers(0),
        configuration=configurations,
        time=times,
    ),
    st.builds(
        TrialFinished,
        trial=st.text(),
        status=st.sampled_from(["COMPLETE", "PRUNED", "DIVERGED", "FAILED"]),
        number=st.integers(0),
        stage=st.just("search"),
        seed=st.integers(0),
        configuration=configurations,
        learning=measured,
        forgetting=measured,
        tasks=st.dictionaries(st.text(), st.floats()),
        rungs=st.lists(rungs, max_size=2).map(tuple),
        error=st.none() | st.text(),
        time=times,
    ),
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sweep" / "journal.jsonl"


def open_journal(path: Path) -> Journal:
    return Journal(path, path.with_name("driver.lock"))


@pytest.fixture
def written(path):
    with open_journal(path) as writer:
        for record in [*RECORDS, LAST]:
            writer.append(record)
    return path


@settings(deadline=None)
@given(records)
def test_every_record_is_one_line_and_read_back_to_the_same_value(record):
    line = encode(record)
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert decode(line) == record
    assert encode(decode(line)) == line


def test_what_is_appended_is_read_while_the_writer_continues(path):
    with open_journal(path) as writer:
        assert journal.read(path) == []
        for count, record in enumerate(RECORDS, start=1):
            writer.append(record)
            assert journal.read(path) == RECORDS[:count] == writer.records
    with open_journal(path) as writer:
        assert writer.records == RECORDS
        assert writer.repaired_bytes == 0
        writer.append(LAST)
    assert journal.read(path) == [*RECORDS, LAST]


def test_a_line_that_is_completed_while_it_is_read_is_no_damage(path, monkeypatch):
    first, second = (encode(record).encode() for record in RECORDS[:2])

    class Watched(io.FileIO):
        """File to which the writer appends whenever a reader reaches the end."""

        def readinto(self, buffer):
            if count := super().readinto(buffer):
                return count
            os.pwrite(self.fileno(), second[20:] + first, self.tell())
            return 0

        def readall(self):
            content = super().readall()
            os.pwrite(self.fileno(), second[20:] + first, self.tell())
            return content

    def watch(path: Path, mode: str = "r") -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(Watched(path, "r+"))

    path.parent.mkdir()
    path.write_bytes(first + second[:20])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", watch)
        assert journal.read(path) == RECORDS[:1]
    assert journal.read(path) == [*RECORDS[:2], RECORDS[0]]


def test_a_journal_that_is_not_there_has_no_records(path):
    assert journal.read(path) == []


def test_a_last_line_torn_anywhere_is_cut_off_and_the_next_append_is_intact(written):
    whole = written.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(whole)):
        written.write_bytes(whole[:cut])
        assert journal.read(written) == RECORDS
        assert written.stat().st_size == cut  # a reader repairs nothing
        with open_journal(written) as writer:
            assert writer.records == RECORDS
            assert writer.repaired_bytes == cut - start
            writer.append(LAST)
        assert written.read_bytes() == whole


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_byte_changed_anywhere_is_noticed(tmp_path_factory, data):
    whole = "".join(map(encode, [*RECORDS, LAST])).encode()
    position = data.draw(st.integers(0, len(whole) - 1), label="position")
    byte = data.draw(st.integers(0, 255), label="byte")
    path = tmp_path_factory.getbasetemp() / "changed.jsonl"
    path.write_bytes(whole[:position] + bytes([byte]) + whole[position + 1 :])
    line = whole[:position].count(b"\n") + 1
    if byte == whole[position] or (whole[position : position + 1], byte) == (b"e", ord("E")):
        with contextlib.suppress(JournalError):  # 1E-05 means what 1e-05 does
            assert journal.read(path) == [*RECORDS, LAST]
    elif position == len(whole) - 1:
        assert journal.read(path) == RECORDS  # without its end, the last line is torn
    else:
        with pytest.raises(JournalError, match=re.escape(f"{path}, line {line}:")):
            journal.read(path)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("damage", [b"", b"{}", b"null", b"half a li", b'{"crc": 3}', b"\xff\xff"])
def test_damage_before_the_last_line_names_file_and_line_and_changes_nothing(
    written, number, damage
):
    lines = written.read_bytes().splitlines()
    lines[number - 1] = damage
    content = b"\n".join(lines) + b"\n"
    written.write_bytes(content)
    with pytest.raises(JournalError, match=rf"journal\.jsonl, line {number}: .* damaged") as caught:
        journal.read(written)
    assert "\n" not in str(caught.value)
    with pytest.raises(JournalError, match=f"line {number}"), open_journal(written):
        pass
    assert written.read_bytes() == content


def test_a_whole_last_line_that_was_changed_is_damage_and_no_tear(written):
    written.write_bytes(written.read_bytes().replace(b'"learning":0.25', b'"learning":0.95'))
    with pytest.raises(JournalError, match=r"line 4: the journal is damaged .wrong checksum"):
        journal.read(written)


def test_the_lock_is_free_again_after_damage_was_found(written):
    whole = written.read_bytes()
    written.write_bytes(b"damage\n" + whole)
    with pytest.raises(JournalError), open_journal(written):
        pass
    written.write_bytes(whole)
    with open_journal(written) as writer:
        assert writer.records == [*RECORDS, LAST]


def of_format(version: object) -> str:
    content = {**json.loads(encode(LAST)), "format": version}
    del content["crc"]
    return canonical_json({**content, "crc": journal._checksum(content)}) + "\n"


def test_a_later_format_is_named_as_such_and_is_no_damage(written):
    written.write_text(written.read_text() + of_format(FORMAT + 1))
    rule = f"line 5: the journal must be of format {FORMAT} or earlier, got format {FORMAT + 1}"
    with pytest.raises(JournalError, match=rule) as caught:
        journal.read(written)
    assert "damaged" not in str(caught.value)
    assert str(caught.value).endswith("which a later lorasweep wrote; update lorasweep")


def whole(**fields: object) -> str:
    """One line with a correct checksum, whatever is in it."""
    content: dict[str, object] = {"format": FORMAT, **fields}
    return canonical_json({**content, "crc": journal._checksum(content)}) + "\n"


@pytest.mark.parametrize(
    ("fields", "got"),
    [
        ({"record": "session", "state": "complete", "time": 1.0, "mood": "good"}, "'session.mood'"),
        ({"record": "weather", "time": 1.0}, "'weather'"),
    ],
)
def test_what_a_later_version_added_to_this_format_is_no_damage(written, fields, got):
    written.write_text(written.read_text() + whole(**fields))
    number = len(written.read_text().splitlines())
    with pytest.raises(JournalError, match=rf"line {number}: .*got .*{got}.*update lorasweep$"):
        journal.read(written)


def test_a_whole_line_with_a_value_that_cannot_be_names_field_and_value(written):
    written.write_text(whole(record="session", state="asleep", time=1.0))
    with pytest.raises(JournalError, match=r"line 1: session\.state .*got 'asleep'; restore"):
        journal.read(written)


@pytest.mark.parametrize("version", [None, "2", 0, -1])
def test_a_format_that_is_no_version_is_damage(written, version):
    written.write_text(written.read_text() + of_format(version))
    with pytest.raises(JournalError, match=r"line 5: the journal is damaged"):
        journal.read(written)


def recorded(version: int) -> Path:
    """Some records of a testbed sweep, in one format of the journal."""
    return Path(__file__).parents[1] / "data" / f"journal-format-{version}.jsonl"


@pytest.mark.parametrize("version", range(1, FORMAT + 1))
def test_a_recorded_journal_of_every_format_folds_to_the_same_results(version):
    records = journal.read(recorded(version))
    assert records == journal.read(recorded(FORMAT))
    assert [r.window for r in records if isinstance(r, StudyStarted)] == [5]
    trials = fold_trials(records)
    assert [(t.trial, t.status, t.stage, t.learning) for t in trials] == [
        ("71b6ec2bbe", "COMPLETE", "search", 0.60625),
        ("daf50a9bec", "COMPLETE", "search", 0.275),
        ("aa49ac0ec6", "PRUNED", "search", None),
        ("150bc73724", "COMPLETE", "confirm", 0.5875),
    ]


def test_a_folder_of_an_earlier_format_continues_in_the_current_one(path):
    path.parent.mkdir()
    path.write_bytes(recorded(1).read_bytes())
    earlier = journal.read(path)
    with open_journal(path) as writer:
        assert writer.records == earlier
        writer.append(LAST)
    assert journal.read(path) == [*earlier, LAST]
    formats = [json.loads(line)["format"] for line in path.read_text().splitlines()]
    assert formats == [1] * len(earlier) + [FORMAT]


def test_a_window_that_an_early_session_recorded_is_read():
    early = {"record": "session", "state": "started", "time": 1.0, "max_concurrent": 5}
    session = RECORD.validate_python(migrate(early, 1))
    assert session == SessionChanged(state="started", time=1.0, window=5)


def test_a_second_writer_is_refused_until_the_first_has_ended(path):
    with (
        open_journal(path) as first,
        pytest.raises(UsageError, match="another lorasweep is running this sweep"),
        open_journal(path),
    ):
        pass
    first_records = first.records
    with open_journal(path) as second:
        second.append(LAST)
    assert first_records == []
    assert journal.read(path) == [LAST]


def _second_writer(path: Path) -> None:
    try:
        with open_journal(path):
            pass
    except UsageError:
        raise SystemExit(7) from None


def test_a_second_writer_in_another_process_is_refused(path):
    second = multiprocessing.get_context("spawn").Process(target=_second_writer, args=(path,))
    with open_journal(path):
        second.start()
        second.join()
    assert second.exitcode == 7


def _write_and_fail(writer: Journal) -> None:
    writer.append(RECORDS[0])
    raise KeyboardInterrupt


def test_the_lock_is_released_when_the_driver_fails(path):
    with pytest.raises(KeyboardInterrupt), open_journal(path) as writer:
        _write_and_fail(writer)
    with open_journal(path) as writer:
        assert writer.records == RECORDS[:1]


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file of this process grow further, as a disk would that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 40])
def test_a_record_without_room_leaves_the_journal_as_it_was_and_may_be_tried_again(path, room):
    with open_journal(path) as writer:
        for record in RECORDS:
            writer.append(record)
        before = path.read_bytes()
        with (
            files_of_at_most(len(before) + room),
            pytest.raises(
                LorasweepError, match=r"the journal cannot be written \(File too large\)"
            ),
        ):
            writer.append(LAST)
        assert path.read_bytes() == before
        assert writer.records == RECORDS
        writer.append(LAST)
    assert journal.read(path) == [*RECORDS, LAST]


def test_a_journal_that_is_restarted_has_only_what_follows(path):
    with open_journal(path) as writer:
        writer.append(RECORDS[0])
        writer.restart()
        writer.append(RECORDS[1])
    assert journal.read(path) == [RECORDS[1]]


def test_a_score_that_is_not_finite_is_written_as_not_measured():
    record = BaseMeasured(
        scores=Scores(learning=float("nan"), tasks={"a": float("inf"), "b": 0.5}), wall_s=1.0
    )
    assert decode(encode(record)) == BaseMeasured(scores=Scores(tasks={"b": 0.5}), wall_s=1.0)
