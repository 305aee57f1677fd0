"""Pictures: listed without Spark, decoded from bytes to pixels, or refused with a reason a person understands."""

from contextlib import suppress
from io import BytesIO
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from PIL import ExifTags, Image
from pyspark import SparkContext
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from fruits import storage

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # EPS and the like would start other programs
MAX_PIXELS = 89_478_485  # that are decoded of one picture, where Pillow begins to speak of a bomb: up to 1.7 GiB
MAX_BYTES = 64 * 2**20  # of one file, which is held whole in memory
COPIES = 32  # of a file that Java has room for, for each core: with 20 its memory was full, of 1 GiB for 2 cores
LISTING = pa.schema([
    ("path", pa.string()), ("length", pa.int64()), ("modificationTime", pa.timestamp("ms", "UTC")),
    ("reason", pa.string()),
])  # fmt: skip
LISTING_ROWS = 50_000  # of the listing held in memory at once
# How HEIC files begin, after four bytes, by ISO 23008-12; an iPhone writes such by default.
HEIC_STARTS = tuple(b"ftyp" + brand for brand in b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split())
TURNS = {  # by EXIF's orientation; 1 is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
PACKING = "_packing"  # lies in a folder of packed pictures until all of them are

Image.MAX_IMAGE_PIXELS = None  # judged below: Pillow would refuse by its header a JPEG that is decoded at 1/8
Image.init()  # Pillow otherwise registers some formats only when it first meets them


class RefusedPicture(ValueError):  # noqa: N818 -- not an error of the run: the run goes on
    """A picture that cannot be featurized; its message is the reason, for a person to read."""


class Example(NamedTuple):
    """One picture to look at: its path, its label and its pixels, uint8 (height, width, 3)."""

    path: str
    label: str
    pixels: np.ndarray


def label_pictures(files):
    """Label each picture by the folder that it lies in, and leave out files too heavy for the memory of a worker.

    files: DataFrame that binaryFile made, or that pack made, which has labels. Returns it with path and label.
    """
    if "label" in files.columns:
        return files
    pictures = files.where(F.col("length") <= find_max_bytes(files.sparkSession))
    pictures = pictures.withColumn("path", name_source())  # in plain words: Spark's own address has %20 for a space
    return pictures.withColumn("label", name_folder())


def find_max_bytes(spark):
    """Find how many bytes one file may weigh: what each core's share of Java's memory holds COPIES of, up to MAX_BYTES.

    On its way to a worker a file lies there many times over, and where that memory is full the run ends.
    """
    conf, to_bytes = spark.sparkContext.getConf(), spark._jvm.org.apache.spark.network.util.JavaUtils.byteStringAsBytes
    if spark.sparkContext.master.partition("[")[0] == "local":
        memory, cores = spark._jvm.java.lang.Runtime.getRuntime().maxMemory(), spark.sparkContext.defaultParallelism
    else:
        memory, cores = to_bytes(conf.get("spark.executor.memory", "1g")), int(conf.get("spark.executor.cores", "1"))
    return min(MAX_BYTES, memory // (COPIES * cores))


def name_folder():
    """Name the folder that each picture lies in, as a column: the part of its path before the last."""
    return F.element_at(F.split("path", "/"), -2)


def survey(spark, folder, output):
    """List the files below a folder, or the pictures of a packed one, without opening any.

    A folder is listed without Spark, whose own listing leaves files out in silence, into the table output/listing, so
    that its names need not fit in memory.
    Returns a DataFrame (path, label, length in bytes, modificationTime, reason, file). reason: why the file will not be
    opened, or null. file: what Spark opens to read the picture. Raises ValueError where a folder may not be listed, and
    where a packed one is not whole.
    """
    if is_packed(folder):
        if storage.is_file(f"{folder}/{PACKING}"):
            raise ValueError(
                f"images_path {folder!r} does not hold all its pictures yet: a run is packing them, or was killed: let "
                f"it end, or start it again"
            )
        listing = spark.read.parquet(folder).withColumn("file", name_source())
        if missing := {"path", "label", "length", "modificationTime", "content"} - set(listing.columns):
            names = ", ".join(sorted(missing))
            raise ValueError(f"images_path {folder!r} is a parquet table without {names}: pack it with packed_path")
        if twice := listing.groupBy("path").count().where("count > 1").head(1):
            raise ValueError(
                f"images_path {folder!r} holds {twice[0].path} more than once: a run that packed it was killed: start "
                f"it again"
            )
        return listing.drop("content").withColumn("reason", F.lit(None).cast("string"))

    max_bytes = find_max_bytes(spark)

    def list_rows():
        for path, length, modified in storage.list_files(folder):
            reason = explain_skip(storage.cut_folder(path, folder), length, max_bytes)
            if reason is None and not storage.is_readable(path):
                reason = "not opened: no right to read it; give that right"
            yield path.encode(errors="surrogateescape").decode(errors="backslashreplace"), length, modified, reason

    rows = list_rows()
    table = f"{output}/listing/listing.parquet"
    try:
        storage.write_table(table, iter(lambda: list(islice(rows, LISTING_ROWS)), []), LISTING)
    except PermissionError as error:
        raise ValueError(f"a folder of images_path {folder!r} cannot be listed ({error}): give rights on it") from None
    listing = spark.read.schema(from_arrow_schema(LISTING)).parquet(table).withColumn("file", F.col("path"))
    return listing.withColumn("label", name_folder())


def has_picture(folder):
    """Say whether a folder is there and holds a file that would be opened; on S3, where no disk goes, any file."""
    if "://" in folder:  # where listing a folder takes a request for each thousand names
        return not storage.is_empty(folder)
    with suppress(FileNotFoundError):
        files = storage.list_files(folder)
        return any(explain_skip(storage.cut_folder(file.path, folder), file.length) is None for file in files)
    return False


def is_packed(folder):
    """Say whether a folder is a table of packed pictures: one that Spark has written, which it marks so."""
    return storage.is_file(f"{folder}/_SUCCESS")


def name_source():
    """Name the file that each row of a table was read from, as a column: in plain words, as binaryFile's path has it.

    Spark evaluates a filter on it before it reads, and opens no other file. What Spark keeps is an address, where
    spaces and the like are percent signs and digits.
    """
    return F.url_decode(F.regexp_replace("_metadata.file_path", r"\+", "%2B"))


def is_one_of(column, values):
    """Compare a column with many strings: Column.isin, but with one call to Java instead of one for each string."""
    java = SparkContext._active_spark_context._jvm.java.util
    strings = java.regex.Pattern.compile("\0").splitAsStream("\0".join(values))  # no file's name holds a zero
    return Column(column._jc.isInCollection(strings.collect(java.stream.Collectors.toList())))


def explain_skip(path, length, max_bytes=MAX_BYTES):
    """Say why Spark, or we, would not open a file; None where it is opened.

    path: below the folder read, with surrogates for bytes that are not UTF-8. length: bytes, None for a link to
    nothing. The rule for names is Spark's own (HadoopFSUtils.shouldFilterOutPathName), the one for empty files that of
    its file scan.
    """
    if not storage.is_utf8(path):
        return "not opened: the name of the file or of its folder is not UTF-8, which Spark wants; rename it"
    *folders, file = path.split("/")
    for name in [*(name for name in folders if not name.startswith(("_metadata", "_common_metadata"))), file]:
        if name.startswith(".") or (name.startswith("_") and "=" not in name) or name.endswith("._COPYING_"):
            return f"hidden file: Spark skips names such as {name!r}, which begin with . or _; rename it"
    if length is None:
        return "a link to nothing: what it points to is gone"
    if length == 0:
        return "empty file: 0 bytes"
    if length > max_bytes:
        return f"{length / 2**20:,.1f} MiB: more than the {max_bytes / 2**20:,.1f} MiB that one picture may weigh here"
    return None


def read_examples(pictures, listing, size, count=12, seed=0):
    """Read one picture of each of some labels, drawn at random, on the driver.

    pictures: DataFrame with path and content. listing: of the same folder. size: (height, width) in pixels.
    Returns up to count Examples; pictures that cannot be decoded are left out.
    """
    draw = F.xxhash64("path", F.lit(seed))  # unlike rand(), the same however Spark cuts the table
    one_a_label = listing.where("reason IS NULL").groupBy("label").agg(F.min_by("path", draw).alias("path"))
    rows = one_a_label.orderBy(draw).limit(count).collect()
    pixels = read_pixels(pictures, [row.path for row in rows], size)
    examples = [Example(row.path, row.label, pixels[row.path]) for row in rows if row.path in pixels]
    return sorted(examples, key=lambda example: example.label)


def read_pixels(pictures, paths, size):
    """Read some pictures on the driver: {path: uint8 (height, width, 3)}, without those that cannot be decoded.

    pictures: DataFrame with path and content, of files or packed. size: (height, width) in pixels.
    """
    pixels = {}
    rows = pictures.where(is_one_of(F.col("path"), paths)).select("path", "content")
    for row in rows.toLocalIterator(prefetchPartitions=True):  # in memory at once: two tasks' pictures
        with suppress(RefusedPicture, MemoryError):
            pixels[row.path] = decode(row.content, size)
    return pixels


def decode(content, size):
    """Turn the bytes of one picture into raw pixels.

    content: one file, bytes, or a bytearray as a collected row holds it. size: (height, width) in pixels; the picture
    is stretched to it.
    Returns uint8 (height, width, 3), RGB: turned as its EXIF says, first frame only, transparency on white.
    Raises RefusedPicture with the reason, and MemoryError where the picture is too large for what is left of memory.
    """
    height, width = size
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as picture:
            original = picture.size
            picture.draft("RGB", (width, height))  # a JPEG is decoded at 1/2, 1/4 or 1/8 where that is enough
            # A progressive one takes the memory of all its pixels, however small it is decoded.
            _check_pixels(original if "progressive" in picture.info else picture.size)
            return np.asarray(_to_rgb(_turn(picture)).resize((width, height), Image.Resampling.BICUBIC))
    except (RefusedPicture, MemoryError):
        raise
    except Exception as error:  # a hostile file can raise nearly anything from the depths of a decoder
        raise RefusedPicture(_explain_failure(content, error)) from error


def _turn(picture):
    """Turn a picture as its EXIF says. ImageOps.exif_transpose also writes the EXIF anew, and fails at odd values."""
    turn = TURNS.get(picture.getexif().get(ExifTags.Base.Orientation))
    return picture if turn is None else picture.transpose(turn)


def _check_pixels(size):
    """Refuse a picture that would fill the memory, from its header alone. size: (width, height) that is decoded."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise RefusedPicture(
            f"decompression bomb: {width:,} x {height:,} pixels, more than the {MAX_PIXELS / 1e6:.0f} million allowed"
        )


def _to_rgb(picture):
    """Turn any mode of Pillow into RGB as a person sees it."""
    if picture.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip instead of scaling
        if picture.mode == "I" and not all(0 <= end < 2**16 for end in picture.getextrema()):
            raise RefusedPicture("pixels of 32 bits, whose range is unknown: save it with 8 bits a colour")
        return picture.convert("I").point([value / 257 for value in range(2**16)], "L").convert("RGB")
    if picture.mode == "F":
        raise RefusedPicture("floating-point pixels, whose range is unknown: save it with 8 bits a colour")
    if picture.has_transparency_data:
        rgba = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        on_white = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return on_white.convert("RGB")  # convert() alone would show the hidden colours
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _explain_failure(content, error):
    """Say in a person's words why Pillow could not decode a file."""
    if not content:
        return "empty file: 0 bytes"
    if isinstance(error, Image.UnidentifiedImageError):
        if content.startswith(HEIC_STARTS, 4):
            return "HEIC picture, which is not read here: send it as JPEG"
        return f"not a picture: none of {', '.join(FORMATS)}"
    return f"damaged or truncated picture: {error or type(error).__name__}"
