"""Measure what notebooks/scale.ipynb computes with, beside what bench.py measures.

Usage: python benchmarks/scale.py find [--rows N] | pca [--rows N] | tasks --pictures FOLDER [--copies N]

find: what is new among names, and the tables tidied. pca: fit and projection of few and of many rows. tasks: how much
the times of tasks spread, on a folder of pictures. Each prints its measures, and the number of the notebook where that
is one division away. Nothing else should run meanwhile.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pca
from pyspark.sql import functions as F

from fruits import backbones, features, increments, reduction, session

CORES = 2
PARTS = 8


def take_time(work):
    """Say how many seconds a piece of work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_find(spark, folder, options):
    """Find what is new among names of which all but one in a hundred are known, and tidy the tables after it."""
    numbers = spark.range(0, options.rows, 1, PARTS)
    name = F.concat(F.lit("s3://fruits-111122223333-eu-west-3/images/Lemon/"), F.hex(F.xxhash64("id")), F.lit(".jpg"))
    hour = (F.lit(1.76e9) + 30 * (F.col("id") % 86400)).cast("timestamp")
    names = numbers.select("id", name.alias("path"), (F.hash("id") % 40000).cast("bigint").alias("length"))
    names = names.withColumns({"modificationTime": hour, "label": F.lit("Lemon"), "reason": F.lit(None).cast("string")})
    names.drop("id").write.parquet(f"{folder}/listing")
    known = names.where("id % 100 != 0").withColumn("features", F.lit(None).cast("array<float>"))
    increments.append(known, "features", f"{folder}/features")
    listing = spark.read.parquet(f"{folder}/listing").withColumn("file", F.col("path"))

    def find():
        tables = increments.list_tables(folder)
        changes = increments.find_changes(spark, listing, tables, f"{folder}/changes")
        increments.tidy(spark, changes, tables)

    seconds = [take_time(find) for _ in range(3)]
    size = sum(path.stat().st_size for path in Path(folder, "listing").iterdir())
    print(f"{size / options.rows:.0f} bytes a name; {', '.join(f'{one:.1f}' for one in seconds)} s")
    print(f"keys_per_second_per_core: {1.99 * options.rows / statistics.median(seconds) / CORES:,.0f}")


def measure_pca(spark, folder, options):
    """Fit and project few rows and many; what does not grow is fixed."""
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 16)  # as in a run
    tables = {rows: f"{folder}/{rows}" for rows in (options.rows // 8, options.rows)}
    for rows, path in tables.items():
        pca.write_features(path, rows)
    for turn in ("cold", "warm"):
        for rows, path in tables.items():
            table, start = spark.read.parquet(path), time.perf_counter()
            chosen = reduction.choose_components(reduction.fit_pca(table), 1.0, pca.FEATURES // pca.KEPT)
            fitted = time.perf_counter() - start
            output = reduction.project(table, chosen).write.mode("overwrite")
            projected = take_time(lambda to=output: to.parquet(f"{folder}/projection"))
            print(f"{turn}, {rows:,} rows: fit {fitted:.1f} s, project and write {projected:.1f} s")


def measure_tasks(spark, folder, options):
    """Featurize pictures and ask Spark how long each task took. Copies are links."""
    paths = [path.resolve() for path in Path(options.pictures).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg")]
    for number in range(len(paths) * options.copies):
        Path(folder, f"{number}.jpg").symlink_to(paths[number % len(paths)])
    features.tune_spark(spark, 16)
    model = backbones.fold_batch_norm(backbones.cut_classifier(backbones.build_network()))
    featurize = features.make_featurizer(spark.sparkContext.broadcast(backbones.compile_network(model)))
    pictures = spark.read.format("binaryFile").load(folder)
    seconds = take_time(lambda: pictures.select(featurize("content")).write.format("noop").mode("overwrite").save())
    url = f"{spark.sparkContext.uiWebUrl}/api/v1/applications/{spark.sparkContext.applicationId}/stages/0/0/taskList"
    with urllib.request.urlopen(f"{url}?length=10000") as answer:
        tasks = sorted((task["launchTime"], task["duration"] / 1000) for task in json.load(answer))
    times = [duration for _, duration in tasks[CORES:-CORES]]  # the first start workers, the last are smaller
    print(f"{len(paths) * options.copies:,} pictures in {seconds:.0f} s, {len(tasks)} tasks, of these in seconds:")
    print(", ".join(f"{one:.1f}" for one in times))
    print(f"task_spread: {statistics.stdev(times) / statistics.mean(times):.3f}")


MEASURES = {"find": measure_find, "pca": measure_pca, "tasks": measure_tasks}


def main(arguments=None):
    """Measure one thing from a terminal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("--rows", type=int, help="default: 2,000,000 to find, 160,000 for the PCA")
    parser.add_argument("--pictures", default="data/images", help="folder of JPEG pictures")
    parser.add_argument("--copies", type=int, default=9, help="of each picture")
    options = parser.parse_args(arguments)
    options.rows = options.rows or {"find": 2_000_000}.get(options.measure, 160_000)
    spark = session.start_spark(f"local[{CORES}]", app_name="fruits-scale")
    try:
        with tempfile.TemporaryDirectory() as folder:
            MEASURES[options.measure](spark, folder, options)
    finally:
        spark.stop()


if __name__ == "__main__":
    sys.exit(main())
