"""Keras networks for feature extraction: built by name, cut before their classifier, folded for speed."""

import difflib
import hashlib
import inspect
import socket
import sys
import tempfile
import warnings
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from textwrap import shorten

import numpy as np

from fruits import efficientnet_lite0, storage
from fruits.interpreter import silence_stderr
from fruits.parameters import DEFAULT_BACKBONE
from fruits.tensorflow_setup import keras, tf

layers = keras.layers

DEFAULT_SIZE = (224, 224)  # pixels; what keras.applications takes where a network accepts any size
DOWNLOAD_TIMEOUT = 30  # seconds without an answer; a private subnet never answers, and Keras sets no limit
# Of ImageNet's pixels, in 0..1: red, green, blue. https://github.com/tensorflow/tensorflow/issues/49930
IMAGENET_MEANS, IMAGENET_DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def list_backbones():
    """List the names that build_network knows: ours, then every network of keras.applications."""
    applications = inspect.getmembers(keras.applications, inspect.isfunction)
    return [DEFAULT_BACKBONE, *(name for name, _ in applications)]


def build_network(backbone=DEFAULT_BACKBONE, weights="imagenet"):
    """Build a network that classifies ImageNet, from raw pixels, with its weights.

    backbone: a name of list_backbones(). weights: "imagenet", a file of Keras weights (.weights.h5 or .h5, of the
    network with or without its classifier), or None for random ones.
    Returns a keras.Model: float32 (n, height, width, 3), RGB in 0..255 -> (n, 1000). Its scaling is inside.
    Raises ValueError where the name is unknown, the weights cannot be downloaded or are another network's, OSError
    where their file cannot be read.
    """
    check_backbone(backbone)
    if backbone == DEFAULT_BACKBONE:
        network = efficientnet_lite0.build_efficientnet_lite0()
        if weights == "imagenet":
            efficientnet_lite0.set_imagenet_weights(network)
    else:
        network = _build_application(backbone, "imagenet" if weights == "imagenet" else None)
    if weights not in ("imagenet", None):
        load_weights(network, weights)
        return _complete_scaling(network)
    return network


def check_backbone(backbone):
    """Raise ValueError, with the nearest names, where no network has this name."""
    known = list_backbones()
    if backbone not in known:
        lowered = {name.lower(): name for name in known}
        near = difflib.get_close_matches(str(backbone).lower(), lowered, n=3) or lowered
        names = ", ".join(lowered[name] for name in near)
        raise ValueError(
            f"{backbone!r} is unknown, expected a network's name such as {names}: correct it, "
            f"or choose one of https://keras.io/api/applications ({DEFAULT_BACKBONE} alone needs no download)"
        )


def _build_application(backbone, weights):
    """Build a network of keras.applications whose first operation is its own preprocess_input."""
    application = getattr(keras.applications, backbone)
    preprocess_input = sys.modules[application.__module__].preprocess_input
    height, width = application(weights=None).input_shape[1:3]  # the size it was trained for, which nothing else tells
    pixels = keras.Input((height or DEFAULT_SIZE[0], width or DEFAULT_SIZE[1], 3), name="pixels")
    with _explain_download(backbone):
        network = application(weights=weights, input_tensor=preprocess_input(pixels))
    return keras.Model(pixels, network.output, name=network.name)


def _complete_scaling(network):
    """Give EfficientNetB0 to B7 the last operation of their scaling, where a file has brought ImageNet's weights.

    Keras puts it into the network only where it downloads the weights itself: these hold deviations where its layer
    takes variances. Nothing else of the network changes; any other network is returned as it is.
    """
    norms = [layer for layer in network.layers if isinstance(layer, layers.Normalization) and layer.input_mean is None]
    if len(norms) != 1 or not np.allclose(norms[0].adapt_mean, IMAGENET_MEANS, atol=1e-3):
        return network
    rescale = layers.Rescaling([deviation**-0.5 for deviation in IMAGENET_DEVIATIONS])

    def call_layer(layer, *inputs, **options):
        outputs = layer(*inputs, **options)
        return rescale(outputs) if layer.name == norms[0].name else outputs

    complete = keras.models.clone_model(network, call_function=call_layer)
    for layer in network.layers:
        _set_weights(complete.get_layer(layer.name), layer.get_weights())
    return complete


def _set_weights(layer, values):
    """Set the weights of a layer, and what Normalization computes of them, which set_weights alone leaves as it was."""
    layer.set_weights(values)
    if isinstance(layer, layers.Normalization):
        layer.finalize_state()


@contextmanager
def _explain_download(backbone):
    """Turn a failed download into one error that names the ways out, and a silent network into a failed one."""
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    except Exception as error:  # Keras raises a bare Exception here, or lets the network's own pass
        is_known = any(said in str(error) for said in ("URL fetch failure", "Incomplete or corrupted file"))
        if not is_known and not isinstance(error, TimeoutError | ConnectionError | HTTPException):
            raise
        raise ValueError(
            f"the ImageNet weights of {backbone} cannot be downloaded from here ({error}). Two ways out: "
            f"(1) backbone: {DEFAULT_BACKBONE}, whose weights came with pip; (2) where there is a network, run "
            f'keras.applications.{backbone}().save_weights("{backbone}.weights.h5"), bring the file here (or to S3) '
            f"and set weights to its path"
        ) from None
    finally:
        socket.setdefaulttimeout(patience)


def load_weights(network, path):
    """Load a file of weights into a network, with or without its classifier.

    path: file that Keras saved (.weights.h5) or that keras.applications publishes (.h5, with or without "top"), on this
    machine or on S3. Raises ValueError where it is another network's, OSError where it cannot be read.
    """
    complaints = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):  # the errors say it all
        copy = Path(folder, Path(path).name)  # Keras reads files of this machine only, and goes by their ending
        copy.write_bytes(storage.read_bytes(storage.resolve(path)))
        for model in (network, cut_classifier(network)):
            try:
                return model.load_weights(copy)
            except (ValueError, KeyError, OSError) as error:
                complaints.append(shorten(str(error), 300, placeholder=" ..."))
    raise ValueError(
        f"weights is {path!r}, which does not fit {network.name} ({complaints[0]}): "
        f"give the file of the backbone that the params name, or change the backbone"
    )


def find_last_hidden(network):
    """Find what the classifier of a network reads: the last hidden layer.

    The classifier is the last layer that has weights; reshapes and softmax that follow it have none.
    Returns a KerasTensor (n, features), flattened where the classifier is a convolution, as in MobileNet.
    """
    classifier = next(layer for layer in reversed(network.layers) if layer.weights)
    hidden = classifier.input
    return hidden if len(hidden.shape) == 2 else layers.Flatten(name="last_hidden")(hidden)


def cut_classifier(network):
    """Cut a network before its classifier: float32 (n, height, width, 3) -> float32 (n, features)."""
    return keras.Model(network.inputs[0], find_last_hidden(network), name=network.name)


def fold_batch_norm(model):
    """Fold each batch normalisation into the convolution before it: same features to 1e-5, fewer passes over memory.

    norm(conv(x)) = gamma * (kernel * x + bias - mean) / sqrt(variance + epsilon) + beta, which is a convolution with
    another kernel and another bias. A normalisation that follows anything else stays.
    Returns a new keras.Model; the one given is left as it is.
    """
    pairs = _find_foldable(model)
    norms = {norm.name for norm in pairs.values()}

    def clone_layer(layer):
        config = layer.get_config()
        return layer.__class__.from_config(config | {"use_bias": True} if layer.name in pairs else config)

    def call_layer(layer, *inputs, **options):
        return inputs[0] if layer.name in norms else layer(*inputs, **options)

    folded = keras.models.clone_model(model, clone_function=clone_layer, call_function=call_layer)
    for layer in model.layers:
        if layer.name in pairs:
            folded.get_layer(layer.name).set_weights(_fold_pair(layer, pairs[layer.name]))
        elif layer.name not in norms:
            _set_weights(folded.get_layer(layer.name), layer.get_weights())
    return folded


def _find_foldable(model):
    """Map the name of each convolution that feeds one batch normalisation and nothing else to that normalisation."""
    pairs = {}
    for norm in model.layers:
        if isinstance(norm, layers.BatchNormalization):
            source = norm.input._keras_history.operation
            is_convolution = type(source) in (layers.Conv2D, layers.DepthwiseConv2D)
            if is_convolution and source.activation is keras.activations.linear and len(source._outbound_nodes) == 1:
                pairs[source.name] = norm
    return pairs


def _fold_pair(convolution, norm):
    """Compute the kernel and the bias of a convolution followed by its normalisation, in float64."""
    kernel, *bias = (value.astype(np.float64) for value in convolution.get_weights())
    mean, variance = np.float64(norm.moving_mean), np.float64(norm.moving_variance)
    scale = (np.float64(norm.gamma) if norm.scale else 1.0) / np.sqrt(variance + norm.epsilon)
    shift = np.float64(norm.beta) if norm.center else 0.0
    # A depthwise kernel is (height, width, channels, multiplier); an ordinary one ends with its output channels.
    is_depthwise = isinstance(convolution, layers.DepthwiseConv2D)
    kernel_scale = scale.reshape(kernel.shape[2:]) if is_depthwise else scale
    return [kernel * kernel_scale, (sum(bias) - mean) * scale + shift]


def compile_network(model):
    """Compile a model into a file of TensorFlow Lite: its weights, and the operations that use them.

    interpreter.open_network runs it: on a processor with AVX2 alone it takes five sixths of the time that TensorFlow's
    own kernels take, on one with AVX512 and AMX as long as they; and a worker that imports neither TensorFlow nor Keras
    is ready in a quarter of a second instead of seven, and takes a quarter of the memory (256 MiB instead of 1,053).
    model: takes float32 (n, height, width, 3). Returns bytes; the network in them takes uint8, one picture at once.
    """

    # AutoGraph, of no use without a Python loop, writes a file that a process which is killed leaves behind.
    @tf.function(input_signature=[tf.TensorSpec((1, *model.input_shape[1:]), tf.uint8)], autograph=False)
    def run_model(pixels):
        return model(tf.cast(pixels, tf.float32), training=False)

    with silence_stderr():  # it tells how it converts
        return tf.lite.TFLiteConverter.from_concrete_functions([run_model.get_concrete_function()]).convert()


def compute_fingerprint(backbone, model):
    """Compute what makes features comparable: those of two networks are only where all of this is equal.

    model: a network cut before its classifier. Returns a dict that JSON keeps as it is: backbone, input_size (height,
    width), n_features, scaling (what black and what white become, by channel) and weights_sha256.
    """
    height, width = model.input_shape[1:3]
    first = next(layer for layer in model.layers if layer.weights and not isinstance(layer, layers.Normalization))
    scale = keras.Model(model.inputs[0], first.input)
    flat = np.float32([np.zeros((height, width, 3)), np.full((height, width, 3), 255)])
    scaled = scale(flat).numpy()
    middle = scaled[:, scaled.shape[1] // 2, scaled.shape[2] // 2]  # the border may be padding
    return {
        "backbone": backbone,
        "input_size": [height, width],
        "n_features": model.output_shape[1],
        "scaling": [[round(float(value), 4) for value in colour] for colour in middle],
        "weights_sha256": hash_weights(model),
    }


def hash_weights(model):
    """Compute the sha256 of a model's weights, values and shapes in order, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for value in model.get_weights():
        digest.update(str(value.shape).encode() + np.ascontiguousarray(value, "<f4").tobytes())
    return digest.hexdigest()
