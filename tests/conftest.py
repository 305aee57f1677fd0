"""What several tests share: one Spark, one default network, and pictures made on the spot."""

import io

import numpy as np
import pytest
from PIL import Image

from fruits import backbones, session


@pytest.fixture(scope="session")
def spark(tmp_path_factory):
    """One Spark for all tests, on two cores, which writes nothing outside the tests' temporary folder."""
    spark = session.start_spark("local[2]", app_name="fruits-tests")
    yield spark
    spark.stop()


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
