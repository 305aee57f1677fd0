"""Contender 2, the project: the steps of notebooks/local.ipynb in their order, without what is only shown.

Usage: python project.py TASK, a JSON object with pictures, output and cores

Left out: figures, show(), printed sources, the comparisons with pyspark.ml, and quality, which is not the course's.
"""

import json
import sys
from io import BytesIO

from measures import Measures

VARIANCE_KEPT = 0.95  # the notebook's defaults
BATCH_SIZE = 16

measures = Measures()
with measures.step("start"):
    import numpy as np
    from pyspark import StorageLevel
    from pyspark.sql import functions as F

    from fruits import backbones, features, images, reduction, report, sample, session


def start_spark(cores):
    """Start Spark on some cores."""
    spark = session.start_spark(f"local[{cores}]")
    features.tune_spark(spark, BATCH_SIZE)
    return spark


def load_pictures(spark, folder):
    """Read the pictures and label them by their folder."""
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    files = reader.option("ignoreMissingFiles", "true").option("ignoreCorruptFiles", "true").load(folder)
    files = files.where(F.col("length") <= images.MAX_BYTES)
    return files.withColumn("label", F.element_at(F.split("path", "/"), -2))


def prepare_featurizer(spark):
    """Cut and fold the network, broadcast its weights, and check one worker against the driver."""
    feature_extractor = backbones.cut_classifier(backbones.build_network())
    model = backbones.fold_batch_norm(feature_extractor)
    broadcast_weights = spark.sparkContext.broadcast(model.get_weights())
    counter = spark.sparkContext.accumulator(0)
    featurize = features.make_featurizer(model.to_json(), broadcast_weights, counter)
    content = BytesIO()
    sample.draw_picture("Banana", 0).save(content, "JPEG")
    cores = spark.sparkContext.defaultParallelism
    same_picture = spark.createDataFrame([(content.getvalue(),)] * cores, "content binary")
    on_workers = [row[0] for row in same_picture.select(featurize("content").features).collect()]
    pixels = images.decode(content.getvalue(), model.input_shape[1:3])
    on_driver = feature_extractor(np.float32([pixels])).numpy()[0]
    assert np.abs(np.subtract(on_workers, on_driver)).max() < 1e-4 * np.abs(on_driver).max()
    return featurize


def write_features(pictures, featurize, listing, output):
    """Featurize every picture and write parquet, features and refusals."""
    outcomes = (
        pictures.withColumn("outcome", featurize("content"))
        .select("path", "label", "length", "modificationTime", "outcome.features", "outcome.reason")
        .persist(StorageLevel.DISK_ONLY)
    )
    featurized = outcomes.where("features IS NOT NULL").drop("reason")
    featurized.write.mode("overwrite").parquet(f"{output}/features")
    rejected = images.gather_rejected(pictures, outcomes, listing)
    rejected.coalesce(1).write.mode("overwrite").parquet(f"{output}/rejected")
    outcomes.unpersist()


def write_projection(spark, output):
    """Read the features back, fit PCA, choose k, save the model, project, write. Returns a reduction.Pca."""
    table = spark.read.parquet(f"{output}/features")
    chosen = reduction.choose_components(reduction.fit_pca(table), VARIANCE_KEPT)
    reduction.to_spark_model(spark, chosen).write().overwrite().save(f"{output}/pca")
    reduction.project(table, chosen).write.mode("overwrite").parquet(f"{output}/projection")
    return chosen


def write_report(spark, run, listing, output):
    """Check that no picture was lost and write report.json."""
    table, rejected = (spark.read.parquet(f"{output}/{name}") for name in ("features", "rejected"))
    run.seconds |= {"featurize": measures.seconds["features"]}
    run.account(listing, table, rejected)
    run.save(output)


def main(task):
    """Run the project's flow from end to end."""
    output, run = task["output"], report.Report()
    with measures.step("start"):
        spark = start_spark(task["cores"])
    with measures.step("features"):
        pictures, listing = load_pictures(spark, task["pictures"]), images.survey(task["pictures"])
        with measures.step("workers"):  # a part of "features": network, start of the workers
            featurize = prepare_featurizer(spark)
        write_features(pictures, featurize, listing, output)
    with measures.step("pca"):
        pca = write_projection(spark, output)
        measures.note(components=pca.k, variance_ratio=pca.variance_ratio[: pca.k].tolist())
    write_report(spark, run, listing, output)
    measures.save(output)
    spark.stop()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
