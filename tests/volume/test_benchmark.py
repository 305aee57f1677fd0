"""The benchmark of volumes on a few pictures: it ends well and counts right. Its sums are tested beside the others."""

import json
import subprocess
import sys
from pathlib import Path

VOLUME = Path(__file__).resolve().parents[2] / "benchmarks" / "volume.py"


def test_the_volumes_benchmark_counts_every_picture(tmp_path):
    command = [sys.executable, VOLUME, "--counts", "24", "--cores", "2", "--steps", "first", "runs", "--runs", "2"]
    done = subprocess.run([*command, "--output", tmp_path], capture_output=True, text=True)
    found = json.loads((tmp_path / "volume.json").read_text())
    assert done.returncode == 0, done.stdout + done.stderr

    assert found["is_right"]
    assert [run["counts"]["new"] for run in found["runs"]] == [24]
    for run in found["runs"]:
        seconds = run["seconds"]
        parts = sum(seconds[step] for step in ("list", "network", "workers", "featurize", "tidy"))
        assert parts < seconds["features"] < seconds["start"] + seconds["features"] + seconds["pca"] < seconds["total"]
        assert 20 < run["mib"]["java_live"] < run["mib"]["java"]
        assert run["mib"]["driver"] > 200
    before, after = found["small_runs"]["before"], found["small_runs"]["after"]
    assert before["rows"] == after["rows"] == 100
    assert after["files"] <= before["files"]
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("volume.png", "volume.fr.png"))
