"""Accuracies against scikit-learn's on the same split; no leak; the bounds of time and of pictures; odd tables."""

import itertools
import json
import time

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import functions as F
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, recall_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from fruits import images, quality, reduction

SCHEMA = "path string, label string, features array<float>"
LABELS = ["Abricot mûr", "Banana", "Kiwi $1", "Lemon"]


def make_table(spark, rows, partitions=3):
    """Make a table (path, label, features) from tuples of these."""
    return spark.createDataFrame(pd.DataFrame(rows, columns=["path", "label", "features"]), SCHEMA).repartition(
        partitions
    )


def draw_rows(labels=LABELS, each=50, size=12, spread=1.0, folder="file:/photos"):
    """Draw vectors around a centre a label; the first columns tell more than the last."""
    lots, rows = np.random.default_rng(5), []
    scale = np.geomspace(3, 0.3, size)
    for label in labels:
        values = scale * (lots.normal(size=size) + spread * lots.normal(size=(each, size))) + 7
        rows += [(f"{folder}/{label}/{i:03}.jpg", label, np.float32(value)) for i, value in enumerate(values)]
    return rows


@pytest.fixture(scope="module")
def rows():
    return draw_rows()


@pytest.fixture(scope="module")
def measured(spark, rows):
    return quality.measure(make_table(spark, rows), seed=1, chosen_k=4, counts=(1, 2, 8, 500))


@pytest.fixture(scope="module")
def split(spark, rows):
    """Vectors and labels of both parts: (training X, training y, test X, test y)."""
    found = []
    for part in split_pictures(make_table(spark, rows), seed=1):
        pictures = part.toPandas().sort_values("path")
        found += [np.float64(np.stack(pictures["features"])), pictures["label"].to_numpy(str)]
    return found


def project(split, k):
    """Project both parts by scikit-learn's PCA of the training part: (training, test)."""
    pca = PCA(svd_solver="full").fit(split[0])
    return pca.transform(split[0])[:, :k], pca.transform(split[2])[:, :k]


def find_row(measured, k):
    return next(row for row in measured.rows if row.k == k)


def split_pictures(table, seed, **options):
    """Split a table as measure does: (training, test) DataFrames."""
    sample, _ = quality.draw_sample(table, seed, **options)
    return [sample.where(F.col("part") == part).drop("part") for part in ("Training", "Test")]


def list_paths(table):
    return {row.path for row in table.select("path").collect()}


def test_the_parts_are_those_of_the_seed_whatever_the_partitions(spark, rows):
    table = make_table(spark, rows)
    training, test = (list_paths(part) for part in split_pictures(table, 1))
    assert training | test == {path for path, _, _ in rows}
    assert not training & test
    assert {label: sum(f"/{label}/" in path for path in test) for label in LABELS} == dict.fromkeys(LABELS, 13)  # 12.5
    again = split_pictures(make_table(spark, rows[::-1], 7), 1)
    assert [list_paths(part) for part in again] == [training, test]
    assert list_paths(split_pictures(table, 2)[1]) != test


def test_every_label_of_two_pictures_or_more_is_in_both_parts(spark):
    sizes = {"one": 1, "two": 2, "three": 3, "ten": 10, "hundred": 100}
    rows = [(f"file:/f/{label}/{i}.jpg", label, [1.0]) for label, size in sizes.items() for i in range(size)]
    sample, how = quality.draw_sample(make_table(spark, rows), 3)
    tested = {row.label: row["count"] for row in sample.where("part = 'Test'").groupBy("label").count().collect()}
    assert tested == {"two": 1, "three": 1, "ten": 3, "hundred": 25}
    assert sample.count() == 116
    assert how == "25 % of each label's pictures, rounded, drawn to test"


@pytest.mark.parametrize(
    ("paths", "test"),
    [
        (["file:/f/Training/Apple Red 1/0.jpg", "file:/f/Test/Apple Red 1/1.jpg"], ["file:/f/Test/Apple Red 1/1.jpg"]),
        (["file:/Test/f/Training/Kiwi/a.jpg", "file:/Test/f/Test/Kiwi/b.jpg"], ["file:/Test/f/Test/Kiwi/b.jpg"]),
    ],
    ids=["as in Fruits-360", "below a folder of that name"],
)
def test_folders_training_and_test_are_the_parts(spark, paths, test):
    table = make_table(spark, [(path, "Kiwi", [1.0]) for path in paths])
    training, held = split_pictures(table, 0)
    assert (list_paths(held), list_paths(training)) == (set(test), set(paths) - set(test))
    assert training.columns == table.columns
    assert quality.measure(table, 0, 1).split == "folders Training and Test"


def test_pictures_laid_out_as_fruits_360_downloads_have_their_own_folders_as_labels_and_its_parts(spark, tmp_path):
    folder = tmp_path / "fruits-360_100x100" / "fruits-360"
    for part, label, name in itertools.product(("Training", "Test"), ("Apple Red 1", "Kiwi"), ("0_100", "r_7_100")):
        (folder / part / label).mkdir(parents=True, exist_ok=True)
        (folder / part / label / f"{name}.jpg").write_bytes(b"a picture")
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    pictures = images.label_pictures(reader.load(str(folder)))
    sample, how = quality.draw_sample(pictures, 0)
    rows = sample.toPandas()
    assert how == "folders Training and Test"
    assert rows.groupby(["part", "label"]).size().to_dict() == dict.fromkeys(
        itertools.product(("Training", "Test"), ("Apple Red 1", "Kiwi")), 2
    )
    assert (rows["path"].str.extract(r"/fruits-360/(\w+)/")[0] == rows["part"]).all()
    listed = images.survey(spark, str(folder), str(tmp_path / "output")).toPandas()
    assert set(listed["label"]) == {"Apple Red 1", "Kiwi"}


@pytest.mark.parametrize(
    "paths",
    [
        [f"file:/Test/mine/Kiwi/{i}.jpg" for i in range(40)],
        [f"file:/f/{part}/{i}.jpg" for part in ("Training", "Test") for i in range(20)],
        [f"file:/f/{part}/Kiwi/{part}_{i}.jpg" for part in ("Training", "Test", "Validation") for i in range(20)],
    ],
    ids=["one of them only", "as labels", "beside others"],
)
def test_other_folders_of_that_name_are_no_parts(spark, paths):
    training, test = split_pictures(make_table(spark, [(path, "Kiwi", [1.0]) for path in paths]), 0)
    assert 0 < test.count() < training.count()
    assert quality.draw_sample(training, 0)[1] == "25 % of each label's pictures, rounded, drawn to test"


@pytest.mark.parametrize("k", [1, 2, 4, 8, 12])
def test_neighbours_are_as_accurate_as_scikit_learns(measured, split, k):
    training, test = project(split, k)
    expected = KNeighborsClassifier(1, algorithm="brute").fit(training, split[1]).score(test, split[3])
    assert find_row(measured, k).neighbours == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_the_regression_is_as_accurate_as_scikit_learns(measured, split, k):
    training, test = (scores / np.sqrt(split[0].var(axis=0, ddof=1).mean()) for scores in project(split, k))
    expected = LogisticRegression(C=1 / (len(training) * 0.01), max_iter=2000).fit(training, split[1])
    assert find_row(measured, k).logistic == pytest.approx(expected.score(test, split[3]), abs=0.04)


def test_the_last_row_is_as_accurate_as_scikit_learn_on_the_features_themselves(measured, split):
    scale = np.sqrt(split[0].var(axis=0, ddof=1).mean())
    training, test = ((part - split[0].mean(axis=0)) / scale for part in (split[0], split[2]))
    regression = LogisticRegression(C=1 / (len(training) * 0.01), max_iter=2000).fit(training, split[1])
    nearest = KNeighborsClassifier(1, algorithm="brute").fit(split[0], split[1])
    last = measured.rows[-1]
    assert last.k == measured.n_features == 12
    assert last.logistic == pytest.approx(regression.score(test, split[3]), abs=0.04)
    assert last.neighbours == nearest.score(split[2], split[3])


def test_a_saved_pca_is_judged_by_its_own_components_as_scikit_learn_would(spark, rows, split):
    lots = np.random.default_rng(2)
    components = np.linalg.qr(lots.normal(size=(12, 4)))[0]
    saved = reduction.Pca(lots.normal(size=12), components, np.ones(12), 99)
    found = quality.measure(make_table(spark, rows), 1, 4, counts=(2, 8), saved_pca=saved)
    assert [row.k for row in found.rows] == [2, 4, 12]
    assert found.components == "those of the saved PCA"
    scale = np.sqrt(split[0].var(axis=0, ddof=1).mean())
    for k, basis in ((2, components[:, :2]), (4, components), (12, np.eye(12))):
        training, test = ((part - saved.mean) @ basis / scale for part in (split[0], split[2]))
        nearest = KNeighborsClassifier(1, algorithm="brute").fit(training, split[1])
        regression = LogisticRegression(C=1 / (len(training) * 0.01), max_iter=2000).fit(training, split[1])
        assert find_row(found, k).neighbours == pytest.approx(nearest.score(test, split[3]), abs=1e-12)
        assert find_row(found, k).logistic == pytest.approx(regression.score(test, split[3]), abs=0.04)


def test_counts_beyond_the_features_are_left_out_and_the_rest_is_in_order(measured):
    assert [row.k for row in measured.rows] == [1, 2, 4, 8, 12]
    assert not measured.not_measured
    assert (measured.cut_short, measured.problem, measured.judge) == (False, None, "logistic")


def test_recall_and_confusion_are_those_of_sklearn_metrics(split):
    truth = split[3]
    found = np.random.default_rng(0).permutation(truth)
    recall, confusion = quality._count_confusion(truth, found)
    assert recall == dict(zip(LABELS, recall_score(truth, found, labels=LABELS, average=None), strict=True))
    counts = pd.DataFrame(confusion).pivot_table(index=0, columns=1, values=2, fill_value=0, aggfunc="sum")
    np.testing.assert_array_equal(counts.to_numpy(), confusion_matrix(truth, found, labels=LABELS))
    assert [count for *_, count in confusion] == sorted((count for *_, count in confusion), reverse=True)


def test_recall_and_confusion_agree_with_the_accuracy_at_the_chosen_k(measured, split):
    right = sum(count for label, found, count in measured.confusion if label == found)
    assert sum(count for *_, count in measured.confusion) == measured.tested == len(split[3])
    assert right / measured.tested == find_row(measured, 4).logistic
    totals = pd.Series(split[3]).value_counts()
    assert sum(measured.recall[label] * totals[label] for label in LABELS) == pytest.approx(right)


def test_the_baseline_is_the_label_most_frequent_in_training(measured, split):
    labels, counts = np.unique(split[1], return_counts=True)
    assert measured.baseline == (split[3] == labels[counts.argmax()]).mean()


def test_nothing_of_the_test_part_is_used_to_fit(spark, rows, measured, monkeypatch):
    table = make_table(spark, rows)
    test = list_paths(split_pictures(table, 1)[1])
    seen, fit_pca, make = [], quality.reduction.fit_pca, quality._make_training_table

    def note_pictures(training):
        seen.append(list_paths(training))
        return fit_pca(training)

    def note_rows(session, trial):
        training = make(session, trial)
        seen.append(training.count())
        return training

    monkeypatch.setattr(quality.reduction, "fit_pca", note_pictures)
    monkeypatch.setattr(quality, "_make_training_table", note_rows)
    assert quality.measure(table, 1, 4, counts=()).fitted == len(rows) - len(test)
    assert seen == [{path for path, _, _ in rows} - test, len(rows) - len(test)]


def test_labels_drawn_by_lot_are_found_no_better_than_by_lot(spark):
    # Were a test picture among those that are known, its nearest neighbour would be itself.
    lots = np.random.default_rng(0)
    rows = [(f"file:/f/x/{i}.jpg", LABELS[i % 4], np.float32(lots.normal(size=6))) for i in range(400)]
    found = quality.measure(make_table(spark, rows), 0, 3, counts=())
    assert all(accuracy < 0.45 for row in found.rows for accuracy in row[1:])


def test_a_cap_keeps_labels_in_proportion_and_is_that_of_the_seed(spark):
    rows = draw_rows(["Apple"], each=300) + draw_rows(["Kiwi"], each=60) + draw_rows(["Rare"], each=12)
    table = make_table(spark, rows)
    whole, sample = (quality.draw_sample(table, 1, max_pictures=most)[0].toPandas() for most in (400, 62))
    assert len(sample) == 62
    shares = sample.groupby(["label", "part"]).size() / whole.groupby(["label", "part"]).size()
    large = shares["Apple"].tolist() + [shares["Kiwi", "Training"]]
    np.testing.assert_allclose(large, 62 / 372, rtol=0.25)
    assert set(sample.loc[sample["label"] == "Rare", "part"]) == {"Training", "Test"}
    again = quality.draw_sample(table.repartition(7), 1, max_pictures=62)[0].toPandas()
    assert set(again["path"]) == set(sample["path"])
    other = quality.draw_sample(table, 2, max_pictures=62)[0].toPandas()
    assert set(other["path"]) != set(sample["path"])


@pytest.mark.parametrize("each", [2, 10])
def test_where_there_is_no_room_for_every_label_those_drawn_are_in_both_parts(spark, each):
    rows = [(f"file:/f/{label}/{i}.jpg", f"{label}", [1.0]) for label in range(300) for i in range(each)]
    table = make_table(spark, rows)
    sample = quality.draw_sample(table, 3, max_pictures=200)[0].toPandas()
    assert sample.groupby("label")["part"].agg(set).map(len).eq(2).all()
    assert sample["label"].nunique() == 100
    found = quality.measure(table, 3, 1, max_pictures=200)
    assert found.list_numbers()["quality_labels_left_out"] == found.labels_not_drawn == 200
    assert "same features" in found.problem  # they are all 1.0


def test_a_capped_measure_says_how_many_pictures_it_saw_and_keeps_none_in_memory(spark, rows):
    held = len(spark.sparkContext._jsc.getPersistentRDDs())
    found = quality.measure(make_table(spark, rows), 1, 4, counts=(), max_pictures=80)
    assert len(spark.sparkContext._jsc.getPersistentRDDs()) == held
    assert (found.pictures, found.fitted + found.tested) == (200, 80)
    assert found.list_numbers()["quality_pictures"] == {"all": 200, "fitted": found.fitted, "tested": found.tested}


def test_the_numbers_for_the_report_are_plain(measured):
    numbers = json.loads(json.dumps(measured.list_numbers()))
    assert numbers["accuracy_features"] == measured.rows[-1].logistic
    assert numbers["accuracy_projection"] == find_row(measured, 4).logistic
    assert numbers["accuracy_neighbours_projection"] == find_row(measured, 4).neighbours
    assert numbers["quality_components_enough"] == measured.find_enough()
    assert numbers["quality_not_measured"] == []
    assert numbers["recall"] == pytest.approx(measured.recall, abs=1e-4)


@pytest.mark.parametrize(
    ("accuracies", "tested", "enough"),
    [
        ({2: 0.5, 5: 0.89, 10: 0.9, 20: 0.85}, 400, 5),  # one standard error of 0.9 is 0.015
        ({2: 0.5, 5: 0.88, 10: 0.9, 20: 0.9}, 400, 10),
        ({2: 0.5, 5: 0.88, 10: 0.9, 20: 0.9}, 100, 5),
        ({2: 1.0, 5: 1.0}, 100, 2),
        ({2: 0.5, 5: None}, 100, None),
        ({}, 0, None),
    ],
)
def test_enough_components_are_within_one_standard_error_of_the_best(accuracies, tested, enough):
    rows = [quality.Accuracy(k, accuracy, None) for k, accuracy in accuracies.items()]
    assert quality.Quality(2, tested=tested, rows=rows).find_enough() == enough


def test_what_the_time_did_not_suffice_for_is_said(spark, rows, monkeypatch):
    nearest, regress, bounds = quality._predict_by_neighbour, quality._predict_by_regression, []

    def keep_bound(trial, over, columns):
        bounds.append(over)
        return nearest(trial, over, columns)

    def regress_once(trial, training, columns):
        if columns == 4:
            return regress(trial, training, columns)
        bounds[0].set()
        raise RuntimeError("a job was cancelled")

    monkeypatch.setattr(quality, "_predict_by_neighbour", keep_bound)
    monkeypatch.setattr(quality, "_predict_by_regression", regress_once)
    found = quality.measure(make_table(spark, rows), 1, 4, counts=(2,))
    assert (found.cut_short, found.judge, found.find_enough()) == (True, "logistic", None)
    assert found.find_enough("neighbours") in (2, 4, 12)
    assert found.list_numbers()["quality_not_measured"] == ["logistic, k = 2", "logistic, k = 12"]
    assert found.list_numbers()["accuracy_projection"] == find_row(found, 4).logistic > 0.5


def work_long(spark):
    spark.range(2).mapInPandas(lambda batches: (time.sleep(60) or batch for batch in batches), "id long").count()


def work_often(spark):
    """Work like a fit, a short job an iteration, of which a single cancel may hit none."""
    for _ in range(10_000):
        spark.range(1).count()
        time.sleep(0.02)


@pytest.mark.parametrize("work", [work_long, work_often])
def test_jobs_under_way_are_cancelled_when_the_time_is_over(spark, work):
    start = time.perf_counter()
    with quality._bound_time(spark, 0.5) as over:
        work(spark)
    assert over.is_set()
    assert time.perf_counter() - start < 30
    while spark.sparkContext.statusTracker().getActiveJobsIds():  # Spark tells it a moment later
        assert time.perf_counter() - start < 30
        time.sleep(0.1)
    assert spark.range(3).count() == 3


def test_no_time_at_all_gives_an_answer_without_numbers_that_says_so(spark, rows):
    found = quality.measure(make_table(spark, rows), 1, 4, max_seconds=0)
    assert found.list_numbers()["accuracy_features"] is None
    assert found.tell() == f"{len(rows)} pictures, and nothing was measured: it was switched off (quality_seconds is 0)"
    assert found.tell_recall() == "recall was not measured"


def test_too_little_time_gives_an_answer_without_numbers(spark, rows):
    found = quality.measure(make_table(spark, rows), 1, 4, max_seconds=1e-3)
    assert found.cut_short
    assert found.list_numbers()["accuracy_features"] is None
    assert found.list_numbers()["quality_cut_short"]
    assert found.tell() == f"{len(rows)} pictures, and nothing was measured: the time was over"


def test_what_is_told_names_the_split_and_the_labels_left_out_and_every_accuracy():
    found = quality.Quality(
        2, 4, pictures=9, fitted=6, tested=2, split="25 % drawn", left_out={"Fig": "1 picture(s), all in one part"},
        rows=[quality.Accuracy(2, 0.5, 1.0), quality.Accuracy(4, None, 0.75)], recall={"Kiwi": 1.0, "Lime": 0.25},
    )  # fmt: skip
    first, second, third, *table = found.tell().splitlines()
    assert first == "9 pictures, of which 6 to learn from and 2 to test"
    assert second == "25 % drawn; labels left out: Fig, 1 picture(s), all in one part"
    assert third == "components: fitted on the part to learn from"
    assert [line.split() for line in table] == [
        ["k", "logistic", "neighbours"], ["2", "0.5", "1.00"], ["4", "NaN", "0.75"],
    ]  # fmt: skip
    found.cut_short, found.labels, found.labels_not_drawn = True, 60, 20
    found.left_out = {f"kind {number}": "1 picture(s)" for number in range(30)}
    _, second, _, fourth, *again = found.tell().splitlines()
    assert second.endswith("; kind 7, 1 picture(s); and 22 more; 20 of 60 not drawn")
    assert fourth == "the time was over: what has no number below was not measured"
    assert again == table
    assert [line.split() for line in found.tell_recall(1).splitlines()] == [["Lime", "0.25"]]
    assert [line.split() for line in found.tell_recall(2).splitlines()] == [["Lime", "0.25"]]
    assert quality.Quality(2, recall={"Kiwi": 1.0}).tell_recall() == "every label got all of its test pictures back"


def test_a_saved_quality_is_loaded_as_it_was(tmp_path):
    found = quality.Quality(
        2, 4, rows=[quality.Accuracy(2, 0.5, None)], confusion=[("Kiwi", "Lime", 3)], left_out={"Fig": "alone"}
    )
    found.save(str(tmp_path))
    assert quality.load(str(tmp_path)) == found
    (tmp_path / "quality.json").write_text("{")
    with pytest.raises(ValueError, match=r"quality\.json is damaged: delete it, and run again"):
        quality.load(str(tmp_path))


def test_the_time_bound_leaves_the_callers_job_group_and_hides_no_error(spark):
    spark.sparkContext.setJobGroup("of the caller", "a cell")
    with pytest.raises(KeyError, match="quality-"), quality._bound_time(spark, 60):
        raise KeyError(spark.sparkContext.getLocalProperty("spark.jobGroup.id"))
    assert spark.sparkContext.getLocalProperty("spark.jobGroup.id") == "of the caller"
    for name in quality.JOB_PROPERTIES:
        spark.sparkContext.setLocalProperty(name, None)
    with quality._bound_time(spark, 60):
        pass
    assert spark.sparkContext.getLocalProperty("spark.jobGroup.id") is None


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "0 label"),
        (draw_rows(["Kiwi"]), "1 label"),
        ([(f"file:/f/{i}/a.jpg", str(i), [float(i), 1.0]) for i in range(20)], "0 label"),
        ([(path, label, [1.0, 2.0]) for path, label, _ in draw_rows()], "the same features"),
    ],
    ids=["no picture", "one label", "labels of one picture", "the same features"],
)
def test_what_cannot_be_judged_is_said_and_stops_nothing(spark, rows, problem):
    found = quality.measure(make_table(spark, rows), 1, 2)
    assert problem in found.problem
    assert not found.cut_short
    assert json.loads(json.dumps(found.list_numbers()))["accuracy_projection"] is None


def test_a_label_in_one_part_only_is_left_out_with_the_reason(spark, rows):
    found = quality.measure(make_table(spark, [*rows, ("file:/f/Sole/1.jpg", "Sole", np.ones(12))]), 1, 4, counts=())
    assert list(found.left_out) == ["Sole"]
    assert found.left_out["Sole"].startswith("1 picture(s) drawn, all in the t")
    assert sorted(found.recall) == sorted(LABELS)
    assert found.list_numbers()["quality_labels_left_out"] == 1


def test_fewer_pictures_than_features_and_constant_ones_are_measured(spark):
    rows = [(path, label, np.append(values, [3, 3])) for path, label, values in draw_rows(each=12, size=60)]
    found = quality.measure(make_table(spark, rows), 1, 55, counts=(2, 58))
    assert found.rank == found.fitted - 1 < 55
    assert [row.k for row in found.rows] == [2, 55, 62]
    assert f"varies along {found.rank} components: more of them change nothing" in found.tell()
    assert not found.not_measured
    assert found.rows[1][1:] == found.rows[2][1:]
    assert found.rows[2].logistic > 0.9


def test_components_of_a_saved_pca_along_which_nothing_varies_count_as_components(spark, rows, split):
    padded = [(path, label, np.append(0, values)) for path, label, values in rows]
    saved = reduction.Pca(np.zeros(13), np.eye(13)[:, :3], np.ones(13), 99)
    found = quality.measure(make_table(spark, padded), 1, 3, counts=(), saved_pca=saved)
    assert ([row.k for row in found.rows], found.rank) == ([3, 13], 12)
    nearest = KNeighborsClassifier(1, algorithm="brute").fit(split[0][:, :2], split[1])
    assert find_row(found, 3).neighbours == pytest.approx(nearest.score(split[2][:, :2], split[3]), abs=1e-12)


def test_neighbours_are_those_of_scikit_learn(spark, rows):
    projection = make_table(spark, rows, 5).withColumnRenamed("features", "pca")
    asked = [rows[0][0], rows[77][0]]
    found = quality.find_neighbours(projection, asked, 4)
    values = np.float64([values for _, _, values in rows])
    distances, places = NearestNeighbors(n_neighbors=5).fit(values).kneighbors(values[[0, 77]])
    assert found["path"].tolist() == [path for path in asked for _ in range(4)]
    assert found["label"].tolist() == [LABELS[0]] * 4 + [LABELS[1]] * 4
    assert found["neighbour"].tolist() == [rows[place][0] for place in places[:, 1:].ravel()]
    assert found["neighbour_label"].tolist() == [rows[place][1] for place in places[:, 1:].ravel()]
    np.testing.assert_allclose(found["distance"], distances[:, 1:].ravel(), rtol=1e-9)


def test_there_are_no_more_neighbours_than_pictures_and_a_twin_is_one(spark):
    rows = [(f"file:/f/{i}.jpg", "Kiwi", [float(i // 2), 0.0]) for i in range(3)]
    found = quality.find_neighbours(make_table(spark, rows).withColumnRenamed("features", "pca"), [rows[0][0]], 5)
    assert found["neighbour"].tolist() == [rows[1][0], rows[2][0]]
    assert found["distance"].tolist() == [0, 1]


def test_neighbours_of_an_unknown_picture_are_refused(spark, rows):
    projection = make_table(spark, rows).withColumnRenamed("features", "pca")
    with pytest.raises(ValueError, match=r"nowhere.jpg is not in the projection.*column path"):
        quality.find_neighbours(projection, [rows[0][0], "nowhere.jpg"])
