"""Contender 2, the project: the steps of notebooks/local.ipynb in their order, without what is only shown.

Usage: python project.py TASK, a JSON object with pictures, output and cores; and, for volume.py, packed (folder to pack
the pictures in) and live_heap (whether to measure what Java holds)

Left out: figures, show(), printed sources, the comparisons with pyspark.ml, and quality, which is not the course's.
In a folder that holds the results of an earlier run, it does what the notebook does: only what is new.
"""

import json
import os
import sys
from importlib import import_module
from io import BytesIO
from threading import Thread
from typing import NamedTuple

from measures import Measures, read_live_heap

# The notebook's defaults.
PARAMETERS = {"backbone": "EfficientNetLite0", "weights": "imagenet", "variance_kept": 0.95, "batch_size": 16}
PICTURES_PER_COMMIT = 8192

measures = Measures()
with measures.step("start"):
    import numpy as np
    from pyspark import StorageLevel

    from fruits import features, images, increments, quality, reduction, report, sample, session


class Network(NamedTuple):
    """The network: as it was cut, folded for the workers, and the fingerprint that its features carry."""

    extractor: object
    folded: object
    fingerprint: dict


def start_spark(cores):
    """Start Spark on some cores."""
    spark = session.start_spark(f"local[{cores}]")
    features.tune_spark(spark, PARAMETERS["batch_size"])
    return spark


def load_pictures(spark, folder):
    """Make the table of the pictures, labelled by their folder, or of packed ones, which have labels."""
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    reader = reader.option("ignoreMissingFiles", "true").option("ignoreCorruptFiles", "true")
    if images.is_packed(folder):
        reader = spark.read.format("parquet").option("ignoreMissingFiles", "true")
    return images.label_pictures(reader.load(folder))


def prepare_network():
    """Build the network, cut it, fold it, and say what made its features."""
    from fruits import backbones
    from fruits.tensorflow_setup import keras

    whole = backbones.build_network(PARAMETERS["backbone"], PARAMETERS["weights"])
    extractor = keras.Model(whole.inputs[0], backbones.find_last_hidden(whole), name=whole.name)
    fingerprint = backbones.compute_fingerprint(PARAMETERS["backbone"], extractor)
    return Network(extractor, backbones.fold_batch_norm(extractor), fingerprint)


def make_featurizer(spark, network):
    """Compile and broadcast the network, and make the function that turns pictures into features."""
    from fruits import backbones

    broadcast_network = spark.sparkContext.broadcast(backbones.compile_network(network.folded))
    done, refused = spark.sparkContext.accumulator(0), spark.sparkContext.accumulator(0)
    return features.make_featurizer(broadcast_network, done, refused)


def check_workers(spark, network, featurize):
    """Check every worker against the driver, which starts them."""
    content = BytesIO()
    sample.draw_picture("Banana", 0).save(content, "JPEG")
    cores = spark.sparkContext.defaultParallelism
    same_picture = spark.createDataFrame([(content.getvalue(),)] * cores, "content binary")
    on_workers = [row[0] for row in same_picture.select(featurize("content").features).collect()]
    pixels = images.decode(content.getvalue(), network.folded.input_shape[1:3])
    on_driver = network.extractor(np.float32([pixels])).numpy()[0]
    assert np.abs(np.subtract(on_workers, on_driver)).max() < 1e-4 * np.abs(on_driver).max()


def write_features(pictures, changes, featurize, output):
    """Featurize what is new, slice by slice, and write parquet, features and refusals."""
    for part in increments.cut_slices(pictures, changes, PICTURES_PER_COMMIT):
        outcomes = (
            part.withColumn("outcome", featurize("content"))
            .select("path", "label", "length", "modificationTime", "outcome.features", "outcome.reason")
            .persist(StorageLevel.DISK_ONLY)
        )
        rejected = outcomes.where("reason IS NOT NULL").drop("label", "features")
        rejected.write.mode("append").parquet(f"{output}/rejected")
        featurized = outcomes.where("features IS NOT NULL").drop("reason")
        featurized = featurized.coalesce(pictures.sparkSession.sparkContext.defaultParallelism)
        featurized.write.mode("append").parquet(f"{output}/features")
        outcomes.unpersist()


def write_projection(spark, output, fingerprint):
    """Read the features back, fit PCA, choose k, save the model, project, write. Returns a reduction.Pca."""
    table = spark.read.parquet(f"{output}/features")
    chosen = reduction.choose_components(reduction.fit_pca(table), PARAMETERS["variance_kept"])
    reduction.save_pca(spark, chosen, f"{output}/pca", fingerprint)
    reduction.project(table, chosen).write.mode("overwrite").parquet(f"{output}/projection")
    quality.Quality(chosen.k).save(output)  # nothing is measured, but a run with nothing new looks for it
    return chosen


def run_features(spark, task, run):
    """Bring features/ and rejected/ up to date.

    Returns (fingerprint, do the results of the run before stand?, the pictures as Spark lists them).
    """
    folder, output = task["pictures"], task["output"]
    with measures.step("list"):
        listing, pictures = images.survey(spark, folder, output), load_pictures(spark, folder)
    if task.get("packed"):
        with measures.step("pack"):
            pictures, listing = increments.pack(spark, pictures, listing, task["packed"], PICTURES_PER_COMMIT)
    with measures.step("network"):
        network = prepare_network()
        increments.claim_features(output, network.fingerprint)
    with measures.step("list"):
        tables = increments.list_tables(output)
        changes = increments.find_changes(spark, listing, tables, f"{output}/changes")
        increments.refuse_loss(changes, output)
    unchanged = changes.is_empty and run.repeats_earlier
    if not unchanged:
        run.begin()
    run.count(changes)
    if changes.to_do:
        with measures.step("network"):
            featurize = make_featurizer(spark, network)
        with measures.step("workers"):
            check_workers(spark, network, featurize)
        with measures.step("featurize"):
            write_features(pictures, changes, featurize, output)
    with measures.step("tidy"):
        increments.tidy(spark, changes, tables)
    return network.fingerprint, unchanged, pictures


def write_report(spark, run, output):
    """Check that no picture was lost and write report.json."""
    table, rejected = (spark.read.parquet(f"{output}/{name}") for name in ("features", "rejected"))
    run.seconds |= {step: measures.seconds.get(step, 0) for step in ("featurize", "tidy")}
    run.account(table, rejected)
    run.save()


def main(task):
    """Run the project's flow from end to end."""
    output = task["output"]
    run = report.Report(output, images_path=task["pictures"], **PARAMETERS)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)  # heard while the thread keeps TensorFlow silent
    Thread(target=import_module, args=["fruits.backbones"]).start()  # TensorFlow, while Spark starts and lists
    with measures.step("start"):
        spark = start_spark(task["cores"])
    with measures.step("features"):  # list, network, workers, featurize and tidy are its parts
        fingerprint, unchanged, listed = run_features(spark, task, run)
    with measures.step("pca"):
        if unchanged:
            pca = reduction.load_pca(f"{output}/pca", fingerprint)
        else:
            run.delete_earlier()
            pca = write_projection(spark, output, fingerprint)
        measures.note(components=pca.k, variance_ratio=pca.variance_ratio[: pca.k].tolist())
    write_report(spark, run, output)
    if task.get("live_heap"):  # last, since collecting garbage takes seconds and would make later peaks lower
        with measures.step("heap"):
            measures.note(java_live_mib=read_live_heap(spark, listed))
    measures.save(output)
    spark.stop()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
