"""Features on Spark's workers against plain Keras in one process; bad pictures; one network a worker."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pyspark.sql.functions import pandas_udf

from fruits import backbones, features, interpreter
from fruits.tensorflow_setup import keras

PICTURES = Path(features.__file__).parents[1] / "data" / "images"
PATHS = [
    PICTURES / label / "0_100.jpg" for label in ("Banana", "Lemon", "Kiwi", "Plum", "Orange", "Fig", "Pear")
]
SIZE = (224, 224)
GARBAGE = b"these bytes are no picture"
BATCH_SETTING = "spark.sql.execution.arrow.maxRecordsPerBatch"


@pytest.fixture(scope="module")
def folded(feature_extractor):
    return backbones.fold_batch_norm(feature_extractor)


@pytest.fixture(scope="module")
def broadcast_network(spark, folded):
    broadcast = spark.sparkContext.broadcast(backbones.compile_network(folded))
    yield broadcast
    broadcast.unpersist()


@pytest.fixture(scope="module")
def expected(feature_extractor):
    """Features of PATHS by plain Keras, from pixels that Pillow decodes: float32 (n, 1280)."""
    return feature_extractor.predict(np.stack([read_pixels(path) for path in PATHS]), verbose=0)


@pytest.fixture
def featurize(spark, broadcast_network):
    """Run the UDF: featurize(contents, batch_size=16, partitions=2, counters=()) -> rows in order."""
    before = spark.conf.get(BATCH_SETTING)

    def run(contents, batch_size=16, partitions=2, counters=()):
        spark.conf.set(BATCH_SETTING, batch_size)
        udf = features.make_featurizer(broadcast_network, *counters)
        table = make_table(spark, contents, partitions)
        rows = table.select("number", udf("content").alias("outcome")).select("number", "outcome.*").collect()
        return sorted(rows, key=lambda row: row.number)

    yield run
    spark.conf.set(BATCH_SETTING, before)


def make_table(spark, contents, partitions):
    """Make a table of bytes, (number, content), cut into partitions as given."""
    rows = [(number, bytearray(content)) for number, content in enumerate(contents)]
    return spark.createDataFrame(
        spark.sparkContext.parallelize(rows, partitions), "number long, content binary"
    )


def read_pixels(path):
    with Image.open(path) as picture:
        return np.float32(picture.convert("RGB").resize(SIZE[::-1], Image.Resampling.BICUBIC))


def assert_same(found, expected, share):
    np.testing.assert_allclose(found, expected, rtol=0, atol=share * np.abs(expected).max())


def test_features_from_the_workers_equal_plain_keras(featurize, expected):
    rows = featurize([path.read_bytes() for path in PATHS])
    assert [row.reason for row in rows] == [None] * len(PATHS)
    assert_same([row.features for row in rows], expected, 1e-4)


@pytest.mark.parametrize("partitions", [1, 3])
def test_each_picture_keeps_its_own_features_in_any_order(featurize, expected, partitions):
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(PATHS)), 2))
    rows = featurize([PATHS[number].read_bytes() for number in order], batch_size=4, partitions=partitions)
    assert_same([row.features for row in rows], expected[order], 1e-4)
    found = np.array([row.features for row in rows])
    nearest = np.linalg.norm(found[:, None] - expected, axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, order)


def test_features_do_not_depend_on_the_size_of_batches(featurize):
    contents = [path.read_bytes() for path in PATHS]
    one, three, sixteen = (
        np.array([row.features for row in featurize(contents, size, partitions=1)]) for size in (1, 3, 16)
    )
    assert_same(three, one, 1e-5)
    assert_same(sixteen, one, 1e-5)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_bad_picture_gives_its_reason_and_the_others_their_features(featurize, expected, batch_size):
    contents = [path.read_bytes() for path in PATHS]
    contents[3:3] = [GARBAGE]
    contents[0:0] = [contents[0][:400]]
    rows = featurize(contents, batch_size)
    reasons = [row.reason for row in rows]
    assert reasons[0].startswith("damaged or truncated picture")
    assert reasons[4].startswith("not a picture")
    good = [row.features for row in rows if row.reason is None]
    assert_same(good, expected, 1e-4)
    assert [row.features for row in rows if row.reason] == [None, None]


def test_a_batch_of_bad_pictures_only_gives_reasons_only(featurize):
    rows = featurize([GARBAGE, b"", GARBAGE, GARBAGE], batch_size=2)
    assert [row.features for row in rows] == [None] * 4
    assert ["empty" in row.reason for row in rows] == [False, True, False, False]


def test_no_picture_gives_no_row(featurize):
    assert featurize([]) == []


def test_the_counters_count_every_picture_and_those_refused(spark, featurize):
    counters = spark.sparkContext.accumulator(0), spark.sparkContext.accumulator(0)
    featurize([PATHS[0].read_bytes(), GARBAGE, PATHS[1].read_bytes()] * 3, batch_size=2, counters=counters)
    assert [counter.value for counter in counters] == [9, 3]


def test_a_batch_is_featurized_without_spark(feature_extractor, expected):
    extract, size = interpreter.open_network(backbones.compile_network(feature_extractor))
    assert size == SIZE
    frame = features.featurize_batch(
        pd.Series([GARBAGE, PATHS[0].read_bytes(), PATHS[1].read_bytes()]), extract, SIZE
    )
    assert list(frame.columns) == ["features", "reason"]
    assert frame.features[0] is None
    assert frame.reason.isna().tolist() == [False, True, True]
    assert_same(np.stack(frame.features[1:]), expected[:2], 1e-4)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_picture_whose_features_are_no_numbers_is_refused_alone(wrong):
    def extract(pixels):
        vectors = np.ones((len(pixels), 4), np.float32)
        vectors[1, 2] = wrong
        return vectors

    frame = features.featurize_batch(pd.Series([path.read_bytes() for path in PATHS[:3]]), extract, SIZE)
    assert frame.reason[1] == "its features are not finite numbers: the weights may be damaged"
    assert [vector is None for vector in frame.features] == [False, True, False]
    assert frame.reason.isna().tolist() == [True, False, True]


def test_the_network_is_opened_once_for_each_worker_not_for_each_task(spark, broadcast_network):
    @pandas_udf("worker long, network long, built long")
    def observe(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        for contents in batches:
            network = id(features.load_network(broadcast_network))
            built = features.load_network.cache_info().misses
            yield pd.DataFrame(
                [(os.getpid(), network, built)] * len(contents), columns=["worker", "network", "built"]
            )

    table = make_table(spark, [b""] * 8, partitions=8)
    rows = table.select(observe("content").alias("seen")).select("seen.*").collect()
    assert len(rows) == 8
    workers = {row.worker for row in rows}
    assert os.getpid() not in workers
    assert len(workers) < 8
    assert len(set(rows)) == len(workers)


def test_a_network_of_keras_applications_gives_on_workers_what_it_gives_here(spark):
    keras.utils.set_random_seed(3)
    model = backbones.fold_batch_norm(
        backbones.cut_classifier(backbones.build_network("MobileNet", weights=None))
    )
    udf = features.make_featurizer(spark.sparkContext.broadcast(backbones.compile_network(model)))
    row = make_table(spark, [PATHS[0].read_bytes()], 1).select(udf("content").alias("outcome")).first()
    assert_same(row.outcome.features, model.predict(read_pixels(PATHS[0])[None], verbose=0)[0], 1e-5)


def test_a_worker_needs_neither_tensorflow_nor_keras(feature_extractor, tmp_path):
    (tmp_path / "compiled").write_bytes(backbones.compile_network(feature_extractor))
    code = f"""
import sys
import pandas as pd
from pathlib import Path
from fruits import features, interpreter
extract, size = interpreter.open_network(Path({str(tmp_path / "compiled")!r}).read_bytes())
frame = features.featurize_batch(pd.Series([Path({str(PATHS[0])!r}).read_bytes()]), extract, size)
print(len(frame["features"][0]), *(name for name in ("tensorflow", "keras") if name in sys.modules))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert (answer.stdout, answer.stderr) == ("1280\n", "")


@pytest.mark.parametrize(("heaviest", "rows"), [(1, 16), (10, 10), (25, 4), (100, 1)])
def test_a_batch_weighs_no_more_than_one_picture_may(tuned_spark, monkeypatch, heaviest, rows):
    monkeypatch.setattr("fruits.images.MAX_BYTES", 100)
    with features.cut_tasks(tuned_spark, 1000, heaviest):
        assert int(tuned_spark.conf.get(BATCH_SETTING)) == rows
    assert int(tuned_spark.conf.get(BATCH_SETTING)) == 16
