"""What reads foreign bytes, with any bytes: by chance everywhere, and guided by coverage where atheris is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.harness import HARNESSES, MEANT, seeds
from fuzz.requests import damaged
from support.examples import the_same_every_time

HAS_ATHERIS = importlib.util.find_spec("atheris") is not None
_RUNS = re.compile(r"Done (\d+) (?:runs )?in|stat::number_of_executed_units: (\d+)")


@pytest.mark.parametrize("name", HARNESSES)
def test_right_bytes_are_read(name: str) -> None:
    for seed in seeds(name):
        HARNESSES[name](seed)


@pytest.mark.parametrize("name", HARNESSES)
def test_any_bytes_are_read_or_refused(name: str, is_long: bool) -> None:
    seed = next(seeds(name))

    @the_same_every_time(5000 if is_long else 200)
    @given(damaged(seed) | st.binary(max_size=300))
    def read(data: bytes) -> None:
        with contextlib.suppress(*MEANT):
            HARNESSES[name](data)

    read()


@pytest.mark.skipif(not HAS_ATHERIS, reason="NOT FUZZED BY COVERAGE: atheris is not installed (pip install atheris)")
@pytest.mark.parametrize("name", HARNESSES)
def test_no_bytes_that_lead_further_bring_anything_else(name: str, is_long: bool, tmp_path: Path) -> None:
    flags = [f"-max_total_time={120 if is_long else 2}", "-max_len=4096", "-timeout=10", "-print_final_stats=1"]
    flags += ["-seed=1", f"-artifact_prefix={tmp_path}/"]
    command = [sys.executable, "-m", "fuzz.coverage_guided", name, str(tmp_path / "inputs"), *flags]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400, errors="replace")
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-4000:]
    runs = [int(number) for match in _RUNS.findall(output) for number in match if number]
    print(f"{name}: {max(runs, default=0)} runs guided by coverage")
    assert max(runs, default=0) > 100, output[-2000:]
