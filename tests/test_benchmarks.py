"""The benchmark on a few pictures: it ends well, and contenders written apart find the same results."""

import argparse
import copy
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
BENCH = [sys.executable, str(ROOT / "benchmarks" / "bench.py")]


@pytest.fixture
def volume(monkeypatch):
    """The script volume.py as a module, found beside those that it imports."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("volume")


def make_run(kind, count, cores, seconds, java_mib=2000.0):
    """Make up what volume.py says of one run."""
    return {
        "kind": kind, "pictures": count, "cores": cores, "images_per_second": 100.0, "is_right": True,
        "seconds": {"start": 6.0, "list": 1.0, "featurize": seconds - 10, "total": seconds},
        "mib": {"driver": 900.0, "java": java_mib, "java_live": 100.0},
    }  # fmt: skip


@pytest.fixture
def measured(volume):
    """What volume.py might measure, made up: 20,000 pictures take 1.9 times as long as 10,000, in the same memory."""
    runs = [make_run("first", count, 2, count * 0.01 * (2 if count < 20_000 else 1.9)) for count in (10_000, 20_000)]
    runs += [make_run("nothing", 20_000, 2, 17.0), make_run("new", 20_200, 2, 25.0)]
    reading = {"pictures": 20_000, "cores": 2, "bytes": 10**8, "packs": 2, "pack_s": 9.0, "is_right": True}
    runs_of_50 = {"runs": 20, "per_run": 50, "cores": 2, "merge_s": 2.0, "merges_beyond": 36, "is_right": True}
    runs_of_50 |= {"before": {"files": 160, "rows": 1000, "seconds": 1.25}}
    return {
        "machine": {"cpu": "a CPU", "cores": 2, "memory_gib": 16, "load_before": (0, 0, 0)}, "load_after": (1, 1, 1),
        "pictures": {"source": "drawn", "different": 2300}, "runs": runs, "is_right": True,
        "reading": [reading | {"small_s": 4.0, "packed_s": 0.5}],
        "small_runs": runs_of_50 | {"after": {"files": 2, "rows": 1000, "seconds": 0.25}},
        "notebook": {"pictures": 20_000, "cores": 2, "first_seconds": 140.0, "seconds": 28.0, "is_right": True},
    }  # fmt: skip


def test_as_many_pictures_are_timed_for_the_start_as_are_counted_however_few_there_are(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    bench = importlib.import_module("bench")
    (tmp_path / "photos" / "Fig").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "photos" / "Fig" / f"{number}.jpg").touch()
    options = bench.read_options(["--pictures", str(tmp_path / "photos"), "--count", "5", "--steady"])
    assert bench.gather_pictures(options, tmp_path) == 5
    assert len(list((tmp_path / "few").rglob("*.jpg"))) == bench.STEADY_PICTURES


def test_the_benchmark_measures_three_contenders_that_agree(tmp_path):
    output = tmp_path / "bench"
    command = [*BENCH, "--count", "40", "--course-partitions", "4", "--output", output]
    done = subprocess.run(command, capture_output=True, text=True)
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


@pytest.fixture
def computed(monkeypatch, tmp_path):
    """What the contenders might have computed of three small pictures, made up: write(**changed), by contender."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    results = importlib.import_module("results")
    paths = [tmp_path / "Fig" / f"{number}.jpg" for number in range(3)]
    (tmp_path / "Fig").mkdir()
    features = np.random.default_rng(0).random((3, 8), np.float32)
    ratios = {"variance_ratio": [0.75, 0.25]}

    def write(size=(60, 40), ratios_course=ratios, **changed):
        for path in paths:
            Image.new("RGB", size).save(path)
        names = list(map(str, paths))
        for name in ("project", "course"):
            vectors = changed.get(name, features)
            there = [f"file:{path}" for path in paths[: len(vectors)]]
            table = tmp_path / name / "features"
            table.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"path": there, "features": list(vectors)}), table / "0.parquet")
        (tmp_path / "limit").mkdir(exist_ok=True)
        np.savez(tmp_path / "limit" / "vectors.npz", paths=names, vectors=changed.get("limit", features))
        return results.compare_contenders(tmp_path, {"project": [ratios], "course": [ratios_course]})

    return write, features, results.BenchError


def test_contenders_that_computed_the_same_agree(computed):
    write, *_ = computed
    found = write()
    assert (found["agree"], found["pictures_decoded_alike"], found["features_course_alike"]) == (True, 3, 0)


@pytest.mark.parametrize("contender", ["course", "limit"])
def test_a_contender_with_another_feature_disagrees(computed, contender):
    write, features, _ = computed
    other = features.copy()
    other[1, 2] += 0.01
    assert not write(**{contender: other})["agree"]


def test_a_contender_with_another_variance_or_other_pictures_disagrees(computed):
    write, features, error = computed
    assert not write(ratios_course={"variance_ratio": [0.74, 0.26]})["agree"]
    with pytest.raises(error, match="did not featurize the same pictures"):
        write(course=features[:2])


def test_contenders_are_not_said_to_agree_where_nothing_can_be_compared(computed):
    write, features, _ = computed
    found = write(size=(800, 600), course=features + 1)  # the project decodes them at half their size
    assert (found["agree"], found["pictures_decoded_alike"]) == (False, 0)


def test_the_pcas_benchmark_measures_two_ways_that_agree(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "pca.py", "--rows", "1200", "--features", "160"]
    done = subprocess.run([*command, "--output", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "pca.json").read_text())
    assert (found["features"], found["components"]) == (160, 32)
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


def test_runs_after_the_first_meet_1_percent_of_pictures_and_leave_them_as_they_were(volume, tmp_path, monkeypatch):
    (tmp_path / "Lime").mkdir()
    sources = [tmp_path / "Lime" / f"{name}.jpg" for name in ("one", "two", "three")]
    for source in sources:
        source.write_text(source.stem)
    pictures = volume.Folder(tmp_path / "pictures", sources)
    pictures.hold(200)

    def look(*_, **counts):
        files = pictures.path.rglob("*.jpg")
        return counts, {file.name: (file.read_text(), file.stat().st_mtime) for file in files}

    monkeypatch.setattr(volume, "run_project", look)
    (_, before), (new, more), (changed, other) = volume.run_increments(tmp_path, pictures, 1)
    assert (new, changed) == ({"new": 2}, {"changed": 2})
    assert len(before) == len({modified for _, modified in before.values()}) == 200
    assert len(more) == 202
    assert before.items() < more.items()
    replaced = [name for name in more if other[name] != more[name]]
    assert len(replaced) == 2
    assert all(first != second for name in replaced for first, second in zip(other[name], more[name], strict=True))
    assert look()[1] == before


def test_growth_is_held_to_its_bars(volume, measured):
    bars = {bar["what"]: bar for bar in volume.volume_results.list_bars(measured)}
    growth = bars["20,000 pictures over 10,000, 2 cores: seconds"]
    assert (growth["value"], growth["bar"], growth["is_met"]) == (pytest.approx(1.9), 2.1, True)
    assert all(bar["is_met"] for bar in bars.values())
    measured["runs"][1] = make_run("first", 20_000, 2, 430.0, java_mib=2300.0)
    measured["notebook"]["seconds"] = 31.0
    missed = [bar["what"] for bar in volume.volume_results.list_bars(measured) if not bar["is_met"]]
    assert missed == [
        "20,000 pictures over 10,000, 2 cores: seconds",
        "20,000 pictures over 10,000, 2 cores: peak memory of the driver, Python and Java",
        "notebook, 20,000 known pictures, 2 cores: seconds",
    ]


def test_the_table_of_volumes_tells_each_run_and_each_bar(volume, measured):
    measured["bars"] = volume.volume_results.list_bars(measured)
    lines = volume.volume_results.format_table(measured).splitlines()
    assert sum(line.startswith("first run") for line in lines) == 4  # its seconds and its memory
    assert any("packed into 2 files in 9.0 s" in line and "0.5 s (40,000 a second) packed" in line for line in lines)
    assert any("160 parquet files" in line and "2, read in 0.25 s" in line for line in lines)
    assert "notebook, 20,000 pictures: 140 s where all are new, 28.0 s with nothing new" in lines
    assert "notebook, 20,000 known pictures, 2 cores: seconds 28.00 (bar 30.00): met" in lines
    assert "counts: all right" in lines
    wrong = copy.deepcopy(measured)
    wrong["reading"][0]["is_right"] = False
    assert not volume.volume_results.is_right(wrong)
    assert volume.volume_results.is_right(measured)


def test_the_figure_of_volumes_tells_its_finding_and_draws_every_run(volume, measured):
    measured["bars"] = volume.volume_results.list_bars(measured)
    figure = volume.volume_results.draw_figure(measured)
    assert figure.get_suptitle() == (
        "Twice the pictures take 1.90 times as long and 1.00 times the driver's memory;\n"
        "with nothing new, a run is over in 17 s"
    )
    seconds, memory, kinds = figure.axes
    assert seconds.lines[0].get_ydata() == pytest.approx([200, 380])
    assert seconds.lines[1].get_ydata() == pytest.approx([420])  # the bar
    assert [len(line.get_ydata()) for line in memory.lines] == [2, 2, 2]
    assert [label.get_text() for label in kinds.get_yticklabels()] == ["first run", "nothing new", "1 % new"]
    with volume.volume_results.in_french():
        french = volume.volume_results.draw_figure(measured)
    assert french.get_suptitle() == (
        "Deux fois plus d’images demandent 1,90\xa0fois le temps et 1,00\xa0fois la mémoire du driver\xa0;\n"
        "sans rien de nouveau, une exécution se termine en 17\xa0s"
    )
    one_count = measured | {"runs": [make_run("first", 500, 1, 30.0)], "bars": []}
    assert volume.volume_results.draw_figure(one_count).get_suptitle() == "500 pictures in 30 s on 1 core"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--counts", "none"], "expected a whole number of 1 or more"),
        (["--counts", "1", "5"], "a PCA needs at least 2"),
        (["--cores", "4096"], "found 4096, but this machine gives"),
        (["--steps", "second"], "invalid choice: 'second'"),
    ],
)
def test_the_volumes_benchmark_says_what_is_wrong_with_an_option(volume, arguments, complaint, capsys):
    with pytest.raises(SystemExit):
        volume.read_options(arguments)
    assert complaint in capsys.readouterr().err


def test_the_volumes_benchmark_says_that_a_folder_holds_no_pictures(volume, tmp_path):
    options = argparse.Namespace(pictures=tmp_path, counts=[5], notebook=5)
    with pytest.raises(volume.results.BenchError, match=f"found no .jpg below {tmp_path}"):
        volume.gather_sources(options, tmp_path)
