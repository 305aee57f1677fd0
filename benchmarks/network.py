"""Save the network that course and limit run, in the form each one reads: network.keras and network.onnx.

Usage: python network.py FOLDER
"""

import sys
from pathlib import Path

import course  # noqa: F401  imported for their bytecode, which the first contender would otherwise compile
import project  # noqa: F401
import tf2onnx

from fruits import backbones
from fruits.tensorflow_setup import tf


def save_network(folder):
    """Write the default network, cut before its classifier and not folded, for Keras and for ONNX Runtime."""
    model = backbones.cut_classifier(backbones.build_network())
    model.save(Path(folder, "network.keras"))
    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name="pixels")]
    extract = tf.function(lambda pixels: model(tf.cast(pixels, tf.float32), training=False), signature)
    converted, _ = tf2onnx.convert.from_function(extract, input_signature=signature, opset=17)
    Path(folder, "network.onnx").write_bytes(converted.SerializeToString())


if __name__ == "__main__":
    save_network(sys.argv[1])
