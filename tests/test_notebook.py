"""local.ipynb executed by papermill from elsewhere, its results read without Spark; its text and cloud.ipynb's."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import nbformat
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import walk
from PIL import Image

from fruits import backbones
from fruits.tensorflow_setup import keras

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "local.ipynb"
CLOUD = ROOT / "notebooks" / "cloud.ipynb"
FIRST_STEP = "## 3. Load the pictures"
IMAGES = ROOT / "data" / "images"
COMPONENTS = 8  # params/smoke.yaml
LEFT_BY_SPARK = ("spark-warehouse", "metastore_db", "derby.log")
CHECK = "parameters.check("
LOG_LINE = re.compile(
    r"\bWARN\b|\bERROR\b|\bI0000\b|oneDNN|SLF4J|log4j|tensorflow/c|cuda|Setting default log level", re.I
)


def run_papermill(notebook, executed, *options):
    """Run a notebook as a person does in a terminal, in a folder of its own, outside the project."""
    folder = executed.parent / "elsewhere"
    folder.mkdir()
    command = [sys.executable, "-m", "papermill", "--log-output", notebook, executed, *options]
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"}
    answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    return answer, folder


def get_outputs(notebook, name):
    """Get the texts that a notebook wrote to one stream."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.text for output in outputs if output.output_type == "stream" and output.name == name]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One run of the notebook, with its check of the parameters once more at its end."""
    folder = tmp_path_factory.mktemp("smoke")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (check,) = [cell.source for cell in notebook.cells if CHECK in cell.source]
    notebook.cells.append(nbformat.v4.new_code_cell(check))
    nbformat.write(notebook, folder / "local.ipynb")
    options = ["-f", ROOT / "params" / "smoke.yaml", "-p", "output_path", folder / "output"]
    answer, elsewhere = run_papermill(folder / "local.ipynb", folder / "out.ipynb", *options)
    assert answer.returncode == 0, answer.stderr[-3000:]
    return SimpleNamespace(
        output=folder / "output",
        executed=nbformat.read(folder / "out.ipynb", as_version=4),
        log=answer.stdout + answer.stderr,
        elsewhere=elsewhere,
        report=json.loads((folder / "output" / "report.json").read_text()),
        features=pq.read_table(folder / "output" / "features"),
        projection=pq.read_table(folder / "output" / "projection"),
    )


@pytest.fixture(scope="module", params=[NOTEBOOK, CLOUD], ids=lambda path: path.stem)
def source(request):
    return nbformat.read(request.param, as_version=4)


def count_pictures():
    return sum(len(files) for _, _, files in os.walk(IMAGES))


def stack(table, column):
    return np.stack(table.column(column).to_pylist()).astype(float)


def test_every_cell_ran_without_an_error_even_the_check_twice(smoke):
    cells = [cell for cell in smoke.executed.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert CHECK in cells[-1].source


def test_no_cell_shows_a_log_line(smoke):
    assert get_outputs(smoke.executed, "stderr") == []
    text = "".join(get_outputs(smoke.executed, "stdout"))
    assert text
    assert not LOG_LINE.search(text)


def test_progress_is_a_line_in_the_log_for_each_step_of_the_way_and_the_last_one_in_the_notebook(smoke):
    line = re.compile(r"[\d,]+ of [\d,]+ pictures, \d+ rejected, [\d,.]+ a second, \d+ s( left)?")
    kept = [found[0] for found in line.finditer("".join(get_outputs(smoke.executed, "stdout")))]
    logged = [found[0] for found in line.finditer(smoke.log)]
    assert len(kept) == 1
    assert kept[0].startswith(f"{count_pictures()} of {count_pictures()} pictures, 0 rejected")
    assert len(logged) >= 2
    assert logged[-1] == kept[0]
    assert not re.search(r"\[Stage \d+", smoke.log)  # Spark's own


def test_the_report_tells_what_is_new_and_how_earlier_runs_went(smoke):
    counts = {name: smoke.report[f"images_{name}"] for name in ("found", "new", "changed", "unchanged", "deleted")}
    assert counts == {"found": count_pictures(), "new": count_pictures(), "changed": 0, "unchanged": 0, "deleted": 0}
    (entry,) = smoke.report["history"]
    assert entry["finished"] == smoke.report["finished"]
    assert entry["images_per_second"] == smoke.report["images_per_second"] > 0


def test_the_features_are_a_table_of_every_picture(smoke):
    schema = smoke.features.schema
    assert schema.names == ["path", "label", "length", "modificationTime", "features"]
    assert [schema.field(name).type for name in ("path", "label", "length")] == [
        pa.string(),
        pa.string(),
        pa.int64(),
    ]
    assert pa.types.is_timestamp(schema.field("modificationTime").type)
    assert schema.field("features").type.value_type == pa.float32()
    assert stack(smoke.features, "features").shape == (count_pictures(), 1280)
    rows = smoke.features.select(["path", "label", "length"]).to_pylist()
    found = {(row["path"].removeprefix("file:"), row["label"], row["length"]) for row in rows}
    assert found == {(str(path), path.parent.name, path.stat().st_size) for path in IMAGES.glob("*/*")}


def test_the_features_equal_plain_keras_in_this_process(smoke, feature_extractor):
    chosen = smoke.features.take([0, 100, 200])
    pixels = []
    for path in chosen.column("path").to_pylist():
        with Image.open(path.removeprefix("file:")) as picture:
            pixels.append(np.float32(picture.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)))
    expected = feature_extractor.predict(np.stack(pixels), verbose=0)
    np.testing.assert_allclose(stack(chosen, "features"), expected, atol=1e-4 * expected.max())


def test_the_rejected_are_a_table_of_reasons(smoke):
    rejected = pq.read_table(smoke.output / "rejected")
    assert rejected.schema.names == ["path", "length", "modificationTime", "reason"]
    assert [rejected.schema.field(name).type for name in ("path", "length", "reason")] == [
        pa.string(), pa.int64(), pa.string(),
    ]  # fmt: skip
    assert rejected.num_rows == 0


def test_the_projection_is_numpys_pca_of_the_features(smoke):
    assert smoke.projection.schema.names == ["path", "label", "pca"]
    features = smoke.features.sort_by("path")
    projection = smoke.projection.sort_by("path")
    assert projection.column("path").equals(features.column("path"))
    values = stack(features, "features")
    left, singular, _ = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    expected = (left * singular)[:, :COMPONENTS]
    found = stack(projection, "pca")
    assert found.shape == expected.shape
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-3 * np.abs(expected).max())


def test_the_csv_holds_the_projection_with_a_column_for_each_component(smoke):
    parts = sorted((smoke.output / "projection_csv").glob("*.csv"))
    table = pd.concat(map(pd.read_csv, parts)).sort_values("path")
    assert list(table.columns) == ["path", "label", *(f"pca_{number}" for number in range(1, COMPONENTS + 1))]
    expected = smoke.projection.sort_by("path")
    assert table.path.tolist() == expected.column("path").to_pylist()
    np.testing.assert_allclose(table.iloc[:, 2:], stack(expected, "pca"), rtol=1e-5)


def test_names_with_quotes_and_commas_come_back_from_the_csv(walk_notebook, encode_picture, tmp_path):
    labels = ["plain", 'say "ripe"', "red, sweet", 'ends with "', "it's; so"]
    pixels = np.random.default_rng(0).integers(0, 256, (2 * len(labels), *walk.SIZE, 3), np.uint8)
    for number, picture in enumerate(pixels):
        folder = tmp_path / "images" / labels[number % len(labels)]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f'{number} "a", b.png').write_bytes(encode_picture(picture, "PNG"))
    paths = {"images_path": str(tmp_path / "images"), "output_path": str(tmp_path / "out")}
    walk_notebook(paths | {"save_csv": True}, walk.PROJECTION)
    table = pd.concat(map(pd.read_csv, (tmp_path / "out" / "projection_csv").glob("*.csv")))
    expected = pq.read_table(tmp_path / "out" / "projection").to_pylist()
    assert sorted(zip(table.path, table.label, strict=True)) == sorted((row["path"], row["label"]) for row in expected)
    assert set(table.label) == set(labels)


def test_the_model_and_the_figures_are_there(smoke):
    assert (smoke.output / "pca" / "metadata").is_dir()
    pictures = sorted((smoke.output / "figures").iterdir())
    names = ["accuracy", "confusion", "extremes", "neighbours", "pictures", "two_components", "variance"]
    assert [path.stem for path in pictures] == names
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert np.asarray(picture).std() > 5


def test_the_report_accounts_for_every_picture(smoke):
    report = smoke.report
    assert (
        report["images_found"] == report["images_featurized"] + report["images_rejected"] == count_pictures()
    )
    assert (report["n_features"], report["n_components"]) == (1280, COMPONENTS)
    assert (report["backbone"], report["variance_kept"]) == ("EfficientNetLite0", 0.95)
    assert re.fullmatch("[0-9a-f]{64}", report["weights_sha256"])
    assert all(seconds >= 0 for seconds in report["seconds"].values())
    assert {"start Spark", "featurize", "fit the PCA", "project"} <= set(report["seconds"])
    rate = report["images_featurized"] / report["seconds"]["featurize"]
    assert report["images_per_second"] == pytest.approx(rate, abs=0.1)
    assert {"python", "pyspark", "tensorflow", "pillow", "pandas", "pyarrow"} <= set(report["versions"])


def test_the_report_says_how_well_labels_are_told_apart(smoke):
    report = smoke.report
    used = report["quality_pictures"]
    assert used["fitted"] + used["tested"] <= used["all"] == count_pictures()
    # Drawn fruits are easy: far better than a guess, and no better with 8 components than with all features.
    for name in ("accuracy_features", "accuracy_projection"):
        assert 0.5 < report[name] <= 1
    assert report["accuracy_baseline"] < 0.2
    assert report["accuracy_projection"] <= report["accuracy_features"] + 0.05


def test_nothing_is_left_where_the_notebook_ran_or_in_the_project(smoke):
    assert list(smoke.elsewhere.iterdir()) == []
    assert {path.name for path in smoke.output.iterdir()} == {
        "features", "rejected", "listing", "pca", "projection", "projection_csv", "figures", "report.json",
        "quality.json", "changes",
    }  # fmt: skip
    assert not [
        name for name in LEFT_BY_SPARK for folder in (ROOT, ROOT / "notebooks") if (folder / name).exists()
    ]


def test_a_run_with_nothing_new_shows_the_figures_of_the_run_before_and_draws_one_that_is_gone(smoke, tmp_path):
    output = shutil.copytree(smoke.output, tmp_path / "output")
    names, gone = ("variance", "two_components", "neighbours"), "extremes.png"
    shown = [output / "figures" / f"{name}.png" for name in names]
    before = [path.stat().st_mtime_ns for path in shown]
    (output / "figures" / gone).unlink()
    options = ["-f", ROOT / "params" / "smoke.yaml", "-p", "output_path", output]
    answer, _ = run_papermill(NOTEBOOK, tmp_path / "executed.ipynb", *options)
    assert answer.returncode == 0, answer.stderr[-3000:]
    executed = nbformat.read(tmp_path / "executed.ipynb", as_version=4)
    assert "the results of the earlier run stand" in "".join(get_outputs(executed, "stdout"))
    assert [path.stat().st_mtime_ns for path in shown] == before
    assert (output / "figures" / gone).read_bytes() == (smoke.output / "figures" / gone).read_bytes()
    cells = [cell for cell in executed.cells if "load_figure(" in cell.source]
    assert len(cells) == 4
    assert all("image/png" in cell.outputs[-1].data for cell in cells)


@pytest.mark.parametrize(("count", "seconds"), [(1, 30), (5, 0)], ids=["one picture", "five, their quality not wanted"])
def test_a_later_run_with_the_saved_pca_gives_pictures_the_same_coordinates(
    smoke, walk_notebook, tmp_path, count, seconds
):
    rows = smoke.projection.to_pylist()[::50][:count]
    for row in rows:
        (tmp_path / "images" / row["label"]).mkdir(parents=True)
        shutil.copy(row["path"].removeprefix("file:"), tmp_path / "images" / row["label"])
    paths = {"images_path": tmp_path / "images", "output_path": tmp_path / "out", "pca_model": smoke.output / "pca"}
    values = {name: str(path) for name, path in paths.items()} | {"quality_seconds": seconds}
    walk_notebook(values, walk.ALL, backbones.build_network)
    table = pq.read_table(tmp_path / "out" / "projection").to_pylist()
    found = {(row["label"], Path(row["path"]).name): row["pca"] for row in table}
    assert len(found) == len(rows) == count
    for row in rows:
        same = found[row["label"], Path(row["path"]).name]
        np.testing.assert_allclose(same, row["pca"], atol=1e-5 * np.abs(row["pca"]).max())
    about = [json.loads((folder / "pca" / "fruits.json").read_text()) for folder in (smoke.output, tmp_path / "out")]
    assert about[0] == about[1]


def test_results_of_a_saved_pca_do_not_stand_once_another_lies_in_its_place(source):
    (cell,) = [cell.source for cell in source.cells if "run.depend_on(" in cell.source]

    def list_what_it_depends_on(k, variance):
        names = mock.MagicMock()
        names.reduction.load_pca.return_value = SimpleNamespace(k=k, variance=np.array([variance, 0.1]))
        names.fingerprint = {"weights_sha256": "ab" * 32}
        names.backbones.compute_fingerprint.return_value = names.fingerprint
        used = "backbones", "reduction", "increments", "storage", "run", "backbone", "feature_extractor", "output_path"
        exec(cell, {name: getattr(names, name) for name in used} | {"pca_model": "keep", "recompute": False})  # noqa: S102
        return [call.kwargs for call in names.run.depend_on.call_args_list]

    first = list_what_it_depends_on(5, 1.5)
    assert list_what_it_depends_on(5, 1.5) == first == json.loads(json.dumps(first))
    assert list_what_it_depends_on(6, 1.5) != first
    assert list_what_it_depends_on(5, 1.6) != first


def test_a_saved_pca_of_other_weights_is_refused_before_any_picture_is_featurized(
    smoke, feature_extractor, walk_notebook, tmp_path
):
    weights = [1.01 * values for values in feature_extractor.get_weights()]
    other = keras.models.clone_model(feature_extractor)
    other.set_weights(weights)
    other.save_weights(tmp_path / "other.weights.h5")
    paths = {"output_path": tmp_path / "out", "pca_model": smoke.output / "pca"}
    paths["weights"] = tmp_path / "other.weights.h5"
    with pytest.raises(ValueError, match="fitted on features of another network: their weights_sha256 .*this run's"):
        walk_notebook({name: str(path) for name, path in paths.items()}, walk.ALL, backbones.build_network)
    assert not (tmp_path / "out" / "features").exists()


def test_wrong_and_unknown_parameters_stop_the_run_before_spark(tmp_path):
    options = ["-p", "output_path", tmp_path / "output", "-p", "variance_kept", "2", "-p", "image_path", "x"]
    answer, _ = run_papermill(NOTEBOOK, tmp_path / "out.ipynb", *options)
    assert answer.returncode != 0
    assert "variance_kept is 2 (int), expected a number above 0 and up to 1" in answer.stderr
    assert re.search("'image_path' is unknown.*images_path", answer.stderr)
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert not [text for text in get_outputs(executed, "stdout") if "Spark" in text]


# --- The notebooks as they lie in git ------------------------------------------------------------------------


def test_the_notebook_is_stored_without_results(source):
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    nbformat.validate(source)


def test_each_notebook_opens_with_its_kernel():
    kernels = [nbformat.read(path, as_version=4).metadata.kernelspec.name for path in (NOTEBOOK, CLOUD)]
    assert kernels == ["python3", "pysparkkernel"]


def list_steps(path):
    """List the cells of a notebook from its first step to its last, without those that only show a figure."""
    cells = [(cell.cell_type, cell.source) for cell in nbformat.read(path, as_version=4).cells]
    first = next(number for number, (_, text) in enumerate(cells) if text.startswith(FIRST_STEP))
    steps = [cell for cell in cells[first:] if not cell[1].startswith(("SVG(", "%matplot"))]
    last = max(number for number, (_, text) in enumerate(steps) if "run.save(" in text)
    return steps[: last + 1], steps[last + 1 :]


def test_the_steps_are_the_same_on_one_machine_and_in_the_cloud_word_for_word():
    (local, local_end), (cloud, cloud_end) = list_steps(NOTEBOOK), list_steps(CLOUD)
    assert cloud == local
    assert len(local) > 40
    assert (len(local_end), len(cloud_end)) == (2, 1)  # stop Spark; a last word


def test_the_cloud_shows_each_figure_after_the_cell_that_draws_it():
    texts = [cell.source for cell in nbformat.read(CLOUD, as_version=4).cells]
    drawn = [number for number, text in enumerate(texts) if "figures.save_figure(" in text]
    assert drawn
    assert [number for number, text in enumerate(texts) if text == "%matplot plt"] == [n + 1 for n in drawn]


def test_each_figure_is_told_in_words_to_those_who_do_not_see_it():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    shown = [cell for cell in cells if re.search(r"^SVG\(|figures\.save_figure\(", cell.source, re.M)]
    told = [cell.metadata.get("alt", "") for cell in shown]
    assert len(set(told)) == len(told) > 10
    assert all(len(text) > 20 for text in told)


def test_about_half_of_the_cells_explain(source):
    share = sum(cell.cell_type == "markdown" for cell in source.cells) / len(source.cells)
    assert 0.45 <= share <= 0.60


def test_cells_are_short_and_so_are_their_lines(source):
    for cell in source.cells:
        lines = cell.source.splitlines()
        assert 1 <= len(lines) <= 20
        limit = 110 if cell.cell_type == "code" else 120  # a page wraps text; code would scroll
        assert [line for line in lines if len(line) > limit] == []


def test_no_function_is_defined_and_no_cell_is_there_twice_but_to_show_a_figure(source):
    code = [cell.source for cell in source.cells if cell.cell_type == "code"]
    assert not [text for text in code if re.search(r"^\s*(async def|def|class)\b", text, re.M)]
    texts = [cell.source.strip() for cell in source.cells if not cell.source.startswith("%matplot")]
    assert len(set(texts)) == len(texts)


def test_imports_stand_in_one_cell_but_tensorflows_and_parameters_in_another(source):
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    lines = [re.findall(r"^(?:import|from) .*", cell.source, re.M) for cell in code]
    first, later = filter(None, lines)
    assert later == ["from fruits import backbones", "from fruits.tensorflow_setup import keras"]
    assert not re.search("backbones|keras", "".join(first))
    (parameters,) = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert all(re.fullmatch(r"\w+: \w+ = .+  # .+", line) for line in parameters.source.splitlines())
