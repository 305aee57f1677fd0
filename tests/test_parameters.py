"""Parameters checked before anything starts: what was found, what is expected, what to do."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from papermill import inspect_notebook

import fruits
from fruits import parameters

PROJECT = Path(fruits.__file__).parents[1]
NOTEBOOK = PROJECT / "notebooks" / "local.ipynb"
CLOUD = PROJECT / "notebooks" / "cloud.ipynb"
NAMES = {
    "images_path", "output_path", "backbone", "weights", "variance_kept",
    "max_components", "pca_model", "quality_seconds", "batch_size", "seed", "save_csv", "spark_master",
    "packed_path", "pictures_per_commit", "recompute", "trigger",
}  # fmt: skip
FOR_THIS_NOTEBOOK = [PROJECT / "params" / name for name in ("local.yaml", "fruits-360.yaml", "smoke.yaml")]
NOT_COUNTS = [0, -1, 1.5, 16.0, "16", True, [16], float("nan")]
ELSEWHERE = ["local.invalid://a", "gs://a/b", "hdfs://a/b", "file:///a", "file:/a", "S3://a/b"]
NOT_SECONDS = [-1, "30", None, True, float("nan"), float("inf"), 1e7]
NOT_SHARES = [0, -0.5, 1.0001, 95, float("nan"), float("inf"), "0.95", "95 %", None, True, [0.95]]
NOT_SEEDS = [-1, 1.5, 0.0, "0", None, True, False, [0], {0}, 2**32]
NOT_TEXT = [None, 3, True, ["data/images"], {"path": "data/images"}]
NOT_INTERVALS = [*NOT_TEXT[1:], "60", "+5", "1 ns", "-1 minute"]


@pytest.fixture
def right(tmp_path):
    """Make a right set of parameters, whose two folders exist."""
    (tmp_path / "pictures" / "Lemon").mkdir(parents=True)
    (tmp_path / "pictures" / "Lemon" / "0.jpg").write_bytes(b"a picture")
    (tmp_path / "mine.weights.h5").write_bytes(b"weights")
    (tmp_path / "earlier" / "pca").mkdir(parents=True)
    (tmp_path / "earlier" / "pca" / "fruits.json").write_text("{}")
    return {
        "images_path": str(tmp_path / "pictures"), "output_path": str(tmp_path / "output"),
        "backbone": "EfficientNetLite0", "weights": "imagenet", "variance_kept": 0.95, "max_components": None,
        "pca_model": None, "quality_seconds": 30, "batch_size": 16, "seed": 0, "save_csv": False,
        "spark_master": "local[*]", "packed_path": None, "pictures_per_commit": 8192, "recompute": False,
        "trigger": None,
    }  # fmt: skip


def complain(values):
    """Give the complaints about parameters, one a line, which must be about one parameter each."""
    with pytest.raises(parameters.ParameterError) as error:
        parameters.check(values)
    title, *complaints = str(error.value).splitlines()
    assert title == "wrong parameters:"
    assert all(line.startswith("  - ") for line in complaints)
    return [line.removeprefix("  - ") for line in complaints]


@pytest.mark.parametrize("change", [
    {},
    {"backbone": "MobileNetV2", "weights": "{}/mine.weights.h5"},
    {"variance_kept": 1, "max_components": 1, "batch_size": 1, "seed": 12, "save_csv": True},
    {"variance_kept": 0.001, "max_components": 100_000, "spark_master": "spark://host:7077"},
    {"output_path": "{}/pictures of fruit"},
    {"pca_model": "{}/earlier/pca"},
    {"packed_path": "{}/packed", "recompute": True, "pictures_per_commit": 1},
    {"trigger": "1 minute"},
    {"trigger": "90 seconds"},
    {"images_path": "{}/pictures/", "output_path": "{}/pictures/../new/deep"},
])  # fmt: skip
def test_a_right_set_passes(right, tmp_path, change):
    change = {name: value.format(tmp_path) if isinstance(value, str) else value for name, value in change.items()}
    assert parameters.check(right | change) is None


def test_what_a_notebook_holds_besides_its_parameters_is_no_parameter(right):
    surroundings = {"In": [""], "Out": {}, "_": 3, "_ih": [""], "__name__": "__main__", "json": json, "run": complain}
    parameters.check(right | surroundings)


def test_a_second_check_passes_after_other_cells_left_names(right):
    parameters.check(right)
    right |= {"cores": 2, "java": "17.0.9", "megabytes": 13.5, "columns": ["a"], "image_path": "x"}
    parameters.check(right)


def test_a_second_check_still_finds_what_became_wrong(right):
    parameters.check(right)
    right |= {"cores": 2, "batch_size": 0}
    assert [re.match(r"batch_size is 0", line) is not None for line in complain(right)] == [True]


def test_a_check_that_failed_lets_no_unknown_name_pass_the_next_time(right):
    for _ in range(2):
        assert complain(right | {"batchsize": 3}) == complain(right | {"batchsize": 3})


@pytest.mark.parametrize(("name", "value", "expected"), [
    *(("images_path", value, "the path of a folder that exists") for value in [*NOT_TEXT, "", "data/no such folder"]),
    ("images_path", Path("data/images"), "the path of a folder that exists"),
    ("images_path", "pyproject.toml", "the path of a folder that exists"),
    *(("images_path", value, "a path of this machine or s3://...") for value in ELSEWHERE),
    *(("output_path", value, "a path of this machine or s3://...") for value in ELSEWHERE),
    *(("output_path", value, "the path of a folder") for value in [*NOT_TEXT, ""]),
    *(("backbone", value, "a network's name, such as EfficientNetLite0") for value in NOT_TEXT),
    *(("weights", value, '"imagenet", or the path of a file') for value in [*NOT_TEXT, "", "no.h5", "data"]),
    *(("variance_kept", value, "a number above 0 and up to 1") for value in NOT_SHARES),
    *(("max_components", value, "a whole number from 1 on, or nothing") for value in NOT_COUNTS),
    *(("pca_model", value, "the folder pca/ that an earlier run left") for value in [*NOT_TEXT[1:], "", "data"]),
    *(("quality_seconds", value, "a number of seconds, 0 to 1e6") for value in NOT_SECONDS),
    *(("batch_size", value, "a whole number from 1 to 4096") for value in [*NOT_COUNTS, 4097, None]),
    *(("seed", value, "a whole number from 0 to 4294967295") for value in NOT_SEEDS),
    *(("save_csv", value, "true or false") for value in [0, 1, "true", "yes", None, []]),
    *(("packed_path", value, "the path of a folder, or nothing") for value in [*NOT_TEXT[1:], ""]),
    *(("pictures_per_commit", value, "a whole number from 1 on") for value in [*NOT_COUNTS, None]),
    *(("recompute", value, "true or false") for value in [0, 1, "true", None]),
    *(("trigger", value, 'an interval such as "1 minute"') for value in NOT_INTERVALS),
    *(("spark_master", value, 'an address such as "local[*]"') for value in [*NOT_TEXT, "", "foo", "local[0]"]),
])  # fmt: skip
def test_a_wrong_value_is_refused_with_what_was_found_and_expected(right, name, value, expected):
    (complaint,) = complain(right | {name: value})
    assert complaint.startswith(name)
    assert str(value) in complaint
    assert f"expected {expected}" in complaint
    assert re.search(r"correct it|choose another|rename|set ", complaint)


@pytest.mark.parametrize("interval", ["", "soon", "minute 1"])
def test_an_interval_that_cannot_be_read_is_refused(right, interval):
    (complaint,) = complain(right | {"trigger": interval})
    assert re.match(rf"trigger.*'{interval}'.*expected an interval such as \"1 minute\"", complaint)


def test_what_arrives_later_is_not_packed_and_so_the_two_are_refused_together(right, tmp_path):
    (complaint,) = complain(right | {"trigger": "1 minute", "packed_path": f"{tmp_path}/packed"})
    assert complaint.startswith("packed_path and trigger are both set")


def test_pictures_are_packed_into_no_folder_that_holds_something_else(right, tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    parameters.check(right | {"packed_path": str(packed)})
    (packed / "letter.txt").write_text("mine")
    (complaint,) = complain(right | {"packed_path": str(packed)})
    assert re.match("packed_path: .* holds files that are no packed pictures: give a folder that is new", complaint)
    (packed / "_changes").mkdir()  # an earlier run has packed there
    parameters.check(right | {"packed_path": str(packed)})


def test_results_do_not_lie_among_pictures_by_a_link_either(right, tmp_path):
    (tmp_path / "link").symlink_to(right["images_path"])
    for pictures, output in ((f"{tmp_path}/link", right["images_path"]), (right["images_path"], f"{tmp_path}/link")):
        (complaint,) = complain(right | {"images_path": pictures, "output_path": f"{output}/out"})
        assert re.match("output_path .* lies inside images_path", complaint)


def test_results_do_not_lie_among_packed_pictures(right, tmp_path):
    (complaint,) = complain(right | {"output_path": f"{tmp_path}/p/out", "packed_path": f"{tmp_path}/p"})
    assert re.match("output_path .* lies in packed_path", complaint)


@pytest.mark.parametrize("packed", ["pictures", "pictures/packed", "."])
def test_pictures_are_not_packed_into_their_own_folder(right, tmp_path, packed):
    (tmp_path / packed / "_changes").mkdir(parents=True)  # as if it had taken packed pictures before
    (complaint,) = complain(right | {"packed_path": f"{tmp_path}/{packed}"})
    assert re.match("packed_path .* lie in each other: set packed_path elsewhere", complaint)


def test_every_parameter_has_wrong_values_above():
    marks = test_a_wrong_value_is_refused_with_what_was_found_and_expected.pytestmark
    assert {case[0] for mark in marks for case in mark.args[1]} == set(parameters.RULES) == NAMES


@pytest.mark.parametrize(("name", "word", "meant"), [
    ("save_csv", "true", "True after -p, true"), ("recompute", "FALSE", "False after -p, false"),
    ("max_components", "None", "None after -p, null"),
])  # fmt: skip
def test_a_word_that_papermill_takes_for_text_is_refused_with_the_one_that_it_knows(right, name, word, meant):
    (complaint,) = complain(right | {name: word})
    told = rf"{name} is '{word}' \(str\), expected .*: correct it .*; it is {meant} in a file$"
    assert re.match(told, complaint)


@pytest.mark.parametrize(("name", "word"), [("max_components", "true"), ("save_csv", "none")])
def test_a_word_that_would_be_wrong_too_is_not_proposed(right, name, word):
    (complaint,) = complain(right | {name: word})
    assert " in a file" not in complaint


def test_features_of_another_network_are_refused_before_anything_is_started(right, tmp_path):
    given = right | {"output_path": f"{tmp_path}/output", "backbone": "MobileNetV2"}
    (tmp_path / "output" / "features").mkdir(parents=True)
    (tmp_path / "output" / "features" / "_fingerprint.json").write_text('{"backbone": "EfficientNetLite0"}')
    parameters.check(dict(given))  # there are no features
    (tmp_path / "output" / "features" / "part-0.parquet").touch()
    (complaint,) = complain(given)
    assert re.match("backbone is 'MobileNetV2', but the features in .* network, 'EfficientNetLite0': set", complaint)
    parameters.check(given | {"recompute": True})


@pytest.mark.parametrize(("wrong", "meant"), [("mobilenetv2", "MobileNetV2"), ("RestNet50", "ResNet50")])
def test_an_unknown_backbone_is_refused_with_the_nearest_names(right, wrong, meant):
    (complaint,) = complain(right | {"backbone": wrong})
    assert re.match(rf"backbone.*'{wrong}'.*expected .*\b{meant}\b.*: correct it", complaint)


def test_an_output_that_cannot_be_written_is_refused_with_the_reason(right, tmp_path):
    (tmp_path / "a file").write_text("in the way")
    path = f"{tmp_path}/a file/output"
    (complaint,) = complain(right | {"output_path": path})
    assert re.match(rf"output_path:? {path!r} cannot be written \(", complaint)
    assert re.search(r"\): choose another folder,? or give rights on it$", complaint)


def test_a_storage_that_does_not_answer_is_a_complaint_like_others(right, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    complaints = complain(right | {"images_path": "s3://bucket/pictures", "batch_size": 0})
    assert [re.match(r"\w+", complaint)[0] for complaint in complaints] == ["images_path", "batch_size"]


def test_checking_the_output_leaves_no_file_in_it(right, tmp_path):
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "report.json").write_text("of an earlier run")
    parameters.check(right)
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["report.json"]


def test_a_refused_run_leaves_no_folder(right, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    complain(right | {"batch_size": 0})
    complain(right | {"output_path": f"{tmp_path}/pictures/output"})
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("output", ["pictures", "pictures/output", "pictures/a/../b", "output/../pictures"])
def test_an_output_inside_the_pictures_is_refused(right, tmp_path, output):
    (complaint,) = complain(right | {"output_path": f"{tmp_path}/{output}"})
    assert re.match(r"output_path .* lies inside images_path .*: set output_path elsewhere", complaint)


@pytest.mark.parametrize("name", ["rejected", "features", "changes", "pca/of/mine"])
def test_pictures_in_a_folder_that_is_for_results_are_refused(right, tmp_path, name):
    shutil.copytree(tmp_path / "pictures", tmp_path / "output" / name)
    (complaint,) = complain(right | {"images_path": f"{tmp_path}/output/{name}", "output_path": f"{tmp_path}/output"})
    table = name.split("/")[0]
    assert re.match(rf"images_path .* lies inside output_path .* whose folder {table}/ is for results: set", complaint)


@pytest.mark.parametrize("name", ["projection", "features", "listing/mine"])
def test_pictures_are_not_packed_into_a_folder_that_is_for_results(right, tmp_path, name):
    given = right | {"packed_path": f"{tmp_path}/output/{name}", "output_path": f"{tmp_path}/output"}
    (complaint,) = complain(given)
    table = name.split("/")[0]
    assert re.match(rf"packed_path .* whose folder {table}/ is for results: set packed_path elsewhere", complaint)
    parameters.check(given | {"packed_path": f"{tmp_path}/output/packed"})


@pytest.mark.parametrize("output", ["earlier", "earlier/pca"])
def test_a_saved_pca_that_the_run_would_delete_is_refused(right, tmp_path, output):
    (complaint,) = complain(right | {"pca_model": f"{tmp_path}/earlier/pca", "output_path": f"{tmp_path}/{output}"})
    assert re.match(r"pca_model .* lies inside output_path .* replaces: set output_path elsewhere", complaint)


@pytest.mark.parametrize(("name", "value"), [("max_components", 8), ("variance_kept", 0.9)])
def test_a_saved_pca_and_a_choice_of_components_are_refused_together(right, tmp_path, name, value):
    (complaint,) = complain(right | {"pca_model": f"{tmp_path}/earlier/pca", name: value})
    assert re.match(rf"{name} {value} has no effect on pca_model .*: leave one of them out", complaint)


def test_a_folder_without_files_is_refused_and_features_made_of_it_before_stay(right, tmp_path):
    (tmp_path / "pictures" / "Lemon" / "0.jpg").unlink()
    (complaint,) = complain(right)
    assert complaint.startswith(f"images_path '{tmp_path}/pictures' holds no file: put pictures there")
    assert complaint.endswith(", or set trigger to wait for them")
    assert "earlier runs" not in complaint
    (tmp_path / "output" / "features").mkdir(parents=True)
    (complaint,) = complain(right)
    assert complaint.endswith(f"; features of earlier runs stay until '{tmp_path}/output' is deleted")
    assert (tmp_path / "output" / "features").exists()
    parameters.check(right | {"trigger": "1 minute"})


@pytest.mark.parametrize(("error", "said"), [
    (PermissionError(13, "Permission denied"), r"Permission denied\): give rights on it$"),
    (OSError("AWS Error ACCESS_DENIED during ListObjectsV2"), r"during ListObjectsV2\): give rights on it$"),
    (OSError("a is a link back to a folder on the way to it: delete it"), r": delete it\)$"),
], ids=["here", "S3", "a loop"])  # fmt: skip
def test_a_folder_that_cannot_be_listed_is_told(right, monkeypatch, error, said):
    def list_files(folder):
        raise error
        yield

    monkeypatch.setattr(parameters.storage, "list_files", list_files)
    (complaint,) = complain(right)
    assert re.search(f"images_path .* cannot be listed .*{said}", complaint)


@pytest.mark.parametrize("name", ["images_path", "output_path", "weights", "pca_model"])
@pytest.mark.parametrize("path", ["data/[1]", "data/*.jpg"])
def test_a_path_that_spark_reads_as_a_pattern_is_refused_under_its_name(right, name, path):
    (complaint,) = complain(right | {name: path})
    assert re.match(rf"{name}.*{re.escape(repr(path))}.*pattern.*rename", complaint)


@pytest.mark.parametrize(("wrong", "meant"), [
    ("image_path", "images_path"), ("IMAGES_PATH", "images_path"), ("batchsize", "batch_size"),
    ("variance", "variance_kept"), ("n_components", "max_components"), ("save_cvs", "save_csv"),
])  # fmt: skip
@pytest.mark.parametrize("value", ["text", 3, None, True])
def test_an_unknown_name_is_refused_with_the_one_that_is_meant(right, wrong, meant, value):
    (complaint,) = complain(right | {wrong: value})
    assert re.match(rf"'{wrong}' is unknown.*\b{meant}\b.*remove it, or correct it where it is set ", complaint, re.I)
    assert not any(name in complaint for name in NAMES - {meant, wrong})


def test_a_name_like_no_other_is_refused_with_all_that_there_are(right):
    (complaint,) = complain(right | {"zzz": 1})
    assert all(name in complaint for name in NAMES)


def test_several_faults_are_told_together(right):
    wrong = {"image_path": "a", "batch_size": "16", "variance_kept": 95, "backbone": "VGG61", "save_csv": 1}
    complaints = complain(right | wrong)
    assert len(complaints) == 5
    for name in wrong:
        assert any(re.match(rf"'?{name}\b", complaint) for complaint in complaints), name


def test_the_notebook_declares_exactly_the_parameters_that_are_checked():
    declared = inspect_notebook(str(NOTEBOOK))
    assert set(declared) == set(parameters.RULES) == NAMES
    assert all(parameter["help"] and parameter["inferred_type_name"] != "None" for parameter in declared.values())
    assert float(declared["variance_kept"]["default"]) == parameters.VARIANCE_KEPT


def test_the_cloud_declares_the_same_parameters_but_where_spark_runs():
    declared = inspect_notebook(str(CLOUD))
    assert set(declared) == NAMES - {"spark_master"}
    assert all(parameter["help"] for parameter in declared.values())


def test_the_params_file_of_the_cloud_holds_its_two_folders_on_s3():
    values = yaml.safe_load((PROJECT / "params" / "cloud.yaml").read_text(encoding="utf-8"))
    assert set(values) == {"images_path", "output_path"}
    assert all(value.startswith("s3://") for value in values.values())


@pytest.mark.parametrize("path", FOR_THIS_NOTEBOOK, ids=lambda path: path.name)
def test_a_params_file_holds_only_names_that_the_notebook_declares(path):
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    declared = inspect_notebook(str(NOTEBOOK))
    assert values
    assert set(values) <= set(declared)
    defaults = {name: declared[name]["default"].strip("\"'") for name in values}
    same = [name for name in values if str(values[name]) == defaults[name]]
    assert set(same) <= {"images_path", "output_path"}, "a params file holds only what differs from the defaults"


@pytest.mark.parametrize("path", FOR_THIS_NOTEBOOK, ids=lambda path: path.name)
def test_a_params_file_has_right_values(right, path):
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name in ("images_path", "output_path"):
        assert values.pop(name).startswith("data/")
    parameters.check(right | values)


def test_the_help_of_the_notebook_prints_every_parameter_with_its_type_and_comment():
    command = [sys.executable, "-m", "papermill", "--help-notebook", NOTEBOOK]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    printed = " ".join(answer.stdout.split())
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    (cell,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    lines = [line.strip() for line in "".join(cell["source"]).splitlines()]
    assert len(lines) == len(NAMES)
    for line in lines:
        name, kind, default, comment = re.fullmatch(r"(\w+): (\w+) = (.+?)  # (.+)", line).groups()
        assert f"{name}: {kind} (default {default}) {comment}" in printed
