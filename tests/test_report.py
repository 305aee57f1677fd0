"""The report: steps timed, pictures accounted for, report.json complete."""

import importlib.metadata
import json
import platform
import re
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from fruits import increments, report, storage


class Rows:
    """What the report asks of a DataFrame: to be counted."""

    def __init__(self, rows):
        self.rows = rows

    def count(self):
        return self.rows


PARAMETERS = {"images_path": "data/images", "backbone": "MobileNetV2", "variance_kept": 0.9}


def make_changes(new=0, changed=0, unchanged=0, deleted=0, skipped=0):
    """Make what a look at the folder finds, in numbers alone."""
    counts = (new, changed, unchanged, deleted, skipped)
    return increments.Changes(None, None, dict(zip(increments.STATES, counts, strict=True)))


@pytest.fixture
def run(tmp_path):
    run = report.Report(str(tmp_path), **PARAMETERS)
    run.seconds["featurize"] = 4.0
    return run


def test_a_step_is_timed_in_seconds_and_says_so_and_its_times_add_up(run, capsys):
    with run.step("wait"):
        time.sleep(0.2)
    first = run.seconds["wait"]
    assert 0.2 <= first < 2
    assert capsys.readouterr().out == f"wait: {first:.1f} s\n"
    with run.step("wait"):
        time.sleep(0.1)
    assert first + 0.09 <= run.seconds["wait"] < 4


def test_a_step_that_fails_raises_its_own_error_and_is_not_timed(run, capsys):
    with pytest.raises(ZeroDivisionError), run.step("fail"):
        _ = 1 / 0
    assert run.seconds == {"featurize": 4.0}
    assert capsys.readouterr().out == ""


def test_the_account_holds_the_counts_and_the_rate_of_this_run(run, capsys):
    run.count(make_changes(new=300, changed=100, unchanged=605, deleted=7, skipped=5))
    run.account(Rows(1000), Rows(10))
    assert run.values["images_found"] == 1010
    assert run.values["images_featurized"] == 1000
    assert run.values["images_rejected"] == 10
    assert run.values["images_skipped"] == 5
    assert run.values["images_per_second"] == 100
    assert "1,010 files found = 1,000 featurized + 10 rejected" in capsys.readouterr().out


def test_the_counts_of_several_looks_add_up_but_for_what_is_there(run):
    run.count(make_changes(new=3, unchanged=10))
    run.count(make_changes(new=2, changed=1, unchanged=12, deleted=1))
    run.account(Rows(15), Rows(0))
    values = {name: run.values[f"images_{name}"] for name in ("found", "new", "changed", "unchanged", "deleted")}
    assert values == {"found": 15, "new": 5, "changed": 1, "unchanged": 10, "deleted": 1}


def test_a_look_whose_cell_is_run_again_is_counted_once(run):
    changes = make_changes(new=3, unchanged=10)
    run.count(changes)
    run.count(changes)
    assert (run.values["images_found"], run.values["images_new"]) == (13, 3)


def test_a_run_with_nothing_to_do_has_no_rate(run):
    run.count(make_changes(unchanged=10))
    run.account(Rows(10), Rows(0))
    assert run.values["images_per_second"] is None


@pytest.mark.parametrize(("done", "refused"), [(6, 1), (8, 3), (0, 0)])
def test_a_lost_or_added_picture_stops_the_run_with_the_numbers(run, done, refused):
    run.count(make_changes(new=10))
    with pytest.raises(ValueError, match="10 files were found") as caught:
        run.account(Rows(done), Rows(refused))
    assert f"{done} featurized + {refused} rejected make {done + refused}" in str(caught.value)
    assert "Run it again" in str(caught.value)


def test_the_account_counts_real_tables(spark, run):
    run.count(make_changes(new=7))
    run.account(spark.range(5), spark.range(2))
    assert (run.values["images_featurized"], run.values["images_rejected"]) == (5, 2)


def test_the_file_holds_values_seconds_versions_and_times(tmp_path):
    run = report.Report(str(tmp_path / "new"), **PARAMETERS)
    run.seconds["featurize"] = 4.0
    run.note(n_features=1280, n_components=8, labels="pêche")
    path = run.save()
    saved = json.loads((tmp_path / "new" / "report.json").read_text(encoding="utf-8"))
    assert path == str(tmp_path / "new" / "report.json")
    assert saved.pop("seconds") == {"featurize": 4.0}
    versions = saved.pop("versions")
    assert versions.pop("python") == platform.python_version()
    assert {"pyspark", "tensorflow", "keras", "numpy", "pandas", "pyarrow", "pillow"} <= set(versions)
    assert versions == {package: importlib.metadata.version(package) for package in versions}
    started, finished = (datetime.fromisoformat(saved.pop(name)) for name in ("started", "finished"))
    assert timedelta(0) <= finished - started <= datetime.now(UTC) - started < timedelta(minutes=1)
    assert len(saved.pop("history")) == 1
    assert saved == PARAMETERS | {"n_features": 1280, "n_components": 8, "labels": "pêche"}


def test_the_history_tells_of_every_run_and_of_one_that_was_killed(tmp_path):
    for number, is_killed in enumerate([False, True, False]):
        run = report.Report(str(tmp_path), **PARAMETERS)
        run.begin()
        if not is_killed:
            run.count(make_changes(new=10 * number))
            run.account(Rows(10 * number), Rows(0))
            run.save()
    history = json.loads((tmp_path / "report.json").read_text())["history"]
    assert [entry["finished"] is not None for entry in history] == [True, False, True]
    assert [entry["images_new"] for entry in history] == [0, None, 20]


def leave_results(folder):
    """Leave what a finished run leaves, as far as the next one asks for it."""
    for name in ("pca/fruits.json", "projection/_SUCCESS", "quality.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize("change", [{}, {"backbone": "ResNet50"}, {"seed": 1}])
def test_a_run_repeats_an_earlier_one_that_finished_with_the_same_parameters(tmp_path, change):
    first = report.Report(str(tmp_path), **PARAMETERS)
    assert not first.repeats_earlier
    first.begin()
    assert not report.Report(str(tmp_path), **PARAMETERS).repeats_earlier
    leave_results(tmp_path)
    first.save()
    assert report.Report(str(tmp_path), **PARAMETERS | change).repeats_earlier is (change == {})


def test_a_run_with_other_packages_repeats_nothing(tmp_path, monkeypatch):
    report.Report(str(tmp_path), **PARAMETERS).save()
    leave_results(tmp_path)
    assert report.Report(str(tmp_path), **PARAMETERS).repeats_earlier
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0" if name == "numpy" else version(name))
    assert not report.Report(str(tmp_path), **PARAMETERS).repeats_earlier


@pytest.mark.parametrize("taken", ["pca/fruits.json", "projection/_SUCCESS", "quality.json", "projection_csv/_SUCCESS"])
def test_a_run_whose_results_were_taken_away_is_not_repeated(tmp_path, taken):
    parameters = PARAMETERS | {"save_csv": taken.startswith("projection_csv")}
    report.Report(str(tmp_path), **parameters).save()
    leave_results(tmp_path)
    (tmp_path / taken).unlink(missing_ok=True)
    assert not report.Report(str(tmp_path), **parameters).repeats_earlier


def test_a_run_whose_parameter_names_another_content_repeats_nothing(tmp_path):
    first = report.Report(str(tmp_path), **PARAMETERS)
    first.depend_on(pca_model_first_variance=0.5)
    leave_results(tmp_path)
    first.save()
    for variance in (0.5, 0.25, None):
        again = report.Report(str(tmp_path), **PARAMETERS)
        again.depend_on(pca_model_first_variance=variance)
        assert again.repeats_earlier is (variance == 0.5)


def test_the_summary_has_a_line_for_each_value_and_step_in_two_columns(run):
    run.note(n_components=8, variance_reached=0.9504312846)
    lines = run.summarize().splitlines()
    assert {tuple(re.split("  +", line)) for line in lines} >= {
        ("n_components", "8"), ("variance_reached", "0.9504"), ("backbone", "MobileNetV2"),
        ("seconds, featurize", "4.0"),
    }  # fmt: skip
    assert len(lines) == 7 + 1
    assert len({re.search("  +", line).end() for line in lines}) == 1


def test_what_an_earlier_run_computed_serves_until_it_is_deleted_but_for_its_features(tmp_path):
    report.Report(str(tmp_path)).save()
    theirs = ("features/0.parquet", "rejected/0.parquet", "mine/0.jpg", "notes.txt")
    for name in (*theirs, "pca/a", "projection/a", "quality.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    run = report.Report(str(tmp_path))
    run.begin()
    assert (tmp_path / "pca" / "a").exists()
    assert json.loads((tmp_path / "report.json").read_text())["finished"] is None
    run.delete_earlier()
    assert {path.name for path in tmp_path.iterdir()} == {"features", "rejected", "mine", "notes.txt", "report.json"}


def test_folders_without_a_report_are_somebodys_own_and_refused(tmp_path):
    (tmp_path / "pca").mkdir()
    (tmp_path / "pca" / "a.png").write_bytes(b"1")
    with pytest.raises(ValueError, match=r"holds pca, but no report\.json .*: set output_path elsewhere"):
        report.Report(str(tmp_path))
    assert [path.name for path in tmp_path.rglob("*")] == ["pca", "a.png"]


@pytest.mark.parametrize("content", [b"", b"no JSON", b"[1]", b'{"title": "sales"}', b"\xff"])
def test_a_report_of_something_else_is_refused_and_stays(tmp_path, content):
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"report\.json is no report of a run: set output_path elsewhere"):
        report.Report(str(tmp_path))
    assert (tmp_path / "report.json").read_bytes() == content


RUN_ELSEWHERE = """
import sys
from fruits import report
run = report.Report(sys.argv[1])
print("begun", flush=True)
input()
run.save()
print("saved", flush=True)
input()
"""


@pytest.mark.parametrize("end", ["saved", "killed"])
def test_a_second_run_on_a_folder_is_refused_until_the_first_is_saved_or_killed(tmp_path, monkeypatch, end):
    monkeypatch.setattr(storage, "SECONDS_TO_LOCK", 0.3)
    command, pipe = [sys.executable, "-c", RUN_ELSEWHERE, str(tmp_path)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1) as first:
        try:
            assert first.stdout.readline() == "begun\n"
            with pytest.raises(ValueError, match="another run writes to output_path .*: wait until it has ended"):
                report.Report(str(tmp_path))
            if end == "saved":
                first.stdin.write("\n")
                assert first.stdout.readline() == "saved\n"
            else:
                first.kill()
                first.wait()
            second = report.Report(str(tmp_path))
            assert (second.earlier == {}) is (end == "killed")
            second.save()
            assert (first.poll() is None) is (end == "saved")
        finally:
            first.kill()


def test_a_run_that_starts_as_a_killed_one_ends_waits_for_it(tmp_path):
    command = [sys.executable, "-c", RUN_ELSEWHERE, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "begun\n"
        end = threading.Timer(0.5, first.kill)
        end.start()
        report.Report(str(tmp_path)).save()
        end.join()
