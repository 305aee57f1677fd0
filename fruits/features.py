"""From bytes to feature vectors, on the workers: one pass, one network a worker, a reason for each picture refused."""

import math
import sys
import zipimport
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import pandas as pd
from pyspark import TaskContext
from pyspark.sql.functions import pandas_udf

from fruits import images, interpreter

OUTCOME = "features array<float>, reason string"  # one of the two is null; both where memory did not suffice
TASK_PICTURES = 256  # that a task takes at most
FILE_WEIGHT = 2**27 // TASK_PICTURES  # bytes that Spark counts beside a file's own; it fills tasks of 128 MiB
TASKS = "spark.sql.files.minPartitionNum"
BATCH_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"
TASKS_PER_CORE = 4  # where there are fewer pictures than that; more tasks end together, fewer start quicker


def tune_spark(spark, batch_size):
    """Set how Spark cuts pictures into tasks, and tasks into batches.

    batch_size: pictures that a worker receives, decodes and gives back as vectors at once. Spark's own tasks, 32 small
    files each, are over before they pay for their start. Where a file's blocks lie, which is the same for all on S3 and
    on one disk, is not listed. Dates of files are written as they are, however long ago.
    """
    cores = spark.sparkContext.defaultParallelism
    spark.conf.set(BATCH_ROWS, batch_size)
    spark.conf.set("spark.sql.files.openCostInBytes", FILE_WEIGHT)
    spark.conf.set(TASKS, TASKS_PER_CORE * cores)
    spark.conf.set("spark.sql.sources.ignoreDataLocality", True)
    for kind in ("int96", "datetime"):  # Spark's own choice is to fail at a file's date before 1900
        for way in ("Read", "Write"):
            spark.conf.set(f"spark.sql.parquet.{kind}RebaseModeIn{way}", "CORRECTED")


@contextmanager
def set_meanwhile(spark, name, value):
    """Set one of Spark's settings while the block runs."""
    before = spark.conf.get(name, None)
    spark.conf.set(name, value)
    try:
        yield
    finally:
        spark.conf.unset(name) if before is None else spark.conf.set(name, before)


@contextmanager
def cut_tasks(spark, count, heaviest):
    """Have Spark read pictures, count of them, in tasks of TASK_PICTURES at most while the block runs, packed ones too.

    A packed picture has no file of its own, and weighs little: without this a task would take thousands, each core of a
    cluster one or two, and wait for the last. Cores that have joined get tasks too.
    heaviest: bytes of the heaviest. Batches of heavy ones hold fewer: together they weigh no more than one may.
    """
    tasks = max(TASKS_PER_CORE * spark.sparkContext.defaultParallelism, math.ceil(count / TASK_PICTURES))
    rows = max(1, min(int(spark.conf.get(BATCH_ROWS)), images.find_max_bytes(spark) // heaviest))
    with set_meanwhile(spark, TASKS, tasks), set_meanwhile(spark, BATCH_ROWS, rows):
        yield


def make_featurizer(broadcast_network, done=None, refused=None):
    """Make the function that Spark applies to a column of pictures.

    broadcast_network: pyspark.Broadcast of what backbones.compile_network returns.
    done, refused: pyspark Accumulators of pictures, of all and of those without features, or None.
    Returns a pandas UDF: binary column -> struct(features array<float>, reason string); one is null, or both.
    """

    @pandas_udf(OUTCOME)
    def featurize(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        extract, size = load_network(broadcast_network)
        for contents in batches:
            outcomes = featurize_batch(contents, extract, size)
            yield outcomes
            if done is not None:
                done.add(len(outcomes))
                refused.add(int(outcomes["reason"].notna().sum()))

    return featurize


@lru_cache(maxsize=1)  # it lives as long as the worker; in a notebook it would end with the task
def load_network(broadcast_network):
    """Open the broadcast network in this worker, once.

    Returns (extract, size), as interpreter.open_network does: pixels -> features; (height, width) in pixels.
    """
    _forget_archives()
    # As many tasks as there are cores run side by side: a picture gets the cores of its task and no more.
    return interpreter.open_network(broadcast_network.value, threads=TaskContext.get().cpus())


def _forget_archives():
    """Take archives out of this worker's way when it looks for modules.

    Spark puts its own jar and two zip files on the path, and Python reads the directory of each again, in pure Python
    and once for each package found in it, at the start of every task: as long as tens of pictures take.
    """
    sys.path[:] = [entry for entry in sys.path if not entry.endswith(".jar")]
    for entry, finder in list(sys.path_importer_cache.items()):
        if isinstance(finder, zipimport.zipimporter):
            del sys.path_importer_cache[entry]


def featurize_batch(contents, extract, size):
    """Turn a batch of pictures into features.

    contents: pandas Series of bytes, one file a row. extract, size: as load_network returns them.
    Returns a pandas DataFrame with a row a picture: features (float32 array, or None) and reason (str, or None).
    """
    vectors, reasons = [None] * len(contents), [None] * len(contents)
    pixels, decoded = np.empty((len(contents), *size, 3), np.uint8), []
    for position, content in enumerate(contents):
        try:
            pixels[len(decoded)] = images.decode(content, size)
            decoded.append(position)
        except images.RefusedPicture as refusal:
            reasons[position] = str(refusal)
        except MemoryError:  # it may suffice another time: with no outcome, the next run tries again
            continue
    if decoded:
        for position, vector in zip(decoded, extract(pixels[: len(decoded)]), strict=True):
            if np.isfinite(vector).all():
                vectors[position] = vector
            else:
                reasons[position] = "its features are not finite numbers: the weights may be damaged"
    return pd.DataFrame({"features": vectors, "reason": pd.Series(reasons, dtype=object)})
