"""What the tests of a process share: one Spark, one default network, and pictures made on the spot."""

import io
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest
import walk
from PIL import Image

from fruits import backbones, features, session

TUNED = [  # features.tune_spark
    "spark.sql.execution.arrow.maxRecordsPerBatch", "spark.sql.files.openCostInBytes",
    "spark.sql.files.minPartitionNum", "spark.sql.sources.ignoreDataLocality",
    *(f"spark.sql.parquet.{kind}RebaseModeIn{way}" for kind in ("int96", "datetime") for way in ("Read", "Write")),
]  # fmt: skip


@pytest.fixture(scope="session")
def spark(tmp_path_factory):
    """One Spark for all tests of a process, on two cores, which writes nothing outside the tests' temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_LOCAL_DIRS", str(tmp_path_factory.mktemp("spark")))
        spark = session.start_spark("local[2]", app_name="fruits-tests")
    yield spark
    spark.stop()


@pytest.fixture(scope="session")
def walk_notebook(spark):
    """Run the notebook's cells in the tests' own Spark, whose settings are put back: as walk.walk."""

    def walk_and_put_back(*arguments):
        with keep_settings(spark):
            return walk.walk(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        yield walk_and_put_back


@pytest.fixture
def tuned_spark(spark):
    """The tests' Spark with the settings of a run, which are put back."""
    with keep_settings(spark):
        features.tune_spark(spark, 16)
        yield spark


@contextmanager
def keep_settings(spark):
    """Put the settings of a run back as they were before."""
    before = {name: spark.conf.get(name, None) for name in TUNED}
    try:
        yield
    finally:
        for name, value in before.items():
            spark.conf.unset(name) if value is None else spark.conf.set(name, value)


@pytest.fixture(scope="session")
def network():
    """EfficientNet-Lite0 with its ImageNet weights and its classifier."""
    return backbones.build_network()


@pytest.fixture(scope="session")
def feature_extractor(network):
    """EfficientNet-Lite0 cut before its classifier, not folded: the reference in plain Keras."""
    return backbones.cut_classifier(network)


@pytest.fixture
def encode_picture():
    """Encode pixels as the bytes of a picture: encode_picture(pixels, "PNG", mode=..., **options)."""

    def encode(pixels, picture_format="JPEG", mode=None, **options):
        picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
        if mode:
            picture = picture.convert(mode)
        content = io.BytesIO()
        picture.save(content, picture_format, **options)
        return content.getvalue()

    return encode


@pytest.fixture(scope="module")
def moto_server():
    """Serve AWS from this process, empty, by moto: the environment that points AWS's clients at it, and is set here."""
    from moto.server import ThreadedMotoServer  # slow to import, and few tests ask for it

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    environment = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-west-3",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment
    urllib.request.urlopen(f"{address}/moto-api/reset", data=b"").close()  # the next server would have its buckets
    server.stop()
