from lorasweep.report.lanes import describe_lanes
from lorasweep.report.render import write_report
from lorasweep.store.journal import Journal
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import LaneEnded, StudyStarted
from lorasweep.store.results import load_results
from tests.folders import sweep_folder

DOMAINS = {"code": {"data": {"path": "c.jsonl"}}, "math": {"data": {"path": "m.jsonl"}}}


def lane(number, time, slots=2):
    return LaneEnded(lane=number, slots=slots, reason="as asked", occupancy=0.5, time=time)


def told(folder, *records):
    paths = SweepPaths(folder)
    with Journal(paths.journal, paths.lock) as journal:
        for record in records:
            journal.append(record)
    return describe_lanes(load_results(folder))


def study(domain, time, method="lora"):
    return StudyStarted(method=method, domain=domain, window=2, time=time)


def test_a_lane_is_told_with_its_study_where_there_are_several(tmp_path):
    folder = sweep_folder(tmp_path / "both", trials=2, domains=DOMAINS, methods={"lora": {}})
    rows = told(
        folder,
        study("code", 1),
        *(lane(0, 2), lane(1, 3)),
        study("math", 4),
        *(lane(0, 5, slots=4), lane(1, 6, slots=4)),
    )
    text = "slots on one base, as asked; 50% in use"
    assert rows == [
        ("Lane 0 (code/lora)", f"2 {text}"),
        ("Lane 1 (code/lora)", f"2 {text}"),
        ("Lane 0 (math/lora)", f"4 {text}"),
        ("Lane 1 (math/lora)", f"4 {text}"),
    ]
    paths = write_report(load_results(folder), folder / "report")
    for path in (paths.markdown, paths.page):
        assert "Lane 0 (math/lora)" in path.read_text(encoding="utf-8")


def test_a_later_session_goes_on_with_its_study(tmp_path):
    folder = sweep_folder(tmp_path / "both", trials=2, methods={"lora": {}, "full": {}})
    rows = told(
        folder,
        *(study("", 1), lane(0, 2)),
        *(study("", 3), lane(0, 4)),
        *(study("", 5, "full"), lane(0, 6)),
    )
    assert [name for name, _ in rows] == ["Lane 0 (lora)", "Lane 0 (full)"]


def test_a_sweep_of_one_study_needs_no_name_for_it(tmp_path):
    folder = sweep_folder(tmp_path / "one", trials=2)
    assert [name for name, _ in told(folder, study("", 1), lane(0, 2))] == ["Lane 0"]
