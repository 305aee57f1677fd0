"""Pictures of every kind turned into pixels as a person sees them, or refused with a reason; no file left uncounted."""

import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pyspark.sql import functions as F

from fruits import features, images, storage

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
QUADRANTS = np.uint8([[RED, GREEN], [BLUE, WHITE]])
LOSSLESS = {"PNG": {}, "GIF": {}, "BMP": {}, "TIFF": {}, "WEBP": {"lossless": True}}
LOSSY = {"JPEG": {"quality": 95, "subsampling": 0}, "AVIF": {"quality": 95}}
OPPOSITE = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}
OBSCURE = re.compile(r"0x[0-9a-f]{4}|<[_a-zA-Z]|object at|Traceback|\n")  # what only a programmer understands
EXIF_SIDES = {  # orientation: where the first row and the first column are seen (Exif 2.32, tag 274)
    1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
    5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
}  # fmt: skip
READER_OPTIONS = dict.fromkeys(("recursiveFileLookup", "ignoreMissingFiles", "ignoreCorruptFiles"), "true")


def enlarge(colours, height=8, width=12):
    """Paint each colour of a grid as a block of height x width pixels."""
    return np.asarray(colours, np.uint8).repeat(height, axis=0).repeat(width, axis=1)


def write_png(width, height, depth, colour, rows):
    """Write a PNG by hand (ISO 15948), row by row, so that a huge one takes no memory."""
    squeeze = zlib.compressobj(9)
    data = b"".join(squeeze.compress(b"\0" + bytes(row)) for row in rows) + squeeze.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def write_black_png(side):
    """Write a square, black PNG of one bit a pixel."""
    return write_png(side, side, 1, 0, (bytes((side + 7) // 8) for _ in range(side)))


def decode_whole(content, pixels):
    """Decode a picture at the size of these pixels, so that nothing is resized."""
    decoded = images.decode(content, np.shape(pixels)[:2])
    assert decoded.dtype == np.uint8
    assert decoded.shape == (*np.shape(pixels)[:2], 3)
    return decoded.astype(int)


def try_to_decode(content):
    """Give the pixels of a picture at 8 x 8 and no reason, or no pixels and the reason.

    Content is given as a bytearray, as a row that Spark collects holds it.
    """
    try:
        return images.decode(bytearray(content), (8, 8)), None
    except images.RefusedPicture as refusal:
        return None, str(refusal)


def refuse(content):
    """Give the reason why a picture is refused, which must be a sentence for a person."""
    pixels, reason = try_to_decode(content)
    assert pixels is None
    assert len(reason) > 10
    assert not OBSCURE.search(reason), reason
    return reason


def read_with_spark(spark, folder):
    """Read a folder as the notebook does."""
    return images.label_pictures(spark.read.format("binaryFile").options(**READER_OPTIONS).load(str(folder)))


@pytest.mark.parametrize("picture_format", [*LOSSLESS, *LOSSY])
def test_every_format_gives_its_pixels(encode_picture, picture_format):
    pixels = enlarge(QUADRANTS)
    content = encode_picture(pixels, picture_format, **(LOSSLESS | LOSSY)[picture_format])
    tolerance = 0 if picture_format in LOSSLESS else 8
    assert abs(decode_whole(content, pixels) - pixels)[4::8, 6::12].max() <= tolerance


@pytest.mark.parametrize("picture_format", [*LOSSLESS, *LOSSY])
@pytest.mark.parametrize("size", [(8, 8), (5, 9)])
def test_a_picture_of_one_pixel_fills_the_size_asked(encode_picture, picture_format, size):
    content = encode_picture(np.uint8([[RED]]), picture_format, **(LOSSLESS | LOSSY)[picture_format])
    decoded = images.decode(content, size)
    assert decoded.shape == (*size, 3)
    assert abs(decoded.astype(int) - RED).max() <= 8


@pytest.mark.parametrize("picture_format", ["PNG", "JPEG"])
def test_greyscale_gives_three_equal_colours(encode_picture, picture_format):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    decoded = decode_whole(encode_picture(grey, picture_format, quality=100), grey)
    assert abs(decoded - grey[..., None]).max() <= 2


def test_one_bit_gives_black_and_white():
    content = write_png(8, 2, 1, 0, [[0b10110001], [0b01001110]])
    expected = 255 * np.array([[1, 0, 1, 1, 0, 0, 0, 1], [0, 1, 0, 0, 1, 1, 1, 0]])
    np.testing.assert_array_equal(decode_whole(content, expected), np.stack([expected] * 3, axis=-1))


@pytest.mark.parametrize(("transparency", "expected"), [
    (None, [RED, GREEN, BLUE]),
    (0, [WHITE, GREEN, BLUE]),
    (bytes([255, 0, 128]), [RED, WHITE, (127, 127, 255)]),
])  # fmt: skip
def test_a_palette_gives_its_colours_and_white_where_it_is_transparent(encode_picture, transparency, expected):
    picture = Image.fromarray(np.uint8([[0, 1, 2]]), "P")
    picture.putpalette(RED + GREEN + BLUE)
    options = {} if transparency is None else {"transparency": transparency}
    assert abs(decode_whole(encode_picture(picture, "PNG", **options), [expected]) - [expected]).max() <= 1


@pytest.mark.parametrize("picture_format", ["JPEG", "TIFF"])
def test_cmyk_gives_the_colours_of_its_inks(encode_picture, picture_format):
    inks = np.uint8([[(0, 255, 255, 0), (255, 0, 255, 0)], [(255, 255, 0, 0), (0, 0, 0, 0)]])
    picture = Image.fromarray(enlarge(inks), "CMYK")
    decoded = decode_whole(encode_picture(picture, picture_format), enlarge(QUADRANTS))
    assert abs(decoded[4::8, 6::12] - QUADRANTS).max() <= 8


@pytest.mark.parametrize(("picture_format", "kind"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", "<i4")])
def test_sixteen_bit_greyscale_is_scaled_and_not_clipped(encode_picture, picture_format, kind):
    deep = np.arange(0, 65_536, 64, dtype=kind).reshape(32, 32)
    expected = np.stack([(deep / 257).round()] * 3, axis=-1)
    np.testing.assert_array_equal(decode_whole(encode_picture(deep, picture_format), expected), expected)


def test_greyscale_beyond_sixteen_bits_is_refused_instead_of_turning_white(encode_picture):
    deep = np.full((8, 8), 65_536, "<i4")
    with pytest.raises(images.RefusedPicture, match="pixels of 32 bits, whose range is unknown"):
        images.decode(encode_picture(deep, "TIFF"), (8, 8))


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4)], ids=["RGB", "RGBA"])
def test_sixteen_bit_colours_are_scaled(colour, channels):
    deep = np.linspace(0, 65_535, 16 * 16 * channels).astype(">u2").reshape(16, 16, channels)
    deep[..., 3:] = 65_535
    expected = deep[..., :3] / 257
    content = write_png(16, 16, 16, colour, (row.tobytes() for row in deep))
    assert abs(decode_whole(content, expected) - expected).max() <= 1


@pytest.mark.parametrize(("mode", "pixel", "expected"), [
    ("RGBA", (255, 0, 0, 0), WHITE),
    ("RGBA", (255, 0, 0, 255), RED),
    ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
    ("LA", (100, 255), (100, 100, 100)),
    ("LA", (0, 0), WHITE),
    ("LA", (0, 128), (127, 127, 127)),
])  # fmt: skip
def test_transparency_shows_a_white_ground(encode_picture, mode, pixel, expected):
    decoded = decode_whole(encode_picture(Image.new(mode, (4, 4), pixel), "PNG"), np.empty((4, 4)))
    assert abs(decoded - expected).max() <= 1


@pytest.mark.parametrize("orientation", EXIF_SIDES)
@pytest.mark.parametrize("picture_format", ["JPEG", "PNG"])
def test_a_picture_is_turned_as_its_exif_says(encode_picture, picture_format, orientation):
    stored = np.empty_like(QUADRANTS)
    first_row, first_column = EXIF_SIDES[orientation]
    for row, side in enumerate((first_row, OPPOSITE[first_row])):
        for column, other_side in enumerate((first_column, OPPOSITE[first_column])):
            sides = {side, other_side}
            stored[row, column] = QUADRANTS[int("bottom" in sides), int("right" in sides)]
    exif = Image.Exif()
    exif[274] = orientation
    options = LOSSY["JPEG"] if picture_format == "JPEG" else {}
    decoded = images.decode(encode_picture(enlarge(stored, 16, 24), picture_format, exif=exif, **options), (16, 16))
    assert abs(decoded[4::8, 4::8].astype(int) - QUADRANTS).max() <= 12


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0not a header", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning", "ignore:Truncated File Read:UserWarning")
def test_damaged_exif_does_not_cost_the_picture(encode_picture, exif):
    pixels = enlarge(QUADRANTS)
    decoded = decode_whole(encode_picture(pixels, "JPEG", exif=exif, **LOSSY["JPEG"]), pixels)
    assert abs(decoded - pixels)[4::8, 6::12].max() <= 8


@pytest.mark.parametrize("tag", [256, 282], ids=["ImageWidth", "XResolution"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_tag_of_a_wrong_type_beside_the_orientation_does_not_cost_the_picture(encode_picture, tag, orientation):
    entry = struct.pack("<HHII", tag, 2, 4, int.from_bytes(b"abc\0", "little"))  # a text where a number is expected
    entries = sorted([struct.pack("<HHIHH", 274, 3, 1, orientation, 0), entry], key=lambda one: one[:2][::-1])
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + b"".join(entries) + bytes(4)
    pixels = enlarge(QUADRANTS, 16, 24)
    decoded = images.decode(encode_picture(pixels, "JPEG", exif=exif, **LOSSY["JPEG"]), (16, 16))
    expected = np.rot90(QUADRANTS, -1) if orientation == 6 else QUADRANTS
    assert abs(decoded[4::8, 4::8].astype(int) - expected).max() <= 12


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_as_if_decoded_whole(encode_picture, orientation):
    row, column = np.mgrid[0:1500, 0:2000] / 100
    pixels = (127 + 120 * np.stack([np.sin(row), np.cos(column), np.sin(row + column)], axis=-1)).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    upright = np.rot90(pixels, -1) if orientation == 6 else pixels  # stored a quarter turn too far to the left
    plain = np.asarray(Image.fromarray(upright).resize((160, 120), Image.Resampling.BICUBIC), int)
    decoded = images.decode(encode_picture(pixels, "JPEG", quality=95, exif=exif), (120, 160))
    assert abs(decoded - plain).mean() < 2
    assert abs(decoded - plain).max() < 16


@pytest.mark.parametrize("picture_format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_an_animation_gives_its_first_frame(encode_picture, picture_format):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    content = encode_picture(frames[0], picture_format, save_all=True, append_images=frames[1:])
    assert abs(decode_whole(content, np.empty((16, 16))) - RED).max() <= 8


def test_a_phone_jpeg_that_holds_several_pictures_gives_the_first(encode_picture):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    content = encode_picture(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert abs(decode_whole(content, np.empty((16, 16))) - RED).max() <= 8


@pytest.mark.parametrize(("content", "reason"), [
    (b"", r"empty file: 0 bytes"),
    (b"a banana, in words", r"not a picture: none of JPEG, PNG"),
    (b"<!DOCTYPE html><html><body>404</body></html>", r"not a picture"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", r"HEIC.* send it as JPEG"),
    (b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n", r"not a picture"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", r"not a picture"),
    (b"\xff\xd8\xff", r"not a picture|damaged or truncated"),
    (bytes(1000), r"not a picture"),
], ids=["empty", "text", "HTML", "HEIC", "PDF", "EPS", "three bytes of JPEG", "zeros"])  # fmt: skip
def test_what_is_not_a_picture_is_refused_with_a_reason(content, reason):
    assert re.match(reason, refuse(content))


def test_a_postscript_picture_starts_no_other_program(monkeypatch, tmp_path):
    for name in ("gs", "gswin32c", "gswin64c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    refuse(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("picture_format", [*LOSSLESS, *LOSSY])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_picture_is_refused_with_a_reason(encode_picture, picture_format, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encode_picture(noise, picture_format)
    assert re.match(r"damaged or truncated|not a picture", refuse(content[: int(len(content) * share)]))


@pytest.mark.parametrize("picture_format", ["JPEG", "PNG"])
def test_the_commonest_formats_are_recognised_even_when_truncated(encode_picture, picture_format):
    content = encode_picture(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), picture_format)
    assert refuse(content[:-100]).startswith("damaged or truncated picture: ")


def test_floating_point_pixels_are_refused_with_a_remedy(encode_picture):
    assert "save it with 8 bits" in refuse(encode_picture(np.zeros((4, 4), np.float32), "TIFF"))


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_decompression_bomb_is_refused_with_its_size(side):
    reason = refuse(write_black_png(side))
    assert reason.startswith(f"decompression bomb: {side:,} x {side:,} pixels")


def test_a_photo_of_200_megapixels_is_read_since_a_jpeg_is_decoded_small(encode_picture):
    photo = np.full((12_240, 16_320), 90, np.uint8)  # what some phones make
    np.testing.assert_array_equal(images.decode(encode_picture(photo, "JPEG"), (8, 8)), 90)


def test_a_jpeg_is_judged_by_the_pixels_that_are_decoded_of_it(encode_picture, monkeypatch):
    monkeypatch.setattr("fruits.images.MAX_PIXELS", 64**2 - 1)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert images.decode(encode_picture(noise, "JPEG"), (8, 8)).shape == (8, 8, 3)
    with pytest.raises(images.RefusedPicture, match="^decompression bomb: 64 x 64"):
        images.decode(encode_picture(noise, "JPEG"), (64, 64))
    assert refuse(encode_picture(noise, "JPEG", progressive=True)).startswith("decompression bomb: 64 x 64")


def test_a_picture_for_which_no_memory_is_left_is_not_called_damaged(encode_picture, monkeypatch):
    def run_out(picture):
        raise MemoryError

    monkeypatch.setattr("fruits.images._to_rgb", run_out)
    content = encode_picture(np.zeros((4, 4), np.uint8), "PNG")
    with pytest.raises(MemoryError):
        images.decode(content, (4, 4))
    outcomes = features.featurize_batch(pd.Series([content, b"1"]), None, (4, 4))
    assert outcomes["reason"].isna().tolist() == [True, False]  # no outcome at all: the next run tries again
    assert outcomes["features"].isna().all()


def test_a_decompression_bomb_takes_no_memory(tmp_path):
    content = write_black_png(20_000)
    assert len(content) < 100_000
    (tmp_path / "bomb.png").write_bytes(content)
    program = """if True:
        import pathlib, resource, sys
        from fruits import images
        content = pathlib.Path(sys.argv[1]).read_bytes()
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = peak()
        try:
            images.decode(content, (8, 8))
        except images.RefusedPicture:
            print(peak() - before)
    """
    answer = subprocess.run([sys.executable, "-c", program, tmp_path / "bomb.png"], capture_output=True, text=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(answer.stdout) * unit < 32 * 2**20, answer.stderr


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell a process its own peak")
@pytest.mark.parametrize(("colour", "samples", "depth"), [(0, 1, 16), (6, 4, 8)], ids=["grey of 16 bits", "RGBA"])
def test_a_picture_just_below_the_limit_takes_memory_for_a_few_copies_of_its_pixels(tmp_path, colour, samples, depth):
    side = 9_400
    row = bytes(side * samples * depth // 8)
    (tmp_path / "large.png").write_bytes(write_png(side, side, depth, colour, (row for _ in range(side))))
    program = r"""if True:
        import pathlib, re, sys
        from fruits import images
        images.decode(pathlib.Path(sys.argv[1]).read_bytes(), (8, 8))
        # getrusage would give the peak of the process that started this one, where that is larger.
        print(re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
    """
    command = [sys.executable, "-c", program, tmp_path / "large.png"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert int(answer.stdout) * 1024 < 3.5 * 4 * side**2 + 300e6, answer.stderr


@pytest.mark.parametrize("picture_format", [*LOSSLESS, *LOSSY])
@pytest.mark.filterwarnings("ignore")
def test_a_header_with_wrong_bytes_gives_pixels_or_a_reason(encode_picture, picture_format):
    random = np.random.default_rng(1)
    exif = Image.Exif()
    exif[274], exif[271] = 6, "a phone"
    options = {"exif": exif} if picture_format in ("JPEG", "PNG", "WEBP", "AVIF") else {}
    whole = encode_picture(enlarge(QUADRANTS), picture_format, **options)
    for _ in range(80):
        content = bytearray(whole)
        for position in random.integers(2, min(len(whole), 300), random.integers(1, 6)):
            content[position] = random.integers(0, 256)
        pixels, reason = try_to_decode(content)
        assert pixels.shape == (8, 8, 3) if reason is None else not OBSCURE.search(reason)


@pytest.mark.parametrize(("path", "length", "reason"), [
    ("/Lemon/0_100.jpg", 1, None),
    ("/Lemon/a_b.c", 1, None),
    ("/_label=1/0.jpg", 1, None),
    ("/Lemon/_a=b.jpg", 1, None),
    ("/_metadata/0.jpg", 1, None),
    ("/Lemon/0.jpg", images.MAX_BYTES, None),
    ("/Lemon/.0.jpg", 1, r"hidden .*'.0.jpg'.*rename"),
    ("/Lemon/_0.jpg", 1, r"hidden .*'_0.jpg'.*rename"),
    ("/_private/0.jpg", 1, r"hidden .*'_private'.*rename"),
    ("/.git/a/0.jpg", 1, r"hidden .*'.git'.*rename"),
    ("/Lemon/0.jpg._COPYING_", 1, r"hidden .*'0.jpg._COPYING_'"),
    ("/Lemon/_metadata.jpg", 1, r"hidden .*'_metadata.jpg'.*rename"),
    ("/Lemon/0.jpg", 0, r"empty file: 0 bytes"),
    ("/Lemon/0.jpg", None, r"a link to nothing"),
    ("/Lemon/0.jpg", images.MAX_BYTES + 2**20, r"65\.0 MiB: more than the 64\.0 MiB"),
])  # fmt: skip
def test_a_file_that_would_not_be_opened_is_told_with_the_reason(path, length, reason):
    found = images.explain_skip(path, length)
    assert found is None if reason is None else re.match(reason, found)


def test_a_file_may_weigh_what_each_cores_share_of_javas_memory_holds_copies_of(spark, monkeypatch):
    heap, cores = spark._jvm.java.lang.Runtime.getRuntime().maxMemory(), spark.sparkContext.defaultParallelism
    monkeypatch.setattr(images, "MAX_BYTES", 2**60)
    assert images.find_max_bytes(spark) == heap // (images.COPIES * cores)
    conf = {"spark.executor.memory": "3072m", "spark.executor.cores": "4"}
    context = SimpleNamespace(master="yarn", getConf=lambda: conf)
    assert images.find_max_bytes(SimpleNamespace(sparkContext=context, _jvm=spark._jvm)) == 24 * 2**20
    monkeypatch.setattr(images, "MAX_BYTES", 1000)
    assert images.find_max_bytes(spark) == 1000


def test_spark_reads_exactly_the_names_that_are_not_explained(spark, tmp_path):
    names = ["a.jpg", ".a.jpg", "_a.jpg", "_a=b.jpg", "_metadata.jpg", "_common_metadata", "a.jpg._COPYING_", "a b"]
    folders = ["Lemon", "_private", "_label=1", "_metadata", ".git"]
    for folder in folders:
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_bytes(b"1")
    read = {row.path for row in read_with_spark(spark, tmp_path).select("path").collect()}
    listing = images.survey(spark, str(tmp_path), str(tmp_path.with_name("output"))).collect()
    every = {f"file:{tmp_path}/{folder}/{name}" for folder in folders for name in names}
    assert {row.path for row in listing} == every
    assert {row.path for row in listing if row.reason} == every - read


def test_a_folder_without_the_right_to_list_it_is_an_error_that_says_so(spark, tmp_path, monkeypatch):
    def refuse(_folder):
        yield storage.File(f"file:{tmp_path}/0.jpg", 1, 0)
        raise PermissionError(13, "Permission denied", f"{tmp_path}/lost+found")

    monkeypatch.setattr(storage, "list_files", refuse)
    with pytest.raises(ValueError, match=r"cannot be listed .*lost\+found.*: give rights on it"):
        images.survey(spark, str(tmp_path), str(tmp_path.with_name("output")))


def test_a_survey_names_every_file_and_why_spark_skips_some(spark, tmp_path):
    for path, length in {"a.jpg": 1, "b/c.png": 2, "b/.d": 3, "b/e f.jpg": 0, "_g/h/i.jpg": 4, "j/k.txt": 5}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(bytes(length))
    (tmp_path / "no file here").mkdir()
    listing = images.survey(spark, str(tmp_path), str(tmp_path.with_name("output")))
    root = f"file:{tmp_path}"
    rows = {row.path: row for row in listing.collect()}
    assert {path: row.length for path, row in rows.items() if not row.reason} == {
        f"{root}/a.jpg": 1, f"{root}/b/c.png": 2, f"{root}/j/k.txt": 5,
    }  # fmt: skip
    assert {row.label for row in rows.values()} == {tmp_path.name, "b", "h", "j"}
    skipped = {path: row.reason.split(":")[0] for path, row in rows.items() if row.reason}
    assert skipped == {f"{root}/b/.d": "hidden file", f"{root}/b/e f.jpg": "empty file",
                       f"{root}/_g/h/i.jpg": "hidden file"}  # fmt: skip


def test_a_hidden_folder_above_the_pictures_hides_nothing(spark, tmp_path):
    folder = tmp_path / ".cache" / "_photos"
    folder.mkdir(parents=True)
    (folder / "0.jpg").write_bytes(b"1")
    (row,) = images.survey(spark, str(folder), str(tmp_path / "output")).collect()
    assert (row.path, row.reason) == (f"file:{folder}/0.jpg", None)


def test_a_folder_without_files_is_an_empty_listing(spark, tmp_path):
    (tmp_path / "Lemon").mkdir()
    listing = images.survey(spark, str(tmp_path), str(tmp_path.with_name("output")))
    assert listing.columns == ["path", "length", "modificationTime", "reason", "file", "label"]
    assert listing.collect() == []


def test_a_file_without_the_right_to_read_it_is_told_before_it_is_opened(spark, tmp_path, monkeypatch):
    for name in ("mine.jpg", "theirs.jpg"):
        (tmp_path / name).write_bytes(b"1")
    # A test may run as root, whom no file refuses.
    monkeypatch.setattr(images.storage, "is_readable", lambda path: path != f"file:{tmp_path}/theirs.jpg")
    listing = images.survey(spark, str(tmp_path), str(tmp_path.with_name("output")))
    reasons = {row.path.rpartition("/")[2]: row.reason for row in listing.collect()}
    assert reasons == {"mine.jpg": None, "theirs.jpg": "not opened: no right to read it; give that right"}


def test_a_listing_longer_than_what_is_held_at_once_is_whole(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "LISTING_ROWS", 3)
    for number in range(8):
        (tmp_path / f"{number}.jpg").write_bytes(bytes(number + 1))
    listing = images.survey(spark, str(tmp_path), str(tmp_path.with_name("output")))
    assert sorted(row.length for row in listing.collect()) == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("name", ["a+b", "100%", "a%20b", "é 果 🍎", "12:30 [1]", "q?*", "#;,=&'\"", "{brace}"])
def test_one_picture_is_read_by_its_name_whatever_it_is_and_no_other_is_opened(spark, tmp_path, name):
    for folder in ("A", "B", name):
        (tmp_path / folder).mkdir()
        for file in ("0.jpg", f"{name}.jpg"):
            (tmp_path / folder / file).write_bytes(f"{folder}/{file}".encode())
    wanted = f"file:{tmp_path}/{name}/{name}.jpg"
    chosen = read_with_spark(spark, tmp_path).where(images.is_one_of(F.col("path"), [wanted, "file:/nowhere"]))
    (row,) = chosen.collect()
    assert (row.path, row.content.decode()) == (wanted, f"{name}/{name}.jpg")
    assert chosen.rdd.getNumPartitions() == 1


@pytest.fixture
def three_labels(tmp_path, encode_picture):
    """Make a folder of three labels with four pictures each, every picture of its own grey."""
    for number in range(12):
        path = tmp_path / "pictures" / "ABC"[number // 4] / f"{number % 4}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_picture(np.full((4, 4, 3), 20 * number, np.uint8), "PNG"))
    return tmp_path / "pictures"


def test_examples_are_one_a_label_and_the_same_for_a_seed(spark, three_labels):
    pictures = read_with_spark(spark, three_labels)
    listing = images.survey(spark, str(three_labels), str(three_labels.with_name("output")))
    examples = images.read_examples(pictures, listing, (8, 6), seed=1)
    assert [example.label for example in examples] == ["A", "B", "C"]
    for example in examples:
        _, label, name = example.path.rsplit("/", 2)
        assert label == example.label
        expected = 20 * ("ABC".index(label) * 4 + int(name[0]))
        np.testing.assert_array_equal(example.pixels, np.full((8, 6, 3), expected))
    again = images.read_examples(pictures, listing.repartition(5), (8, 6), seed=1)
    assert [example.path for example in again] == [example.path for example in examples]
    draws = {tuple(e.path for e in images.read_examples(pictures, listing, (8, 6), seed=seed)) for seed in range(5)}
    assert len(draws) > 1


def test_examples_are_no_more_than_asked_and_leave_out_what_cannot_be_decoded(spark, three_labels):
    listing = images.survey(spark, str(three_labels), str(three_labels.with_name("output")))
    assert len(images.read_examples(read_with_spark(spark, three_labels), listing, (4, 4), count=2)) == 2
    for path in (three_labels / "B").iterdir():
        path.write_bytes(b"no picture")
    examples = images.read_examples(read_with_spark(spark, three_labels), listing, (4, 4))
    assert [example.label for example in examples] == ["A", "C"]


def test_pixels_are_read_of_what_is_there_and_can_be_decoded(spark, three_labels):
    good, deleted, bad = sorted(three_labels.rglob("*.*"))[:3]
    deleted.unlink()
    bad.write_bytes(b"no picture")
    pictures = read_with_spark(spark, three_labels)
    pixels = images.read_pixels(pictures, [f"file:{path}" for path in (good, deleted, bad)], (6, 4))
    assert list(pixels) == [f"file:{good}"]
    np.testing.assert_array_equal(pixels[f"file:{good}"], images.decode(good.read_bytes(), (6, 4)))
