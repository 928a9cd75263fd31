"""Shared fixtures: a tiny Qwen2 model, example data, one Ray cluster, and the command line."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from lorasweep import cli

# A loaded machine is slow, not wrong.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# Set before Ray is imported: it reads them only once.
os.environ["RAY_AUTH_MODE"] = "token"
TOKEN = "a-token-for-tests-of-forty-characters-00"
os.environ["RAY_AUTH_TOKEN"] = TOKEN

WORDS = [
    "river",
    "stone",
    "light",
    "garden",
    "copper",
    "winter",
    "sparrow",
    "window",
    "market",
    "letter",
    "silver",
    "harbour",
    "meadow",
    "candle",
    "bridge",
    "forest",
    "anchor",
    "velvet",
    "thunder",
    "basket",
]


def sentences(count: int, seed: int = 0) -> list[str]:
    """Make random sentences, the same in every process."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(4, 9))) + "." for _ in range(count)]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a Hugging Face folder: a Qwen2 of unusual sizes with its own vocabulary and template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("model") / "tiny"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|end|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences(200), trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    wrapped.chat_template = (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    wrapped.save_pretrained(str(folder))
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(wrapped),
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        eos_token_id=wrapped.eos_token_id,
        bos_token_id=None,
    )
    Qwen2ForCausalLM(config).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a JSONL of prompt and response, 120 examples."""
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [
        {"prompt": f"Repeat: {s}\n", "response": s.split(" ", maxsplit=1)[0]}
        for s in sentences(120, seed=1)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@cache
def _starts_ray(file: Path) -> bool:
    return "pytest.mark.ray" in file.read_text(encoding="utf-8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests that start Ray first: they take longest, and the others run beside them."""
    items.sort(key=lambda item: not _starts_ray(item.path))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """Distribute test files over processes, all files that start Ray to the same one."""

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", maxsplit=1)[0]
            return "Ray" if _starts_ray(config.rootpath / file) else file

    return Scheduling(config, log)


def pytest_collection_finish() -> None:
    """Exempt the objects that imports made, most of all there are, from garbage collection."""
    gc.collect()
    gc.freeze()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RayCluster(NamedTuple):
    """Addresses of a head and of its dashboard."""

    address: str
    dashboard: str


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """Start one small cluster for all tests, with a token and a temporary folder of its own."""
    # Ray's own ports are the same for every cluster of a machine, and another one may run here.
    port, dashboard_port, client_port, agent_port = (free_port() for _ in range(4))
    # A socket's path may have 107 characters, which pytest's own folders nearly fill.
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        words = "start --head --block --num-cpus=2 --include-dashboard=true --disable-usage-stats"
        command = [
            str(Path(sys.executable).with_name("ray")),
            *words.split(),
            "--node-ip-address=127.0.0.1",
            f"--port={port}",
            f"--dashboard-port={dashboard_port}",
            f"--ray-client-server-port={client_port}",
            f"--dashboard-agent-listen-port={agent_port}",
            f"--temp-dir={folder}",
            f"--object-store-memory={200 * 2**20}",
        ]
        log = Path(folder) / "start.log"
        with log.open("wb") as output:
            head = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        deadline = time.time() + 180
        while b"Ray runtime started" not in log.read_bytes():
            assert head.poll() is None, log.read_text()
            assert time.time() < deadline, log.read_text()
            time.sleep(0.2)
        yield RayCluster(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard_port}")
        # `ray start --block` ends its processes one by one, which tests need not wait for.
        os.killpg(head.pid, signal.SIGTERM)
        time.sleep(1)
        os.killpg(head.pid, signal.SIGKILL)
        head.wait(timeout=30)


@pytest.fixture(scope="session")
def ray_address(ray_cluster: RayCluster) -> str:
    return ray_cluster.address


@pytest.fixture
def lorasweep(monkeypatch, capsys, tmp_path):
    """Run the command line in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lorasweep", *words])
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        else:
            code = 0
        shown = capsys.readouterr()
        return int(code or 0), shown.out, shown.err

    return run
