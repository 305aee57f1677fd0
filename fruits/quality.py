"""How well the vectors tell fruits apart: accuracy on pictures that no fit has seen, whole and for fewer numbers."""

import json
import threading
import time
import uuid
import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import pandas as pd
from pyspark import StorageLevel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.functions import array_to_vector
from pyspark.sql import Window
from pyspark.sql import functions as F

from fruits import reduction, storage

COUNTS = (2, 5, 10, 20, 50, 100, 200)  # components to try
REGULARISATION = 0.01  # of weights, where features have a variance of 1 on average; 0.1 is worse at few components
FITTED, SAVED = "fitted on the part to learn from", "those of the saved PCA"  # whose components are judged
TIME_OVER = "the time was over"
ITERATIONS = 25  # 50 take twice as long and move accuracies by chance: 1.7 % at most, either way
RANK = 1e-9  # share of the first variance below which a component is rounding
LABELS_TOLD = 8  # in a line of text, or in as many lines; all of them are in quality.json
ASKED_AT_ONCE = 256  # pictures compared at once with all that are known
NEIGHBOURS = "path string, label string, neighbour string, neighbour_label string, distance double"
JOB_PROPERTIES = ("spark.jobGroup.id", "spark.job.description", "spark.job.interruptOnCancel")


class _Trial(NamedTuple):
    """Pictures of the sample.

    scores: (n, rank), on the components that are more than rounding. widths: (d,) how many of these are among the first
    1, 2, ... d components. codes: (n,) places of their labels in labels. is_test: (n,) bool.
    """

    scores: np.ndarray
    widths: np.ndarray
    codes: np.ndarray
    labels: np.ndarray
    is_test: np.ndarray


class Accuracy(NamedTuple):
    """Share of test pictures whose label was found, in 0..1, or None where not measured.

    k: components kept; as many as features stand for the features themselves, which a full PCA merely turns.
    """

    k: int
    logistic: float | None
    neighbours: float | None


@dataclass
class Quality:
    """What was measured. chosen_k: the number of components of the run, n_features: of all values.

    pictures: in the table; fitted, tested: those of the sample, of labels that both parts have. left_out: why other
    labels were not judged, by label. split: how. baseline: accuracy of always answering the label most frequent in the
    training part. components: whose they are. rank: the number of them along which the training part varies; more
    change nothing. rows: Accuracy by growing k, the last the features themselves. judge: what recall (share of a
    label's test pictures found, by label) and confusion (label, predicted, count) come from, at chosen_k. problem: why
    nothing could be measured, or None. cut_short: the time was over. seconds: spent. labels: in the table;
    labels_not_drawn: that the sample had no room for.
    """

    chosen_k: int
    n_features: int = 0
    pictures: int = 0
    fitted: int = 0
    tested: int = 0
    split: str = ""
    left_out: dict = field(default_factory=dict)
    baseline: float | None = None
    components: str = FITTED
    rank: int = 0
    rows: list = field(default_factory=list)
    judge: str | None = None
    recall: dict = field(default_factory=dict)
    confusion: list = field(default_factory=list)
    problem: str | None = None
    cut_short: bool = False
    seconds: float = 0.0
    labels: int = 0
    labels_not_drawn: int = 0

    @property
    def why_nothing(self):
        """Why nothing was measured; None where something was."""
        return self.problem or (None if self.rows else TIME_OVER)

    @property
    def not_measured(self):
        """What the time did not suffice for: sequence of (method, k)."""
        return [(method, row.k) for method in Accuracy._fields[1:] for row in self.rows if getattr(row, method) is None]

    def find_enough(self, method="logistic"):
        """Find the smallest k whose accuracy is within one standard error of the best; None where k are missing."""
        known = {row.k: getattr(row, method) for row in self.rows}
        if not known or None in known.values():
            return None
        best = max(known.values())
        return min(k for k, accuracy in known.items() if accuracy >= best - (best * (1 - best) / self.tested) ** 0.5)

    def save(self, folder):
        """Write everything into quality.json of a folder."""
        storage.write_bytes(f"{folder}/quality.json", json.dumps(asdict(self), indent=1).encode() + b"\n")

    def tell(self):
        """Tell what was measured, on which pictures, in lines of text; or why nothing was."""
        if self.why_nothing:
            return f"{self.pictures:,} pictures, and nothing was measured: {self.why_nothing}"
        named = [f"{label}, {reason}" for label, reason in islice(self.left_out.items(), LABELS_TOLD)]
        others = [f"and {len(self.left_out) - len(named):,} more"] if len(self.left_out) > len(named) else []
        others += [f"{self.labels_not_drawn:,} of {self.labels:,} not drawn"] if self.labels_not_drawn else []
        left_out = "; ".join([*named, *others])
        lines = [f"{self.pictures:,} pictures, of which {self.fitted:,} to learn from and {self.tested:,} to test"]
        lines += [f"{self.split}; labels left out: {left_out or 'none'}", f"components: {self.components}"]
        if self.rank and any(self.rank < row.k < self.n_features for row in self.rows):
            lines += [f"the part to learn from varies along {self.rank:,} components: more of them change nothing"]
        if self.cut_short:
            lines += ["the time was over: what has no number below was not measured"]
        return "\n".join([*lines, pd.DataFrame(self.rows, columns=Accuracy._fields).round(3).to_string(index=False)])

    def tell_recall(self, count=LABELS_TOLD):
        """Tell the recall of the labels that suffer most, a line each, or that none does, or that none was measured."""
        recall = pd.Series(self.recall, dtype=float)
        if recall.empty:
            return "recall was not measured"
        worst = recall[recall < 1].nsmallest(count)
        return worst.round(2).to_string() if len(worst) else "every label got all of its test pictures back"

    def list_numbers(self):
        """List what a report keeps, by name."""
        known = {row.k: row for row in self.rows}
        missing = Accuracy(0, None, None)
        features, chosen = (known.get(k, missing) for k in (self.n_features, self.chosen_k))
        return {
            "accuracy_features": features.logistic,
            "accuracy_projection": chosen.logistic,
            "accuracy_neighbours_features": features.neighbours,
            "accuracy_neighbours_projection": chosen.neighbours,
            "accuracy_baseline": self.baseline,
            "recall": {label: round(share, 4) for label, share in self.recall.items()},
            "quality_components_enough": self.find_enough(),
            "quality_split": self.split,
            "quality_components": self.components if self.rows else None,
            "quality_pictures": {"all": self.pictures, "fitted": self.fitted, "tested": self.tested},
            "quality_labels_left_out": len(self.left_out) + self.labels_not_drawn,
            "quality_problem": self.why_nothing,
            "quality_cut_short": self.cut_short,
            "quality_not_measured": [f"{method}, k = {k}" for method, k in self.not_measured],
        }


def load(folder):
    """Load the Quality that save wrote into a folder. Raises ValueError where its file is damaged."""
    path = f"{folder}/quality.json"
    values = storage.read_json(path, {"rows": list, "confusion": list}, "is damaged: delete it, and run again")
    rows, confusion = [Accuracy(*row) for row in values["rows"]], [tuple(row) for row in values["confusion"]]
    return Quality(**values | {"rows": rows, "confusion": confusion})


def draw_sample(table, seed, test_share=0.25, max_pictures=4000):
    """Draw pictures, and part them in those to learn from and those to test: (DataFrame with part, how it was made).

    table: DataFrame with a path and a label. Where every picture lies below a folder Training or Test, these are the
    parts; else each label gives its share to the test, and where it has 2 pictures or more, both parts one at least.
    No more than max_pictures are drawn: of each label and part the same share, and at least one. Where that would be
    too many, only some labels are drawn, and one picture of each part of theirs.
    The same seed draws the same pictures, however Spark cuts the table.
    """
    names = table.select("path", "label")
    # The last such folder above that of the label: pictures may well lie in somebody's /data/Test/.
    folder = F.regexp_extract("path", r".*/(Training|Test)/.*/", 1)
    if {row[0] for row in names.select(folder).distinct().collect()} == {"Training", "Test"}:
        names, how = names.withColumn("part", folder), "folders Training and Test"
    else:
        size = F.count("*").over(Window.partitionBy("label"))
        tested = F.least(F.greatest(F.round(size * test_share), F.lit(1)), size - 1)
        part = F.when(_place(seed, "label") <= tested, "Test").otherwise("Training")
        names = names.withColumn("part", part)
        how = f"{100 * test_share:g} % of each label's pictures, rounded, drawn to test"
    share = (_place(seed, "label", "part") - 1) / F.count("*").over(Window.partitionBy("label", "part"))
    # A label's first of both parts side by side: the lot itself, which has parted them, would take those to test alone.
    order = ["share", F.xxhash64("label", F.lit(seed)), "label", _draw_lot(seed), "path"]
    drawn = names.withColumn("share", share).orderBy(*order).limit(max_pictures)
    return table.join(F.broadcast(drawn.select("path", "part")), "path"), how


def _draw_lot(seed):
    """Draw a number for each picture, by its label and file: the same wherever the folder lies."""
    return F.xxhash64(F.substring_index("path", "/", -2), F.lit(seed))


def _place(seed, *columns):
    """Number the pictures of a group from 1 on, in the order of their lots."""
    return F.row_number().over(Window.partitionBy(*columns).orderBy(_draw_lot(seed), "path"))


def measure(
    table, seed, chosen_k, counts=COUNTS, test_share=0.25, max_pictures=4000, max_seconds=60, saved_pca=None
):
    """Measure how often a classifier finds the label of pictures that nothing was fitted on. Returns a Quality.

    table: DataFrame (path, label, features). chosen_k: components that the run keeps; counts: others to try. No more
    than max_pictures are used, drawn by seed, and no more than about max_seconds: jobs under way are then cancelled,
    and the Quality says what is missing. The PCA is fitted on the training part alone; all is centred by its mean.
    saved_pca: Pca that the run projects with, to judge it instead, whatever pictures it was fitted on.
    """
    start, spark = time.perf_counter(), table.sparkSession
    quality = Quality(chosen_k)
    quality.pictures = table.count()  # parquet tells it without being read
    if max_seconds == 0:
        quality.problem = "it was switched off (quality_seconds is 0)"
        return quality
    with _bound_time(spark, max_seconds) as over:
        quality.labels = table.agg(F.count_distinct("label")).first()[0]
        columns = table.select("path", "label", "features")
        sample, quality.split = draw_sample(columns, seed, test_share, max_pictures)
        sample = sample.persist(StorageLevel.MEMORY_AND_DISK)
        try:
            _judge(sample, quality, saved_pca, {*counts, chosen_k}, over)
        finally:
            sample.unpersist()
    quality.cut_short = over.is_set()
    quality.seconds = time.perf_counter() - start
    return quality


@contextmanager
def _bound_time(spark, seconds):
    """Cancel what the block has Spark do once the seconds are over; the block then ends without an error.

    Yields an Event, set when the time is over.
    """
    context, group = spark.sparkContext, f"quality-{uuid.uuid4()}"
    properties = {name: context.getLocalProperty(name) for name in JOB_PROPERTIES}  # Livy has a group a statement
    over, done = threading.Event(), threading.Event()

    def watch():
        if not done.wait(seconds):
            over.set()
        while not done.wait(0.1):  # again and again: a fit is a job an iteration, and there may be none right now
            context.cancelJobGroup(group)

    watcher = threading.Thread(target=watch, daemon=True)
    context.setJobGroup(group, "measure quality", interruptOnCancel=True)
    watcher.start()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "toPandas attempted Arrow")  # what it makes of a cancelled job
            yield over
    except Exception:  # a cancelled job shows as errors of many kinds
        if not over.is_set():
            raise
    finally:
        done.set()
        watcher.join()
        for name, value in properties.items():
            context.setLocalProperty(name, value)


def _judge(sample, quality, saved_pca, counts, over):
    """Fit and test on a sample (path, label, features, part), and write into quality what comes out."""
    pictures = sample.select("path", "label", "part", "features").toPandas().sort_values("path")
    quality.labels_not_drawn = quality.labels - pictures["label"].nunique()
    for label, parts in pictures.groupby("label")["part"]:
        if parts.nunique() == 1:
            quality.left_out[label] = f"{len(parts)} picture(s) drawn, all in the {parts.iloc[0].lower()} part"
    pictures = pictures[~pictures["label"].isin(quality.left_out)]
    labels, codes = np.unique(pictures["label"].to_numpy(str), return_inverse=True)
    if len(labels) < 2:
        quality.problem = f"{len(labels)} label(s) with pictures in both parts: at least 2 are needed to tell apart"
        return
    is_test, features = (pictures["part"] == "Test").to_numpy(), np.stack(pictures["features"])
    quality.fitted, quality.tested, quality.n_features = int((~is_test).sum()), int(is_test.sum()), features.shape[1]
    quality.baseline = float((codes[is_test] == np.bincount(codes[~is_test]).argmax()).mean())
    if (features[~is_test] == features[~is_test][0]).all():
        quality.problem = f"the {quality.fitted} training pictures have the same features"
        return
    pca = reduction.fit_pca(sample.where("part = 'Training'"))
    if saved_pca:
        pca, quality.components = reduction.complete(saved_pca, pca), SAVED
        counts = {k for k in counts if k <= saved_pca.k}
    trial = _Trial(*_project(features, pca), codes, labels, is_test)
    _try_counts(sample.sparkSession, trial, quality, counts, over)


def _project(features, pca):
    """Project on every component that is more than rounding, in units in which a feature's variance is 1 on average.

    Rounding would not stay small: pyspark.ml's regression divides each column by its own deviation as it goes.
    One scale for all features, so that a classifier's regularisation means the same whatever the network.
    Returns scores and widths, as _Trial has them.
    """
    is_more = pca.variance > RANK * pca.variance.max()
    scores = (features - pca.mean) @ pca.components[:, is_more] / np.sqrt(pca.variance.mean())
    return scores, np.maximum(is_more.cumsum(), 1)


def _try_counts(spark, trial, quality, counts, over):
    """Measure every k by both methods, the numbers most wanted first, and write them into quality."""
    size, quality.rank = quality.n_features, trial.scores.shape[1]
    others = sorted(k for k in counts if 0 < k < size and k <= quality.rank)
    order = list(dict.fromkeys([quality.chosen_k, size, *others]))
    quality.rows = [Accuracy(k, None, None) for k in sorted(order)]
    _try_method("neighbours", partial(_predict_by_neighbour, trial, over), trial, quality, order)
    training = _make_training_table(spark, trial).persist()
    try:
        _try_method("logistic", partial(_predict_by_regression, trial, training), trial, quality, order)
    finally:
        training.unpersist()


def _try_method(method, predict, trial, quality, order):
    """Measure every k of order by one method. predict: from a number of columns of the scores to the test's codes."""
    truth, accuracies = trial.codes[trial.is_test], {}
    for k in order:
        columns = int(trial.widths[k - 1])  # fewer where the training part has no variance left for more
        if columns not in accuracies:
            found = predict(columns)
            accuracies[columns] = float((found == truth).mean())
            if k == quality.chosen_k:
                quality.judge = method
                quality.recall, quality.confusion = _count_confusion(trial.labels[truth], trial.labels[found])
        quality.rows = [row._replace(**{method: accuracies[columns]}) if row.k == k else row for row in quality.rows]


def _count_confusion(truth, found):
    """Count pairs of labels: ({label: share found}, [(label, found as, count)]), the most frequent first."""
    pairs = Counter(zip(truth.tolist(), found.tolist(), strict=True))
    totals = Counter(truth.tolist())
    recall = {label: pairs[label, label] / totals[label] for label in sorted(totals)}
    return recall, [(*pair, count) for pair, count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))]


def _predict_by_neighbour(trial, over, columns):
    """Give each test picture the label of the training picture at the smallest Euclidean distance, compared with all.

    One neighbour: three or more did worse, since the pictures of one fruit are alike. Not the cosine: it did no better,
    and a PCA keeps distances. Raises TimeoutError where the time is over.
    """
    known, asked = trial.scores[~trial.is_test, :columns], trial.scores[trial.is_test, :columns]
    lengths, nearest = (known**2).sum(axis=1), []
    for first in range(0, len(asked), ASKED_AT_ONCE):
        if over.is_set():
            raise TimeoutError
        nearest.append((lengths - 2 * asked[first : first + ASKED_AT_ONCE] @ known.T).argmin(axis=1))
    return trial.codes[~trial.is_test][np.concatenate(nearest)]


def _make_training_table(spark, trial):
    """Make the training part a DataFrame: (label double, scores array<double>)."""
    is_training = ~trial.is_test
    rows = pd.DataFrame({"label": trial.codes[is_training] * 1.0, "scores": list(trial.scores[is_training])})
    table = spark.createDataFrame(rows, "label double, scores array<double>")
    # It comes in as many partitions as Arrow batches, of 16 pictures: each would be a task of each iteration.
    return table.coalesce(spark.sparkContext.defaultParallelism)


def _predict_by_regression(trial, training, columns):
    """Predict the test part's codes by a multinomial logistic regression of pyspark.ml on the first columns.

    Not standardised, which would make the last components count as much as the first.
    """
    regression = LogisticRegression(featuresCol="vector", family="multinomial", standardization=False)
    regression.setRegParam(REGULARISATION).setMaxIter(ITERATIONS)
    vector = array_to_vector(F.slice("scores", 1, columns)).alias("vector")
    model = regression.fit(training.select("label", vector))
    asked = trial.scores[trial.is_test, :columns]
    return (asked @ model.coefficientMatrix.toArray().T + model.interceptVector.toArray()).argmax(axis=1)


def find_neighbours(projection, paths, count=5):
    """Find the pictures nearest to some others, by Euclidean distance, compared with all in one pass.

    projection: DataFrame (path, label, pca). paths: of the pictures asked for. Returns what rank_neighbours does.
    Raises ValueError for a path that is not in the projection.
    """
    asked = projection.where(F.col("path").isin(list(paths))).select("path", "label", "pca").toPandas()
    if unknown := sorted(set(paths) - set(asked["path"])):
        raise ValueError(f"{unknown[0]} is not in the projection: give a path as its column path has it")
    columns, order = projection.select("path", "label", "pca"), ["distance", "neighbour"]
    return reduction.take_best(
        columns, lambda block: rank_neighbours(asked, block, count), NEIGHBOURS, ["path"], order, count
    )


def rank_neighbours(asked, pictures, count=5):
    """Rank pictures by their Euclidean distance to some others.

    asked, pictures: pandas DataFrames (path, label, pca). Returns a DataFrame (path, label, neighbour, neighbour_label,
    distance) of count rows for each asked, fewer where there are no more pictures, the nearest first; the picture
    itself is none.
    """
    values, names = np.stack(pictures["pca"]).astype(np.float64), pictures["path"].to_numpy(str)
    found = []
    for one in asked.sort_values("path").itertuples():
        distance = np.linalg.norm(values - one.pca, axis=1)
        nearest = np.lexsort((names, distance))[: count + 1]
        nearest = nearest[names[nearest] != one.path][:count]
        near = pictures.iloc[nearest][["path", "label"]].set_axis(["neighbour", "neighbour_label"], axis=1)
        found.append(near.assign(path=one.path, label=one.label, distance=distance[nearest]))
    return pd.concat(found, ignore_index=True)[["path", "label", "neighbour", "neighbour_label", "distance"]]
