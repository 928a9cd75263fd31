from __future__ import annotations

import os
import subprocess


def environment_for(address: str) -> dict[str, str]:
    """Environment of a command that joins the tests' cluster and needs no network."""
    return {**os.environ, "RAY_ADDRESS": address, "HF_HUB_OFFLINE": "1"}


def run_on(address: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command on the tests' cluster to its end."""
    environment = environment_for(address)
    return subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=1000, check=False
    )
