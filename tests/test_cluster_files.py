"""Shipped cluster files: valid, not open to the internet, and free of secrets."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILES = ["cluster.yaml", "cluster/on-premise.yaml"]
# Tokens of AWS, Hugging Face, GitHub and Weights & Biases, Ray's own token, and private keys.
SECRETS = re.compile(
    r"AKIA[0-9A-Z]{16}|hf_[A-Za-z0-9]{20}|gh[pousr]_[A-Za-z0-9]{20}|\b[0-9a-f]{40,64}\b"
    r"|PRIVATE KEY|secret|password",
    re.IGNORECASE,
)


@pytest.fixture(params=FILES)
def path(request) -> Path:
    name: str = request.param
    return ROOT / name


@pytest.fixture
def content(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture
def starts(content) -> list[str]:
    commands = content["head_start_ray_commands"] + content["worker_start_ray_commands"]
    return [command for command in commands if "ray start" in command]


def test_ray_s_own_schema_takes_it(content):
    package = find_spec("ray")
    assert package is not None
    assert package.origin is not None
    schema = Path(package.origin).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(content, json.loads(schema.read_text(encoding="utf-8")))


def test_every_command_list_is_ours(content):
    """Ray fills in a command list that is left out; its setup installs a nightly build of Ray."""
    for stage in ("setup_commands", "head_setup_commands"):
        assert content[stage]
    assert content["head_start_ray_commands"][0] == "ray stop"
    assert content["worker_start_ray_commands"][0] == "ray stop"


def test_the_dashboard_is_on_loopback(path, starts):
    head, _ = starts
    assert "--dashboard-host=127.0.0.1" in head
    assert "0.0.0.0" not in path.read_text(encoding="utf-8")


def test_every_start_wants_the_token(content, starts):
    assert len(starts) == 2
    assert all(command.startswith("export RAY_AUTH_MODE=token") for command in starts)
    assert content["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in content["setup_commands"]


def test_it_has_no_secret(path):
    assert SECRETS.findall(path.read_text(encoding="utf-8")) == []


def test_the_name_has_no_colon(content):
    assert ":" not in content["cluster_name"]


def test_what_is_copied_is_there(content):
    local = [place for place in content["file_mounts"].values() if place.startswith("./")]
    assert len(local) == 4
    assert all((ROOT / place).exists() for place in local)


def test_lorasweep_is_installed_from_the_checkout(content):
    install = "pip install -q -c ~/lorasweep-src/constraints.txt ~/lorasweep-src"
    assert any(install in command for command in content["setup_commands"])


@pytest.fixture
def aws():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def test_gpu_nodes_come_from_zero_on_the_spot_market(aws):
    nodes = aws["available_node_types"]
    head = nodes.pop(aws["head_node_type"])
    (gpu,) = nodes.values()
    assert gpu["min_workers"] == 0 < gpu["max_workers"] <= aws["max_workers"]
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"] == {"CPU": 0}


def test_no_security_group_is_left_to_ray(aws):
    """Without one, Ray creates a group that opens SSH to the whole internet."""
    assert "security_group" not in aws["provider"]
    for node in aws["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"]


def test_trials_wait_for_nodes_that_have_to_boot(aws):
    head = aws["head_start_ray_commands"][1]
    assert "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=1800" in head


def test_every_node_mounts_the_results(aws):
    assert any("~/results" in command for command in aws["initialization_commands"])
    assert aws["provider"]["cache_stopped_nodes"] is False
