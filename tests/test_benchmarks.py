"""The benchmark on a few pictures: it ends well, and contenders written apart find the same results."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCH = [sys.executable, str(ROOT / "benchmarks" / "bench.py")]


def test_the_benchmark_measures_three_contenders_that_agree(tmp_path):
    output = tmp_path / "bench"
    done = subprocess.run([*BENCH, "--count", "40", "--output", output], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    bench = json.loads((output / "bench.json").read_text())

    found = bench["agreement"]
    assert found["agree"]
    assert found["pictures_decoded_alike"] == 40
    assert found["features_course_alike"] < 1e-3  # of features up to 6
    assert found["features_limit"] < 1e-3
    assert found["variance_ratio"] < 1e-5

    for name in ("course", "project"):
        measured = {measure: cell["median"] for measure, cell in bench["contenders"][name].items()}
        steps = measured["start_s"] + measured["features_s"] + measured["pca_s"]
        assert 0 < steps < measured["total_s"]
        assert measured["features_rate"] == pytest.approx(40 / measured["features_s"])
    rates = {name: measures["features_rate"]["median"] for name, measures in bench["contenders"].items()}
    assert rates["limit"] > rates["project"]
    assert "times as fast end to end" in done.stdout
    assert (output / "bench.png").stat().st_size > 10_000


def test_the_pcas_benchmark_measures_two_ways_that_agree(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "pca.py", "--rows", "1200", "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "pca.json").read_text())
    assert found["variance_ratio_difference"] < 1e-6
    assert found["times_as_fast"] == [found["seconds"]["plain"][0] / found["seconds"]["project"][0]]
    assert all(peaks["driver"] > 50 for peaks in found["peak_mib"].values())
    assert found["fit_times_as_fast"] == [found["fit_seconds"]["plain"][0] / found["fit_seconds"]["project"][0]]
    assert "times as fast, parquet to parquet" in done.stdout


def test_the_benchmark_says_what_is_wrong_with_an_empty_folder(tmp_path):
    done = subprocess.run([*BENCH, "--pictures", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"found no .jpg below {tmp_path}" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupted_benchmark_leaves_nothing_behind(tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen([*BENCH, "--count", "40"], env=environment, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:  # the network is saved then, by a process of its own
        if "load average" in line:
            break
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []
