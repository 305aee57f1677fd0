"""The report: steps timed, pictures accounted for, report.json complete."""

import importlib.metadata
import json
import platform
import re
import time

import pytest

from fruits import images, report


class Rows:
    """What the report asks of a DataFrame: to be counted."""

    def __init__(self, rows):
        self.rows = rows

    def count(self):
        return self.rows


@pytest.fixture
def run():
    run = report.Report(images_path="data/images", backbone="MobileNetV2", variance_kept=0.9)
    run.seconds["featurize"] = 4.0
    return run


def test_a_step_is_timed_in_seconds_and_says_so(capsys):
    run = report.Report()
    with run.step("wait"):
        time.sleep(0.2)
    assert 0.2 <= run.seconds["wait"] < 2
    assert capsys.readouterr().out == f"wait: {run.seconds['wait']:.1f} s\n"


def test_a_step_that_fails_raises_its_own_error_and_is_not_timed(capsys):
    run = report.Report()
    with pytest.raises(ZeroDivisionError), run.step("fail"):
        _ = 1 / 0
    assert run.seconds == {}
    assert capsys.readouterr().out == ""


def test_the_account_holds_the_counts_and_the_rate(run, capsys):
    run.account(images.Survey("/pictures", 1010, []), Rows(1000), Rows(10))
    assert run.values["images_found"] == 1010
    assert run.values["images_featurized"] == 1000
    assert run.values["images_rejected"] == 10
    assert run.values["images_per_second"] == 250
    assert "1,010 files found = 1,000 featurized + 10 rejected" in capsys.readouterr().out


@pytest.mark.parametrize(("done", "refused"), [(6, 1), (8, 3), (0, 0)])
def test_a_lost_or_added_picture_stops_the_run_with_the_numbers(run, done, refused):
    with pytest.raises(ValueError, match="10 files were found in /pictures") as caught:
        run.account(images.Survey("/pictures", 10, []), Rows(done), Rows(refused))
    assert f"{done} featurized + {refused} rejected make {done + refused}" in str(caught.value)
    assert "run it again" in str(caught.value)


def test_the_account_counts_real_tables(spark, run):
    run.account(images.Survey("/pictures", 7, []), spark.range(5), spark.range(2))
    assert (run.values["images_featurized"], run.values["images_rejected"]) == (5, 2)


def test_the_file_holds_values_seconds_and_versions(run, tmp_path):
    run.note(n_features=1280, n_components=8, labels="pêche")
    path = run.save(str(tmp_path / "new"))
    saved = json.loads((tmp_path / "new" / "report.json").read_text(encoding="utf-8"))
    assert path == str(tmp_path / "new" / "report.json")
    assert saved.pop("seconds") == {"featurize": 4.0}
    versions = saved.pop("versions")
    assert versions.pop("python") == platform.python_version()
    assert {"pyspark", "tensorflow", "keras", "numpy", "pandas", "pyarrow", "pillow"} <= set(versions)
    assert versions == {package: importlib.metadata.version(package) for package in versions}
    assert saved == {
        "images_path": "data/images", "backbone": "MobileNetV2", "variance_kept": 0.9,
        "n_features": 1280, "n_components": 8, "labels": "pêche",
    }  # fmt: skip


def test_the_summary_has_a_line_for_each_value_and_step_in_two_columns(run):
    run.note(n_components=8)
    lines = run.summarize().splitlines()
    assert {tuple(re.split("  +", line)) for line in lines} >= {
        ("n_components", "8"), ("backbone", "MobileNetV2"), ("seconds, featurize", "4.0"),
    }  # fmt: skip
    assert len(lines) == 4 + 1
    assert len({re.search("  +", line).end() for line in lines}) == 1


def test_a_finished_run_is_deleted_from_its_folder_and_nothing_else(tmp_path):
    for name in ("features/0.parquet", "figures/a.png", "mine/0.jpg", "notes.txt", "report.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    report.delete_earlier_run(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "notes.txt"}


def test_folders_without_a_report_are_somebodys_own_and_stay(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_bytes(b"1")
    report.delete_earlier_run(str(tmp_path))
    assert (tmp_path / "figures" / "a.png").exists()
