"""What changed in a folder since its pictures were last featurized: the new in slices, the gone and replaced taken out.

The tables features and rejected are their own bookkeeping. A picture is known where one of them holds its path with its
date and its length, so that whatever was written before a crash counts, wherever the crash came; what it left twice is
taken out by the next run.
"""

import json
import math
import re
import time
from contextlib import contextmanager
from typing import NamedTuple

import pandas as pd
from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from fruits import features, images, storage

VERSION = ("modificationTime", "length")  # one of a picture; another picture under its name has another
SCHEMAS = {
    "features": "path string, label string, length bigint, modificationTime timestamp, features array<float>",
    "rejected": "path string, length bigint, modificationTime timestamp, reason string",
    "packed": "path string, label string, length bigint, modificationTime timestamp, content binary",
}
VERSIONS = "path string, version struct<modificationTime timestamp, length bigint>, table string, file string"
COMPARISON = "_changes"  # in a folder of packed pictures, and so the mark of one
FINGERPRINT = "_fingerprint.json"  # in features/; Spark takes names that begin with _ for no data
STATES = ("new", "changed", "unchanged", "deleted", "skipped")
IS_THERE = "state IN ('new', 'changed', 'unchanged')"
WAS_OPENED = "version.modificationTime IS NOT NULL"  # other rejected files are looked at anew by each run
NOT_READABLE = (
    "not readable: deleted during the run, of a name that Spark cannot open, on a disk that failed, or too large for "
    "the memory that was left"
)
FILE_BYTES = 128 * 2**20  # of a parquet file after compaction; Spark reads as much in a task
SMALL_FILES = 32  # that a table may hold, and two more for each core, before they are merged
# How pack and tidy write parquet. A row group is what Spark reads at once: of pictures, it is what one looked up costs,
# and the least that a task can take. They are all different, so no dictionary; and may weigh MBs, so the first is
# weighed too.
WRITING = {
    "features": {"parquet.block.size": 8 * 2**20},
    "rejected": {},
    "packed": {
        "parquet.block.size": 2**20,
        "parquet.enable.dictionary#content": False,
        "parquet.page.size.row.check.min": 1,
    },
}
SLICE_NAMES = 2**17  # that Spark is given in one filter, whose text it writes many times: 20 s for as many
SECONDS_BETWEEN_LOOKS = 5  # at whether the stop file is there
NO_ANSWER = (OSError, ValueError, PySparkException, Py4JError)  # of a disk or a network: ours, Arrow's, Spark's


class Changes(NamedTuple):
    """What changed in a folder since the last run.

    pictures: DataFrame (path, label, file, modificationTime, length, reason, versions, rows, named, state): a row for
    each file found and each known. versions, rows: that the tables hold. named: how often rejected names it as one that
    was not opened. state: one of STATES, or null for a file that was named so and is gone.
    counts: files by state. folder: that pictures lies in.
    unsettled: files that are as they were, but that the tables hold twice, or name wrongly: a run was killed, or one
    that Spark skips has come or gone.
    retries: how many of the new ones an earlier run could not open. retries_hash: of their names and versions.
    """

    folder: str
    pictures: DataFrame
    counts: dict
    unsettled: int = 0
    retries: int = 0
    retries_hash: str | None = None

    @property
    def found(self):
        """Files that are there."""
        return sum(self.counts.values()) - self.counts["deleted"]

    @property
    def pictures_there(self):
        """Files that are there and can be opened: a disk that is away may leave a hidden one where it is mounted."""
        return self.found - self.counts["skipped"]

    @property
    def to_do(self):
        """Pictures to featurize."""
        return self.counts["new"] + self.counts["changed"]

    @property
    def is_empty(self):
        """Whether nothing is new, changed or gone, and nothing is left to tidy."""
        return self.to_do == self.counts["deleted"] == self.unsettled == 0

    def is_in_vain(self, before):
        """Whether all that is to do could not be opened at the look before, and is as it was. before: its Changes."""
        is_all = self.to_do == self.retries and self.counts["deleted"] == self.unsettled == 0
        return is_all and self.retries_hash == before.retries_hash

    @property
    def are_all_gone(self):
        """Whether pictures were known, and none is there."""
        return self.pictures_there == 0 < self.counts["deleted"]

    @property
    def are_others(self):
        """Whether there are new pictures, none of those known, and no folder is common to both. Asks Spark."""
        counts = self.counts
        are_replaced = counts["new"] > 0 < counts["deleted"] and counts["unchanged"] == counts["changed"] == 0
        return are_replaced and not _share_folder(self.pictures)

    def __str__(self):
        """Tell the counts in a line."""
        return ", ".join(f"{self.counts[state]:,} {state}" for state in STATES)


def claim_features(output, fingerprint, recompute=False):
    """Keep what made the features beside them, and refuse to mix them with those of another network.

    fingerprint: backbones.compute_fingerprint's. recompute: delete the features of another network, to begin anew;
    those of this one stay, so that such a run can be resumed too.
    Raises ValueError, which names both, where the features in output were made otherwise.
    """
    folder, path, theirs = f"{output}/features", f"{output}/features/{FINGERPRINT}", _read_fingerprint(output)
    differences = tell_differences(theirs, fingerprint)
    if differences:
        are_there = bool(_list_files(folder))
        if are_there and not recompute:
            raise ValueError(
                f"the features in {folder} were made by another network: {differences}. Set the backbone and weights "
                f"that made them, set output_path elsewhere, or set recompute to True to delete them and begin anew"
            )
        if theirs or are_there:  # else nothing there is a run's: a folder of that name is somebody's own
            storage.delete_folder(f"{output}/rejected")  # what one network refuses, another may not
        if are_there:
            storage.delete_folder(folder)
        storage.write_bytes(path, json.dumps(fingerprint, indent=1).encode() + b"\n")


def _read_fingerprint(output):
    """Read what claim_features has kept beside features: {} where there is none. Raises ValueError: damaged."""
    path = f"{output}/features/{FINGERPRINT}"
    complaint = (
        f"is damaged, so that nothing tells which network made the features beside it: delete {output}/features and "
        f"{output}/rejected to begin anew, or set output_path elsewhere"
    )
    return storage.read_json(path, {"backbone": str}, complaint) if storage.is_file(path) else {}


def name_network(output):
    """Name the network that made the features in a folder; None where there are none, or nothing tells."""
    return _read_fingerprint(output).get("backbone") if _list_files(f"{output}/features") else None


def tell_differences(theirs, ours):
    """Tell in words where two fingerprints differ: "" where they do not.

    theirs: of features or of a PCA made earlier, {} where unknown. ours: of this run.
    """
    differences = [name for name in ours if theirs.get(name) != ours[name]]
    return "; ".join(f"their {name} is {theirs.get(name, 'unknown')}, this run's {ours[name]}" for name in differences)


def list_tables(output):
    """List the tables of a run's folder that know pictures: {name in SCHEMAS: folder}."""
    return {name: f"{output}/{name}" for name in ("features", "rejected")}


def find_changes(spark, listing, tables, folder):
    """Compare the files found with the tables of earlier runs.

    listing: DataFrame that images.survey made. tables: {name in SCHEMAS: folder}, there or not. folder: to write the
    comparison in, since Spark takes what it has cached of a table for outdated as soon as something is added to it.
    Returns Changes. Raises ValueError where a file of the tables is damaged.
    """
    for table in tables.values():  # what a killed run had not committed, Hadoop would commit with what is written next
        storage.delete_folder(f"{table}/_temporary")
    version = F.when(F.expr(WAS_OPENED), F.col("version"))
    known = _read_versions(spark, tables).groupBy("path").agg(
        F.collect_set(version).alias("versions"),
        F.count(version).alias("rows"),
        F.count_if(version.isNull()).alias("named"),
    )
    state = (
        F.when(F.col("modificationTime").isNull(), F.when(F.col("rows") > 0, "deleted"))
        .when(F.col("reason").isNotNull(), "skipped")
        .when(F.col("rows") == 0, "new")
        .when(F.array_contains("versions", F.struct(*VERSION)), "unchanged")
        .otherwise("changed")
    )
    compared = listing.join(known, "path", "full_outer").fillna(0, ["rows", "named"]).withColumn("state", state)
    with _explain_damage():
        pictures = _write_and_read(compared, f"{folder}/pictures")
    is_retry = F.expr("state = 'new' AND named > 0")
    found = pictures.groupBy("state").agg(
        F.count("*").alias("files"),
        F.count_if(_is_unsettled("rejected" in tables)).alias("unsettled"),
        F.count_if(is_retry).alias("retries"),
        F.bit_xor(F.when(is_retry, F.xxhash64("path", *VERSION))).cast("string").alias("hash"),
    )
    found = found.toPandas().set_index("state")
    counts = {state: int(found["files"].get(state, 0)) for state in STATES}
    sums = found[["unsettled", "retries"]].sum().astype(int)
    return Changes(folder, pictures, counts, int(sums["unsettled"]), int(sums["retries"]), found["hash"].get("new"))


@contextmanager
def _explain_damage():
    """Turn Java's error about a file that is cut off or something else into one that says what to do."""
    try:
        yield
    except Py4JJavaError as error:
        if damaged := re.search(r"RuntimeException: (?:file:)?(.+) is not a Parquet file", str(error)):
            raise ValueError(f"{damaged[1]} is damaged: delete it; its pictures are then new, and done again") from None
        raise


def _is_unsettled(are_skipped_named):
    """Say, as a column, whether a file is as it was, but the tables hold it otherwise than once they are tidied.

    Tidied, they hold a picture in one row and name no file for it; a skipped file in no row of a picture, and named
    once, where there is a table for that; a file that is gone, not at all. are_skipped_named: whether there is one.
    """
    state, rows, named = F.col("state"), F.col("rows"), F.col("named")
    is_wrong = F.when(state == "unchanged", (rows != 1) | (named != 0))
    is_wrong = is_wrong.when(state == "skipped", (rows != 0) | (named != int(are_skipped_named)))
    return is_wrong.otherwise(state.isNull())  # null: named before, and gone


def _share_folder(pictures):
    """Say whether a picture that is new lies in a folder of one that is gone. pictures: with path and state."""
    folders = pictures.groupBy(F.regexp_replace("path", "/[^/]*$", ""))
    states = folders.agg(F.collect_set("state").alias("states"))
    return not states.where("array_contains(states, 'new') AND array_contains(states, 'deleted')").isEmpty()


def refuse_loss(changes, folder, name="output_path"):
    """Raise ValueError where all pictures known in a folder would be taken out of it: none is there, or only others.

    changes: Changes. folder: of the tables that know them. name: of the parameter that gives it.
    """
    known = changes.counts["deleted"]
    if changes.are_all_gone:
        raise ValueError(
            f"images_path holds no picture, but {known:,} of its pictures are known in {folder!r}: mount its disk, put "
            f"pictures there, or delete {folder!r} to forget them"
        )
    if changes.are_others:
        raise ValueError(
            f"images_path holds none of the {known:,} pictures known in {folder!r}, and none of their folders: has it "
            f"moved, or is it another one? Set {name} elsewhere, or delete {folder!r} to begin anew"
        )


def _write_and_read(rows, folder):
    """Write a DataFrame as a table in place of the one in the folder, and read it back."""
    rows.write.mode("overwrite").parquet(folder)
    return rows.sparkSession.read.schema(rows.schema).parquet(folder)


def _read_versions(spark, tables):
    """Read what the tables hold: DataFrame (path, version, table, file), a row for each of theirs."""
    versions = spark.createDataFrame([], VERSIONS)
    for name, folder in tables.items():
        if storage.is_folder(folder):
            table = spark.read.schema(SCHEMAS[name]).parquet(folder)
            version = F.struct(*VERSION).alias("version")
            rows = table.select("path", version, F.lit(name).alias("table"), images.name_source().alias("file"))
            versions = versions.unionByName(rows)
    return versions


def cut_slices(pictures, changes, per_core):
    """Cut the pictures to featurize into slices: yields DataFrames like pictures.

    A slice has about per_core of them for each core that is there when it begins: a cluster grows while it works.
    pictures: DataFrame of the files that Spark reads, with a path. Where all that is there is to do, a slice is chosen
    by a hash of the files' names alone. Else the names of one slice are held in memory, about SLICE_NAMES at most.
    """
    spark, are_named = pictures.sparkSession, changes.counts["unchanged"] > 0
    to_do = changes.pictures.where(F.col("state").isin("new", "changed"))
    to_do = to_do.where("file IS NOT NULL")  # null: it could not be packed, which tidy says in the table rejected
    per_core = min(per_core, SLICE_NAMES) if are_named else per_core
    shares, first = math.ceil(changes.to_do / per_core), 0  # a core's; a slice takes as many as there are cores
    while first < shares:
        cores = spark.sparkContext.defaultParallelism
        last = first + (min(cores, SLICE_NAMES // per_core) if are_named else cores)
        rows = to_do.where(_is_share(F.col("file"), shares, first, last)).select("path", "file", "length")
        names = (rows if are_named else rows.agg(F.max("length").alias("length"))).toPandas()
        if (heaviest := names["length"].max()) > 0:  # not a number where the slice is empty
            is_in_slice = _is_share(images.name_source(), shares, first, last)
            part = _choose_named(pictures, names) if are_named else pictures.where(is_in_slice)
            with features.cut_tasks(spark, min(changes.to_do, per_core * (last - first)), int(heaviest)):
                yield part
        first = last


def _is_share(file, shares, first, last):
    """Say whether a file's share of all, a number below shares that its name gives it, is from first to before last."""
    share = F.pmod(F.xxhash64(file), F.lit(shares))
    return (share >= first) & (share < last)


def _choose_named(pictures, names):
    """Choose pictures by their names. names: pandas DataFrame (path, file) and more."""
    chosen = pictures.where(images.is_one_of(F.col("path"), names["path"]))
    is_packed = not names["path"].equals(names["file"])
    return chosen.where(images.is_one_of(images.name_source(), names["file"].unique())) if is_packed else chosen


def tidy(spark, changes, tables):
    """Leave one row for each picture that is there, its present version, and few files.

    Taken out: pictures that are gone or replaced, and what a run that was killed left twice. Files that hold such rows
    are written again without them, then deleted; killed in between, rows are there twice, and the next run tidies.
    Then the table rejected, where it is among them, names the files that gave no row at all.
    changes: what has just been featurized. tables: as for find_changes; all of them exist afterwards.
    """
    if not changes.is_empty:
        _take_out(spark, changes, tables)
    for name, folder in tables.items():
        if not _list_files(folder):  # nothing was featurized, or nothing rejected: an empty table can be read
            append(spark.createDataFrame([], SCHEMAS[name]).coalesce(1), name, folder)


def _take_out(spark, changes, tables):
    """Write the files of tables again that hold rows to take out, and small ones where there are many."""
    rows = _write_and_read(_judge_rows(spark, changes, tables), f"{changes.folder}/rows")
    counts = rows.groupBy("file").agg(F.count("*").alias("rows"), F.count_if("is_kept").alias("kept"))
    counts = counts.toPandas().set_index("file")
    cores = spark.sparkContext.defaultParallelism
    for name, folder in tables.items():
        files = counts.join(pd.Series(_list_files(folder), name="bytes", dtype="int64"), how="right").fillna(0)
        is_small = files["bytes"] < FILE_BYTES / 2
        are_many = is_small.sum() > SMALL_FILES + 2 * cores
        chosen = files[(files["kept"] < files["rows"]) | (is_small & are_many)]
        if len(chosen):
            _rewrite(spark, name, folder, chosen, rows.where("is_kept"))
    if "rejected" in tables:
        _name_missing(spark, changes, rows, tables["rejected"])
    storage.delete_folder(f"{changes.folder}/rows")


def _judge_rows(spark, changes, tables):
    """Judge each row of the tables: DataFrame (path, table, file, is_kept).

    Kept is the version that was listed, once. Where a picture changed after it had been listed, the version that this
    run read is kept: it was not known before.
    """
    there = changes.pictures.where(IS_THERE).select("path", F.struct(*VERSION).alias("listed"), "versions")
    is_listed = F.coalesce(F.col("version") == F.col("listed"), F.lit(False))
    was_known = F.coalesce(F.array_contains("versions", F.col("version")), F.lit(False))
    is_right = is_listed | (F.col("listed").isNotNull() & ~was_known & F.expr(WAS_OPENED))
    best_first = Window.partitionBy("path").orderBy(is_listed.desc(), is_right.desc(), F.desc("version"), "file")
    rows = _read_versions(spark, tables).join(there, "path", "left")
    is_kept = (F.row_number().over(best_first) == 1) & is_right
    return rows.select("path", "table", "file", is_kept.alias("is_kept"))


def _list_files(folder):
    """List the parquet files of a table: {path as Spark writes it: bytes}.

    They lie in the folder itself: what is below, or is called otherwise, is not the table's, and is left alone.
    """
    if not storage.is_folder(folder):
        return {}
    return {
        file.path: file.length
        for file in storage.list_files(folder)
        if re.fullmatch(r"/[^/_.][^/]*\.parquet", storage.cut_folder(file.path, folder))
    }


def _rewrite(spark, name, folder, files, kept):
    """Write the kept rows of some files of a table again, in as few files as serve, and delete the files.

    files: pandas DataFrame (bytes, rows, kept) by path. kept: DataFrame (path, file) of the rows.
    """
    if files["kept"].sum():
        is_chosen = images.is_one_of(F.col("file"), files.index)
        table = spark.read.schema(SCHEMAS[name]).parquet(folder).withColumn("file", images.name_source())
        rows = table.where(is_chosen).join(kept.where(is_chosen).select("path", "file"), ["path", "file"], "left_semi")
        size = (files["bytes"] * files["kept"] / files["rows"].clip(1)).sum()
        count = max(math.ceil(size / FILE_BYTES), min(spark.sparkContext.defaultParallelism, len(files)))
        # Rows that a join has shuffled lie in fewer parts than such a table wants files: they can only be dealt anew.
        few = rows.sparkSession.sparkContext.defaultParallelism
        append(rows.coalesce(count) if count <= few else rows.repartition(count), name, folder)
    for file in files.index:
        storage.delete_file(file)


def _name_missing(spark, changes, rows, folder):
    """Name in the table rejected the files that gave no row: those that Spark skips, and those it could not open."""
    kept = rows.where("is_kept").select("path")
    unread = changes.pictures.where(IS_THERE).join(kept, "path", "left_anti").withColumn("reason", F.lit(NOT_READABLE))
    missing = unread.unionByName(changes.pictures.where("state = 'skipped'"))
    missing = missing.withColumn("modificationTime", F.lit(None).cast("timestamp"))
    if not missing.isEmpty():
        append(missing.coalesce(1), "rejected", folder)


def append(rows, name, folder):
    """Add rows to a table. name: in SCHEMAS, whose columns are taken in their order."""
    columns = [column.split()[0] for column in SCHEMAS[name].split(", ")]
    rows.select(*columns).write.mode("append").options(**WRITING[name]).parquet(folder)


def pack(spark, pictures, listing, folder, per_core):
    """Pack pictures into large parquet files, as far as they are new; take out those that are gone.

    pictures: DataFrame that binaryFile made, with a label. listing: of the same folder. folder: of the packed ones.
    Returns (pictures, listing) to go on with: the same rows, read from the packed files. Until all are packed, survey
    refuses the folder. Raises ValueError where another run packs there, and where refuse_loss does.
    """
    tables = {"packed": folder}
    if not storage.lock_folder(folder):
        raise ValueError(f"another run packs pictures into packed_path {folder!r}: wait until it has ended")
    try:
        changes = find_changes(spark, listing, tables, f"{folder}/{COMPARISON}")
        refuse_loss(changes, folder, "packed_path")
        print(f"to pack: {changes}")
        storage.write_bytes(f"{folder}/{images.PACKING}", b"")
        for part in cut_slices(pictures, changes, per_core):
            append(part.sortWithinPartitions("path"), "packed", folder)
        tidy(spark, changes, tables)
        storage.delete_file(f"{folder}/{images.PACKING}")
    finally:
        storage.unlock_folder(folder)
    packed = spark.read.schema(SCHEMAS["packed"]).parquet(folder)
    files = packed.select("path", images.name_source().alias("file"))
    return packed, listing.drop("file").join(files, "path", "left")


def watch(pictures, changes, reader, folder, output, trigger=None):
    """Yield what is to do in a folder: once, or whenever pictures have come or gone, until a person says stop.

    pictures, changes: the first to yield. reader: pyspark DataFrameReader that loads the folder anew. output: holds the
    tables. trigger: how often to look, such as "1 minute", as Spark's streams have it; None for once. It ends when a
    file named stop lies in output that was made meanwhile, which is deleted, or when the wait is interrupted.
    Yields (pictures, Changes). Where a folder that held pictures holds none any more, a disk may not be mounted: a look
    that finds this is told and passed over until a picture comes, then those that are gone are taken out; OSError is
    raised where it happened while its pictures were read.
    A look that fails, since a disk or the network is away, is told and made again; one that fails because Spark has
    ended is an error. Files that could not be opened are tried once more, then when they have changed or others come.
    """
    stop = f"{output}/stop"
    if trigger:
        _take(stop)  # what an earlier service left
    yield pictures, changes
    if trigger is None:
        if changes.pictures_there and not images.has_picture(folder):
            raise OSError(
                f"images_path {folder!r} holds no picture any more: its disk may be gone, and pictures that were not "
                f"read are named in {output}/rejected. Run again when it is back: what was featurized is kept"
            )
        return
    spark, seconds = pictures.sparkSession, pd.Timedelta(trigger).total_seconds()
    how_to_stop = f"looking for pictures every {trigger}; to stop, make the file {stop}, or interrupt in Jupyter"
    print(how_to_stop, flush=True)
    while _wait(seconds, stop):
        try:
            listing, before = images.survey(spark, folder, output), changes
            changes = find_changes(spark, listing, list_tables(output), f"{output}/changes")
            if changes.are_all_gone:
                print(f"no picture is left, and {changes.counts['deleted']:,} stay known until one comes", flush=True)
            elif not changes.is_empty and not changes.is_in_vain(before):
                print(f"{changes.found:,} files: {changes}", flush=True)
                yield images.label_pictures(reader.load(folder)), changes
                print(how_to_stop, flush=True)  # again: progress is shown in place of what its cell has shown before
        except NO_ANSWER as error:
            if spark.sparkContext._jsc.sc().isStopped():  # which itself fails where Java has ended
                raise
            print(f"could not look, and will try again ({type(error).__name__}: {error})", flush=True)


def _wait(seconds, stop):
    """Wait some seconds. Returns False as soon as the file stop is there, which is deleted, or a person interrupts."""
    end = time.monotonic() + seconds
    try:
        while not _take(stop):
            if (left := end - time.monotonic()) <= 0:
                return True
            time.sleep(min(left, SECONDS_BETWEEN_LOOKS))
        print(f"stopped by {stop}")
    except KeyboardInterrupt:
        print("interrupted: what has arrived since the last look is left to the next run")
    return False


def _take(file):
    """Delete a file, and say whether it was there; where its storage does not answer, it was not."""
    try:
        if is_there := storage.is_file(file):
            storage.delete_file(file)
    except OSError:
        return False
    return is_there
