"""Sweeps submitted to a cluster as Ray jobs; a real head is started once, with a token."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lorasweep.errors import ResourceError, SpecError
from lorasweep.service import jobs
from lorasweep.service.jobs import submit_sweep
from lorasweep.spec.file import read_yaml
from lorasweep.spec.sweep import parse_sweep
from tests.conftest import TOKEN, RayCluster, free_port

SPEC = parse_sweep({"name": "study", "space": {"lr": True}})


class FakeStatus(str):
    def is_terminal(self) -> bool:
        return self in {"SUCCEEDED", "FAILED", "STOPPED"}


class FakeClient:
    """Client that records the submitted job and reports these statuses in turn."""

    def __init__(self, *statuses: str, interrupted: bool = False) -> None:
        self.statuses = [FakeStatus(status) for status in statuses]
        self.interrupted = interrupted
        self.job: dict[str, Any] = {}

    def submit_job(self, **job: Any) -> str:
        folder = Path(job["runtime_env"]["working_dir"])
        files = {file.name: read_yaml(file) for file in folder.iterdir()}
        self.job = {**job, "files": files}
        return str(job["submission_id"])

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        assert job == self.job["submission_id"]
        yield "a line\n"
        if self.interrupted:
            raise KeyboardInterrupt

    def get_job_status(self, _job: str) -> FakeStatus:
        return self.statuses.pop(0)


@pytest.fixture
def submitted(monkeypatch):
    """Submit to a client that reports these statuses; returns the exit code and the job."""
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)

    def submit(*statuses: str, folder: str = "results/study", interrupted: bool = False):
        client = FakeClient(*statuses, interrupted=interrupted)
        monkeypatch.setattr(jobs, "_connect", lambda _address: client)
        code = jobs.submit_sweep(SPEC, Path(folder), "http://head:8265")
        return SimpleNamespace(code=code, **client.job)

    return submit


@pytest.mark.ray
def test_a_cluster_without_a_dashboard_is_named_with_the_way_that_works(ray_cluster, monkeypatch):
    port = ray_cluster.address.rpartition(":")[2]
    monkeypatch.setattr(jobs, "CLUSTER_PORT", int(port))
    with pytest.raises(ResourceError) as raised:
        jobs.submit_sweep(SPEC, Path("out"), f"http://127.0.0.1:{free_port()}")
    assert "no Ray dashboard answers at 'http://127.0.0.1:" in str(raised.value)
    assert f"a cluster without one seems to run at 127.0.0.1:{port}; " in str(raised.value)
    assert str(raised.value).endswith(f"--address 127.0.0.1:{port} drives the sweep from here")


def test_only_the_sweep_travels(submitted):
    job = submitted("SUCCEEDED")
    assert list(job.files) == ["sweep.yaml"]
    assert parse_sweep(job.files["sweep.yaml"]) == SPEC
    assert job.metadata == {"job_name": "lorasweep study"}
    assert job.submission_id.startswith("lorasweep-study-")


@pytest.mark.parametrize(
    ("folder", "word"), [("results/study", "results/study"), ("/data/my runs", "'/data/my runs'")]
)
def test_the_command_names_the_folder_for_a_shell(submitted, folder, word):
    job = submitted("SUCCEEDED", folder=folder)
    assert job.entrypoint.endswith(f'lorasweep tune "$sweep" --out {word} --address auto')


def test_the_job_merges_where_that_was_asked_for():
    assert jobs._entrypoint(Path("out"), merge=True).endswith("--out out --address auto --merge")
    full = parse_sweep({"methods": {"full": {}}, "space": {"lr": True}})
    with pytest.raises(SpecError, match=r"^--merge: must come with a LoRA study"):
        submit_sweep(full, Path("out"), "http://head:8265", merge=True)


@pytest.mark.parametrize(
    ("statuses", "code"),
    [(["SUCCEEDED"], 0), (["RUNNING", "SUCCEEDED"], 0), (["FAILED"], 1), (["STOPPED"], 1)],
)
def test_the_exit_code_is_the_job_s(submitted, capsys, statuses, code):
    job = submitted(*statuses)
    assert job.code == code
    assert "a line\n" in capsys.readouterr().out


def test_an_interrupt_leaves_the_job_and_says_how_to_stop_it(submitted, capsys):
    job = submitted(interrupted=True)
    assert job.code == 130
    stop = f"ray job stop --address http://head:8265 {job.submission_id}"
    assert stop in capsys.readouterr().out


def test_silence_is_one_sentence():
    with pytest.raises(ResourceError, match=r"^--address: no Ray dashboard answers at 'http://127"):
        jobs.submit_sweep(SPEC, Path("results"), f"http://127.0.0.1:{free_port()}")


def environment(token: str | None = TOKEN) -> dict[str, str]:
    """Build a process environment with this token and no other."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    given = {} if token is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    return {**kept, **given}


@pytest.fixture(scope="module")
def dashboard(ray_cluster: RayCluster) -> str:
    deadline = time.time() + 120
    while True:
        try:
            urllib.request.urlopen(f"{ray_cluster.dashboard}/api/version", timeout=10)
        except urllib.error.HTTPError as error:
            assert error.code == 401  # noqa: PT017 - the loop, not the error, is what is tried
            return ray_cluster.dashboard
        except OSError:
            assert time.time() < deadline, "the dashboard did not come up"
            time.sleep(1)


def run(snippet: str, token: str | None = TOKEN, **variables: str) -> Any:
    """Run Python in a process of its own, since Ray reads its token once a process."""
    return subprocess.run(
        [sys.executable, "-c", snippet],
        env={**environment(token), **variables},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.ray
def test_a_real_cluster_runs_jobs_and_reports_how_they_ended(dashboard):
    """Shell commands take the place of the entrypoint, so nothing is trained."""
    snippet = f"""
import os
from lorasweep.service import jobs
from lorasweep.spec.sweep import parse_sweep
spec = parse_sweep({{"name": "study", "space": {{"lr": True}}}})
print("code", jobs._run_job(spec, "{dashboard}", "ls; echo in $HOME"))
print("code", jobs._run_job(spec, "{dashboard}", "echo broken; exit 3"))
print("code", jobs._run_job(spec, "{dashboard}", f"kill -INT {{os.getpid()}}; sleep 300"))
client = jobs._connect("{dashboard}")
left = [job for job in client.list_jobs() if not job.status.is_terminal()]
print("left", len(left), left[0].metadata["job_name"], client.stop_job(left[0].submission_id))
"""
    # An address in the environment must not override the one that was given.
    ended = run(snippet, RAY_ADDRESS="127.0.0.1:1")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert [line for line in lines if line.startswith("code ")] == ["code 0", "code 1", "code 130"]
    assert {"sweep.yaml", f"in {os.environ['HOME']}", "broken"} <= set(lines)
    assert lines[-1] == "left 1 lorasweep study True"


@pytest.mark.ray
@pytest.mark.parametrize("token", [None, "f" * 64])
def test_a_missing_or_wrong_token_is_one_sentence(dashboard, token, tmp_path):
    command = f"""
import sys
from lorasweep.cli import main
sys.argv = ["lorasweep", "tune", "--address", "{dashboard}"]
main()
"""
    ended = run(command, token, HOME=str(tmp_path))
    assert ended.returncode == 2
    (sentence,) = ended.stderr.splitlines()
    assert sentence.startswith(f"lorasweep: --address: the cluster at '{dashboard}' wants a token")
