"""The PCA against NumPy's singular values and pyspark.ml's; k by hand; the model without the package."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.feature import PCA, StandardScaler
from pyspark.ml.functions import array_to_vector
from sklearn.decomposition import PCA as SklearnPca  # noqa: N811 -- pyspark's has the same name

from fruits import features, reduction

# Loads the model with pyspark alone, projects the table and prints the vectors; must not meet the package.
LOAD_ELSEWHERE = """
import json, sys
from pyspark.ml import PipelineModel
from pyspark.ml.functions import array_to_vector
from pyspark.sql import SparkSession
model_path, table_path = sys.argv[1:]
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
table = spark.read.parquet(table_path).withColumn("vector", array_to_vector("features")).orderBy("number")
rows = PipelineModel.load(model_path).transform(table).collect()
print(json.dumps({"found": [row.pca.toArray().tolist() for row in rows], "modules": sorted(sys.modules)}))
"""


def make_table(spark, values, partitions=2):
    """Make a table of float32 vectors: (number, features)."""
    rows = pd.DataFrame({"number": range(len(values)), "features": list(np.float32(values))})
    return spark.createDataFrame(rows, "number long, features array<float>").repartition(partitions, "number")


def draw(kind):
    """Draw vectors by lot, (n, d) float32, of which each column has a variance of its own."""
    lots = np.random.default_rng(3)
    values = lots.normal(size=(60, 12)) * np.geomspace(5, 0.1, 12)
    if kind == "mean of a million":
        values = values * 100 + 1e6
    elif kind == "rank of five":
        values = values[:, :5] @ lots.normal(size=(5, 12))
    elif kind == "fewer rows than columns":
        values = values[:7]
    elif kind == "constant column":
        values[:, 4] = 2.5
    elif kind == "variances from 1 to 1e-12":
        values = lots.normal(size=(60, 12)) * np.geomspace(1, 1e-6, 12)
    elif kind == "sparse as after a ReLU":
        values = np.maximum(values - 1, 0)
    return np.float32(values)


def fit_by_numpy(values):
    """Fit a PCA by singular values, k = min(n, d): variance (k,), scores (n, k), directions (d, k)."""
    centred = np.float64(values) - np.float64(values).mean(axis=0)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    return singular**2 / (len(values) - 1), left * singular, right.T


def make_pca(ratios):
    """Make a PCA by hand, of which each component has a given share of the variance."""
    return reduction.Pca(np.zeros(len(ratios)), np.eye(len(ratios)), 8.0 * np.asarray(ratios), 100)


@pytest.mark.parametrize("partitions", [1, 5])
@pytest.mark.parametrize(
    "kind", ["plain", "mean of a million", "rank of five", "fewer rows than columns", "constant column",
             "variances from 1 to 1e-12", "sparse as after a ReLU"]
)  # fmt: skip
def test_the_fit_equals_numpys_singular_values(spark, kind, partitions):
    values = draw(kind)
    variance, scores, directions = fit_by_numpy(values)
    pca = reduction.fit_pca(make_table(spark, values, partitions))
    rank = int((variance > 1e-9 * variance[0]).sum())
    assert pca.rows == len(values)
    np.testing.assert_allclose(pca.mean, np.float64(values).mean(axis=0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(pca.variance[:rank], variance[:rank], rtol=1e-6)
    np.testing.assert_allclose(pca.variance[rank:], 0, atol=1e-9 * variance[0])
    np.testing.assert_allclose(pca.components.T @ pca.components, np.eye(12), atol=1e-10)
    signs = np.sign((pca.components[:, :rank] * directions[:, :rank]).sum(axis=0))
    ours = (np.float64(values) - pca.mean) @ pca.components[:, :rank] * signs
    np.testing.assert_allclose(ours, scores[:, :rank], atol=1e-4 * np.abs(scores).max())
    theirs = SklearnPca(svd_solver="full").fit(np.float64(values))
    np.testing.assert_allclose(pca.variance_ratio[: len(variance)], theirs.explained_variance_ratio_, atol=1e-6)


def test_the_largest_entry_of_each_component_is_positive(spark):
    components = reduction.fit_pca(make_table(spark, draw("plain"))).components
    assert (components.max(axis=0) == np.abs(components).max(axis=0)).all()


def test_one_partition_and_many_give_the_same_fit(spark):
    values = draw("plain")
    one, many = (reduction.fit_pca(make_table(spark, values, partitions)) for partitions in (1, 7))
    np.testing.assert_allclose(many.variance, one.variance, rtol=1e-9)
    np.testing.assert_allclose(many.components, one.components, atol=1e-9)


@pytest.fixture
def sixteen_rows_a_batch(spark):
    """As a run sets it for its pictures."""
    before = spark.conf.get(features.BATCH_ROWS)
    spark.conf.set(features.BATCH_ROWS, 16)
    yield
    assert spark.conf.get(features.BATCH_ROWS) == "16"
    spark.conf.set(features.BATCH_ROWS, before)


@pytest.mark.usefixtures("sixteen_rows_a_batch")
def test_workers_get_blocks_whatever_the_run_has_set_for_its_pictures(spark, monkeypatch):
    monkeypatch.setattr(reduction, "BLOCK_ROWS", 25)
    table = make_table(spark, draw("plain")).coalesce(1)
    count = lambda block: pd.DataFrame({"all": [0], "rows": [len(block)]})  # noqa: E731
    found = reduction.take_best(table, count, "all long, rows long", ["all"], ["rows"], 9)
    assert found["rows"].tolist() == [10, 25, 25]
    np.testing.assert_allclose(reduction.fit_pca(table).variance, fit_by_numpy(draw("plain"))[0], rtol=1e-6)


@pytest.mark.usefixtures("sixteen_rows_a_batch")
def test_a_function_that_fails_leaves_the_setting_of_the_run(spark):
    with pytest.raises(Exception, match="no such column"):
        reduction.take_best(
            make_table(spark, draw("plain")), lambda block: block["no such column"], "rows long", ["rows"], ["rows"], 1
        )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((0, 3)), r"0 picture.*at least 2: see in rejected/.*add pictures to images_path"),
        (np.ones((1, 3)), r"1 picture.*at least 2: see in rejected/.*add pictures to images_path"),
        (np.full((5, 3), 1e6 + 0.1), r"the 5 pictures have the same features.*add others"),
    ],
    ids=["no row", "one row", "identical rows"],
)
def test_features_without_variance_are_refused(spark, rows, message):
    with pytest.raises(ValueError, match=message):
        reduction.fit_pca(make_table(spark, rows))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_refused_instead_of_spoiling_every_component(spark, wrong):
    values = draw("plain")
    values[17, 3] = wrong
    with pytest.raises(ValueError, match="some features are not finite numbers.*featurize these pictures again"):
        reduction.fit_pca(make_table(spark, values))


@pytest.mark.parametrize(
    ("variance_kept", "max_components", "k"),
    [
        (0.5, None, 1),
        (0.500001, None, 2),
        (0.75, None, 2),
        (0.74, None, 2),
        (0.76, None, 3),
        (1e-9, None, 1),
        (1.0, None, 4),
        (1, None, 4),
        (1.0, 3, 3),
        (0.75, 3, 2),
        (0.75, 1, 1),
        (0.75, 2000, 2),
    ],
)
def test_the_fewest_components_that_reach_the_share_are_kept(variance_kept, max_components, k):
    pca = make_pca([0.5, 0.25, 0.125, 0.125, 0, 0])
    chosen = reduction.choose_components(pca, variance_kept, max_components)
    assert chosen.k == k
    np.testing.assert_array_equal(chosen.components, np.eye(6)[:, :k])
    assert chosen.variance_held == pytest.approx([0.5, 0.75, 0.875, 1][k - 1])
    assert len(chosen.variance_ratio) == 6


def test_the_whole_variance_can_be_kept_whatever_the_rounding():
    ratios = np.full(49, 1 / 49)
    assert np.cumsum(ratios)[-1] != 1
    assert reduction.choose_components(make_pca(ratios), 1.0).k == 49


def test_the_choice_agrees_with_a_count_by_hand(spark):
    pca = reduction.fit_pca(make_table(spark, draw("plain")))
    variance = fit_by_numpy(draw("plain"))[0]
    for share in np.linspace(0.05, 0.999, 12):
        k = reduction.choose_components(pca, share).k
        assert variance[:k].sum() >= share * variance.sum() > variance[: k - 1].sum()


@pytest.mark.parametrize(("share", "most", "told"), [
    (0.9, None, "0.9 of the variance: 4 of 6 components keep 1.0000"),
    (0.75, 3, "0.75 of the variance: 2 of 6 components keep 0.7500"),
    (0.95, 3, "0.95 of the variance is NOT REACHED: 3 of 6 components keep 0.8750"),
])  # fmt: skip
def test_a_share_that_the_components_do_not_reach_is_said(share, most, told):
    fitted = make_pca([0.5, 0.25, 0.125, 0.125, 0, 0])
    assert reduction.tell_choice(fitted, share, most) == told
    assert reduction.tell_choice(reduction.choose_components(fitted, 0.5), share, most) == told  # as it is saved


@pytest.mark.parametrize(("components", "count"), [(3, 4), (2, 1), (9, 100)])
def test_the_pictures_at_both_ends_of_each_component_are_found(spark, components, count):
    scores = np.random.default_rng(5).normal(size=(40, 5)).round(1)  # with ties
    rows = [(f"file:/{number:02}", f"label {number % 3}", row.tolist()) for number, row in enumerate(scores)]
    projection = spark.createDataFrame(rows, "path string, label string, pca array<float>").repartition(3)
    found = reduction.find_extremes(projection, components, count)
    for number in range(min(components, 5)):
        for end, sign in (("low", 1), ("high", -1)):
            ranked = sorted(rows, key=lambda row: (sign * row[2][number], row[0]))[:count]
            part = found[(found["component"] == number + 1) & (found["end"] == end)]
            assert part["path"].tolist() == [row[0] for row in ranked]
            assert part["label"].tolist() == [row[1] for row in ranked]
            np.testing.assert_allclose(part["score"], [row[2][number] for row in ranked], rtol=1e-6)
    assert len(found) == min(components, 5) * 2 * min(count, 40)


@pytest.mark.parametrize("kind", ["plain", "mean of a million", "fewer rows than columns"])
def test_the_share_that_a_pca_keeps_of_other_pictures_is_numpys(spark, kind):
    fitted = reduction.choose_components(reduction.fit_pca(make_table(spark, draw("plain"))), 1.0, 4)
    values = np.float64(draw(kind)[:, ::-1])
    expected = (values @ fitted.components).var(axis=0).sum() / values.var(axis=0).sum()
    found = reduction.measure_variance(make_table(spark, values, 3), fitted)
    assert found == pytest.approx(expected, rel=1e-6)
    assert found < 0.9 * fitted.variance_held
    assert reduction.tell_saved(fitted, found).endswith(f"of the pictures here: {expected:.2%}")


def test_no_picture_at_all_is_an_error_that_says_so(spark):
    fitted = reduction.Pca(np.ones(12), np.eye(12)[:, :3], np.ones(12), 60)
    with pytest.raises(ValueError, match="no picture was featurized, so none can be projected: see in rejected/"):
        reduction.measure_variance(make_table(spark, np.zeros((0, 12))), fitted)


@pytest.mark.parametrize("rows", [np.ones((1, 12)), np.full((5, 12), 1e6 + 0.1)])
def test_pictures_without_variance_have_no_share_to_keep(spark, rows):
    fitted = reduction.Pca(np.ones(12), np.eye(12)[:, :3], np.ones(12), 60)
    found = reduction.measure_variance(make_table(spark, rows), fitted)
    assert found is None
    told = reduction.tell_saved(fitted, found)
    assert re.search("60 pictures that it was fitted on; .* here: nothing, as they do not differ", told)


def test_a_completed_pca_has_the_saved_components_first_and_then_what_they_leave_over(spark):
    fitted = reduction.fit_pca(make_table(spark, draw("plain")))
    lots = np.random.default_rng(1)
    kept = np.linalg.qr(lots.normal(size=(12, 5)))[0]
    whole = reduction.complete(reduction.Pca(lots.normal(size=12), kept, np.ones(12), 9), fitted)
    np.testing.assert_array_equal(whole.components[:, :5], kept)
    np.testing.assert_allclose(whole.components.T @ whole.components, np.eye(12), atol=1e-10)
    values = np.float64(draw("plain"))
    np.testing.assert_allclose(whole.variance, (values @ whole.components).var(axis=0, ddof=1), rtol=1e-6)
    left_over = SklearnPca(svd_solver="full").fit(values - values @ kept @ kept.T)
    np.testing.assert_allclose(whole.variance[5:], left_over.explained_variance_[:7], rtol=1e-6)


def test_a_saved_pca_loads_whole_in_its_components_and_its_variances(spark, tmp_path):
    fitted = reduction.fit_pca(make_table(spark, draw("mean of a million")))
    chosen = reduction.choose_components(fitted, 0.9)
    for _ in range(2):  # over an earlier one too
        reduction.save_pca(spark, chosen, str(tmp_path / "pca"), {"backbone": "X", "n_features": 12})
    loaded = reduction.load_pca(str(tmp_path / "pca"), {"backbone": "X", "n_features": 12})
    assert loaded.rows == fitted.rows
    for mine, theirs in zip(loaded[:3], chosen[:3], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_pca_of_another_networks_features_is_refused_with_both_named(spark, tmp_path):
    folder = str(tmp_path / "pca")
    reduction.save_pca(spark, make_pca([0.5, 0.25]), folder, {"backbone": "MobileNetV2", "n_features": 2})
    expected = "another network: their backbone is MobileNetV2, this run's ResNet50. Set pca_model to one of the same"
    with pytest.raises(ValueError, match=expected):
        reduction.load_pca(folder, {"backbone": "ResNet50", "n_features": 2})
    expected = "their n_features is 2, this run's 3; their weights_sha256 is unknown, this run's ab"
    with pytest.raises(ValueError, match=expected):
        reduction.load_pca(folder, {"backbone": "MobileNetV2", "n_features": 3, "weights_sha256": "ab"})


def test_a_saved_pca_whose_description_is_damaged_is_refused_by_its_name(spark, tmp_path):
    reduction.save_pca(spark, make_pca([0.5, 0.25]), str(tmp_path), {"backbone": "X"})
    file = tmp_path / reduction.ABOUT
    for content in (file.read_bytes()[:20], b"\xff", b"{}", b"[]"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{file} is damaged: take a whole copy of {tmp_path}, or delete"):
            reduction.load_pca(str(tmp_path), {"backbone": "X"})


def test_the_saved_model_projects_elsewhere_without_the_package(spark, tmp_path):
    values = draw("mean of a million")
    table = make_table(spark, values)
    chosen = reduction.choose_components(reduction.fit_pca(table), 0.9)
    reduction.to_spark_model(spark, chosen).save(str(tmp_path / "pca"))
    table.write.parquet(str(tmp_path / "table"))
    command = [sys.executable, "-I", "-c", LOAD_ELSEWHERE, tmp_path / "pca", tmp_path / "table"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    answer = json.loads(answer.stdout.splitlines()[-1])
    assert not [name for name in answer["modules"] if name.split(".")[0] == "fruits"]
    expected = (np.float64(values) - values.astype(float).mean(axis=0)) @ chosen.components
    np.testing.assert_allclose(answer["found"], expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("k", [1, 5, 12])
def test_the_projection_is_that_of_the_spark_model(spark, k):
    table = make_table(spark, draw("mean of a million"), 3).selectExpr("string(number) path", "'x' label", "features")
    chosen = reduction.choose_components(reduction.fit_pca(table), 1.0, k)
    model = reduction.to_spark_model(spark, chosen)
    rows = model.transform(table.withColumn("vector", array_to_vector("features"))).collect()
    expected = {row.path: row.pca.toArray() for row in rows}
    projection = reduction.project(table, chosen)
    assert projection.dtypes == [("path", "string"), ("label", "string"), ("pca", "array<float>")]
    found = {row.path: row.pca for row in projection.collect()}
    assert found.keys() == expected.keys()
    largest = max(np.abs(scores).max() for scores in expected.values())
    for path, scores in expected.items():
        np.testing.assert_allclose(found[path], scores, atol=1e-6 * largest)


def test_a_picture_is_projected_alone_as_among_others(spark):
    table = make_table(spark, draw("plain")).withColumn("vector", array_to_vector("features"))
    model = reduction.to_spark_model(spark, reduction.choose_components(reduction.fit_pca(table), 0.9))
    together = {row.number: row.pca.toArray() for row in model.transform(table).collect()}
    for number in (0, 33):
        alone = model.transform(table.where(table.number == number)).first().pca.toArray()
        np.testing.assert_array_equal(alone, together[number])


def test_the_model_is_what_pyspark_itself_would_fit(spark, tmp_path):
    table = (
        make_table(spark, draw("plain")).withColumn("vector", array_to_vector("features")).orderBy("number")
    )
    scaler = StandardScaler(withMean=True, withStd=False, inputCol="vector", outputCol="vector_centred")
    theirs = Pipeline(stages=[scaler, PCA(k=4, inputCol="vector_centred", outputCol="pca")]).fit(table)
    fitted = reduction.fit_pca(table)
    model = reduction.to_spark_model(spark, reduction.choose_components(fitted, 1.0, max_components=4))
    model.save(str(tmp_path / "pca"))
    ours = PipelineModel.load(str(tmp_path / "pca"))
    for mine, own in zip(ours.stages, theirs.stages, strict=True):
        assert type(mine) is type(own)
        for parameter in ("inputCol", "outputCol"):
            assert mine.getOrDefault(parameter) == own.getOrDefault(parameter)
    assert (ours.stages[0].getWithMean(), ours.stages[0].getWithStd(), ours.stages[1].getK()) == (
        True,
        False,
        4,
    )
    shares = theirs.stages[1].explainedVariance.toArray()
    np.testing.assert_allclose(ours.stages[1].explainedVariance.toArray(), shares, rtol=1e-6)
    found, expected = (
        np.array([row.pca.toArray() for row in which.transform(table).collect()]) for which in (ours, theirs)
    )
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-4)
