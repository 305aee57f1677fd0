"""Principal component analysis: fitted in one pass over the features, kept as an ordinary pyspark.ml model."""

import json
import operator
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.ml import PipelineModel
from pyspark.ml.common import _py2java
from pyspark.ml.feature import PCAModel, StandardScalerModel
from pyspark.ml.linalg import DenseMatrix, DenseVector
from pyspark.ml.util import JavaMLReader
from pyspark.sql import Window
from pyspark.sql import functions as F

from fruits import features, increments, storage

ABOUT = "fruits.json"  # lies beside what pyspark.ml saves of a model
ROUNDING = 1e-12  # a sum of shares may end a hair below 1, which would put variance_kept = 1 out of reach

MOMENTS = "rows long, total binary, products binary"
PROJECTION = "path string, label string, pca array<float>"
EXTREMES = "component long, end string, path string, label string, score float"
BLOCK_ROWS = 1024  # vectors multiplied at once; d x d sums cost as much to add up for 16 of them as for 1,024


class Pca(NamedTuple):
    """Principal components of a set of vectors, the largest variance first.

    mean: (d,) of the vectors. components: (d, k), one a column, orthonormal, its largest entry positive; all d of them
    where a fit returns it. variance: (d,) along every component, in squared units of the features. rows: of the fit.
    """

    mean: np.ndarray
    components: np.ndarray
    variance: np.ndarray
    rows: int

    @property
    def k(self):
        """Number of components held."""
        return self.components.shape[1]

    @property
    def variance_ratio(self):
        """Share of the whole variance along each component: (d,), of sum 1."""
        return self.variance / self.variance.sum()

    @property
    def variance_held(self):
        """Share of the whole variance that the components held keep, in 0..1."""
        return float(self.variance_ratio[: self.k].sum())


def fit_pca(table):
    """Fit a centred PCA with every component, in one pass over the table.

    table: DataFrame (features array<float>), of one length d. Each task sums its vectors and their products (d x d,
    float64); these are added up in a tree, and the driver takes the eigenvectors, in the same memory for any rows.
    Returns a Pca. Raises ValueError where there are fewer than 2 rows, all are the same, or one is not finite.
    """
    origin, rows, total, products = _sum_moments(table)
    if rows < 2:
        raise ValueError(
            f"{rows} picture(s) featurized, but a PCA needs at least 2: see in rejected/ why "
            f"others were not, and add pictures to images_path"
        )
    if not np.isfinite(total).all():
        raise ValueError(
            "some features are not finite numbers, so there is no variance to explain: "
            "see which with isnan in Spark, and featurize these pictures again with sound weights"
        )
    shift = total / rows
    covariance = (products - rows * np.outer(shift, shift)) / (rows - 1)
    variance, components = np.linalg.eigh(covariance)
    if variance[-1] <= 0:
        raise ValueError(f"the {rows} pictures have the same features, so there is no variance to explain: add others")
    variance, components = np.clip(variance[::-1], 0, None), _fix_signs(components[:, ::-1])
    return Pca(origin + shift, components, variance, rows)


def _sum_moments(table):
    """Sum vectors and their products over a table: (origin (d,), rows, total (d,), products (d, d)).

    They are counted from origin, one of the vectors, which keeps the digits that a large mean would take away.
    """
    vectors = table.select("features")
    first = vectors.first()
    if first is None:
        return np.zeros(0), 0, np.zeros(0), np.zeros((0, 0))
    origin = np.asarray(first[0], np.float64)
    size = len(origin)

    def sum_partition(batches):
        rows, total, products = 0, np.zeros(size), np.zeros((size, size))
        for batch in batches:
            values = batch.column(0).flatten().to_numpy().reshape(-1, size) - origin
            rows, total, products = rows + len(values), total + values.sum(axis=0), products + values.T @ values
        yield pa.RecordBatch.from_pydict({"rows": [rows], "total": [total.tobytes()], "products": [products.tobytes()]})

    # As many sums as cores, however many files: each is 13 MB for 1,280 features. Where there are many, workers add
    # them up in a tree, so that neither the driver's memory nor its one core is what the others wait for: of three
    # levels, since two leave eight sums to the driver on 64 cores, which for 4,096 features is more than Spark lets by.
    cores = vectors.sparkSession.sparkContext.defaultParallelism
    with _send_blocks(vectors.sparkSession):
        sums = vectors.coalesce(cores).mapInArrow(sum_partition, MOMENTS).rdd
    parts = sums.map(
        lambda part: (part.rows, np.frombuffer(part.total), np.frombuffer(part.products).reshape(size, size))
    )
    return origin, *parts.treeReduce(lambda one, other: tuple(map(operator.add, one, other)), depth=3)


def measure_variance(table, pca):
    """Measure which share of the variance of a table's features the components of a PCA hold, in 0..1.

    table: DataFrame (features), of any pictures; of those that the PCA was fitted on, variance_held tells it at once.
    Returns None where there is no variance. Raises ValueError where there is no picture.
    """
    _, rows, total, products = _sum_moments(table)
    if rows == 0:
        raise ValueError("no picture was featurized, so none can be projected: see in rejected/ why, and add pictures")
    scatter = products - np.outer(total, total) / rows
    whole, held = np.trace(scatter), (pca.components * (scatter @ pca.components)).sum()
    return float(held / whole) if whole > ROUNDING * np.trace(products) else None


def complete(saved, fitted):
    """Complete the components of a PCA by those of another one, in what the former leave over.

    saved: Pca of k components. fitted: Pca of the pictures asked about, with every component. Returns a Pca of all d:
    first those of saved, in their order and counted from its mean, then directions at right angles to them, the largest
    variance first; variance: of the pictures of fitted, along each.
    """
    kept = saved.components
    covariance = fitted.components * fitted.variance @ fitted.components.T
    left_over = np.eye(len(kept)) - kept @ kept.T
    _, directions = np.linalg.eigh(left_over @ covariance @ left_over - fitted.variance[0] * kept @ kept.T)
    components = np.hstack([kept, directions[:, ::-1][:, : len(kept) - saved.k]])
    variance = (components * (covariance @ components)).sum(axis=0)
    return Pca(saved.mean, components, np.clip(variance, 0, None), fitted.rows)


def take_best(table, find, schema, group, order, count):
    """Take the first rows of each group of what a function finds in blocks of up to BLOCK_ROWS rows of a table.

    find: pandas DataFrame -> pandas DataFrame of that schema, as mapInPandas has it, which holds the first count rows
    of each group in its block. group: names of columns. order: names or Columns. The workers rank them, so that the
    driver gets no more, however many blocks there are. Returns a pandas DataFrame, group after group, in their order.
    """
    rank = F.row_number().over(Window.partitionBy(*group).orderBy(*order))
    with _send_blocks(table.sparkSession):
        found = table.mapInPandas(lambda blocks: map(find, blocks), schema).withColumn("rank", rank)
        best = found.where(F.col("rank") <= count).toPandas()
    return best.sort_values([*group, "rank"]).drop(columns="rank").reset_index(drop=True)


def _send_blocks(spark):
    """Have Spark send workers BLOCK_ROWS rows at once: a run sets as few as its network sees pictures."""
    return features.set_meanwhile(spark, features.BATCH_ROWS, BLOCK_ROWS)


def _fix_signs(components):
    """Turn each component so that its largest entry is positive; eigenvectors have no sign of their own."""
    largest = np.abs(components).argmax(axis=0)
    return components * np.sign(components[largest, np.arange(components.shape[1])])


def choose_components(pca, variance_kept, max_components=None):
    """Keep the smallest number of components that holds a share of the variance.

    variance_kept: in (0, 1]. max_components: upper bound, or None. Returns a Pca of k components.
    """
    return pca._replace(components=pca.components[:, : _count_enough(pca, variance_kept, max_components)])


def _count_enough(pca, variance_kept, max_components):
    """Count the components that hold a share of the variance, up to a limit or None; a saved PCA may hold fewer."""
    reached = np.cumsum(pca.variance_ratio) >= variance_kept - ROUNDING
    enough = int(reached.argmax()) + 1 if reached.any() else len(reached)
    return min(enough, max_components or enough)


def tell_choice(pca, variance_kept, max_components=None):
    """Tell in a line how many components a share of the variance takes, or that it is not reached."""
    count = _count_enough(pca, variance_kept, max_components)
    kept = float(pca.variance_ratio[:count].sum())
    told = f"{variance_kept:.4g} of the variance" + ("" if kept >= variance_kept - ROUNDING else " is NOT REACHED")
    return f"{told}: {count:,} of {len(pca.mean):,} components keep {kept:.4f}"


def tell_saved(pca, share):
    """Tell in a line whose variance a saved PCA has told, and which share of these pictures' it keeps, or None."""
    kept = "nothing, as they do not differ" if share is None else f"{share:.2%}"
    return f"that is the variance of the {pca.rows:,} pictures that it was fitted on; of the pictures here: {kept}"


def to_spark_model(spark, pca):
    """Make a pyspark.ml model that centres the column vector and projects it on the components held, as column pca.

    Returns a PipelineModel (StandardScalerModel, PCAModel) like those that pyspark.ml fits: it saves, loads and
    transforms with pyspark alone.
    """
    scaler = _make_model(spark, StandardScalerModel, [DenseVector(np.ones_like(pca.mean)), DenseVector(pca.mean)])
    scaler._set(inputCol="vector", outputCol="vector_centred", withMean=True, withStd=False)
    components = DenseMatrix(len(pca.mean), pca.k, pca.components.ravel(order="F"))
    projector = _make_model(spark, PCAModel, [components, DenseVector(pca.variance_ratio[: pca.k])])
    projector._set(k=pca.k, inputCol="vector_centred", outputCol="pca")
    return PipelineModel([scaler, projector])


def project(table, pca):
    """Project the features of a table on the components held: what the model of to_spark_model does, in NumPy.

    table: DataFrame (path, label, features). Returns a DataFrame (path, label, pca array<float>, of length k).
    """
    basis = table.sparkSession.sparkContext.broadcast((pca.mean, pca.components))

    def project_partition(batches):
        mean, components = basis.value
        for batch in batches:
            path, label, features = batch.columns
            values = features.flatten().to_numpy().reshape(-1, len(mean))
            scores = np.float32((values - mean) @ components)
            ends = np.arange(0, scores.size + 1, scores.shape[1], dtype=np.int32)
            vectors = pa.ListArray.from_arrays(ends, scores.ravel())
            yield pa.RecordBatch.from_arrays([path, label, vectors], ["path", "label", "pca"])

    return table.select("path", "label", "features").mapInArrow(project_partition, PROJECTION)


def find_extremes(projection, components=3, count=4):
    """Find the pictures at both ends of the first components, in one pass.

    projection: DataFrame (path, label, pca). Returns a pandas DataFrame (component from 1 on, end "low" or "high",
    path, label, score) of up to count rows an end, the outermost first.
    """
    few = projection.select("path", "label", F.slice("pca", 1, components).alias("pca"))
    order = [F.when(F.col("end") == "low", F.col("score")).otherwise(-F.col("score")), "path"]
    return take_best(few, lambda block: _find_ends(block, count), EXTREMES, ["component", "end"], order, count)


def _find_ends(points, count):
    """Find the count outermost of some pictures, at both ends of each component.

    points: pandas DataFrame (path, label, pca). Returns a DataFrame (component, end, path, label, score).
    """
    ends, scores = [], np.stack(points["pca"])
    for number, score in enumerate(scores.T):
        for end, order in (("low", score), ("high", -score)):
            chosen = np.lexsort((points["path"].to_numpy(str), order))[:count]
            rows = points.iloc[chosen][["path", "label"]]
            ends.append(rows.assign(component=number + 1, end=end, score=score[chosen]))
    return pd.concat(ends, ignore_index=True)[["component", "end", "path", "label", "score"]]


def save_pca(spark, pca, folder, fingerprint):
    """Save a PCA as a pyspark.ml model, with what a later run must know of it in a file beside.

    fingerprint: backbones.compute_fingerprint's, of the network that made the features.
    """
    to_spark_model(spark, pca).write().overwrite().save(folder)
    about = {"fingerprint": fingerprint, "rows": pca.rows, "variance": pca.variance.tolist()}
    storage.write_bytes(f"{folder}/{ABOUT}", json.dumps(about, indent=1).encode() + b"\n")


def load_pca(folder, fingerprint):
    """Load a PCA that save_pca saved. fingerprint: of the network whose features it shall project.

    Returns a Pca that holds the components saved. Raises ValueError where it was fitted on features of another network,
    and where the file beside the model is damaged.
    """
    complaint = f"is damaged: take a whole copy of {folder}, or delete that folder and fit a new PCA"
    about = storage.read_json(f"{folder}/{ABOUT}", {"fingerprint": dict, "rows": int, "variance": list}, complaint)
    if differences := increments.tell_differences(about["fingerprint"], fingerprint):
        raise ValueError(
            f"the PCA in {folder} was fitted on features of another network: {differences}. "
            f"Set pca_model to one of the same network, or leave it out to fit a new one"
        )
    # Java reads the model by itself; PipelineModel.load would start a Python worker to read its description.
    scaler, projector = JavaMLReader(PipelineModel).load(folder).stages
    return Pca(scaler.mean.toArray(), projector.pc.toArray(), np.array(about["variance"]), about["rows"])


def _make_model(spark, model_class, values):
    """Build the Java half of a pyspark.ml model, which Python alone has no constructor for."""
    java_class = getattr(spark.sparkContext._jvm.org.apache.spark.ml.feature, model_class.__name__)
    arguments = [_py2java(spark.sparkContext, value) for value in values]
    return model_class(java_class(f"{model_class.__name__}_fruits", *arguments))
