"""The same run on Spark's own small clusters: the package travels to the executors, one of which may die."""

import json
import os
import re
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import pyspark
import pytest
import runs
import walk

from fruits import session

PYSPARK = Path(pyspark.__file__).parent
MEMORY = "2g"  # of a worker, of which an executor takes one


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make a folder for what clusters write, and the environment in which they do: (folder, environment).

    SPARK_HOME is a folder of links to PySpark's own, because local-cluster writes to the work/ below it.
    """
    folder = tmp_path_factory.mktemp("clusters")
    home = folder / "home"
    home.mkdir()
    (home / "work").mkdir()
    for path in PYSPARK.iterdir():
        if path.name != "work":
            (home / path.name).symlink_to(path)
    return folder, {"SPARK_HOME": str(home), "SPARK_WORKER_DIR": str(home / "work")}


@contextmanager
def start_daemon(environment, log, name, *options):
    """Start a master or a worker, and kill it at the end. name: of its class below org.apache.spark.deploy."""
    home = environment["SPARK_HOME"]
    command = [f"{home}/bin/spark-class", f"org.apache.spark.deploy.{name}", "--host", "127.0.0.1", *options]
    with log.open("w") as file:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield process
    finally:
        runs.kill(process.pid)
        process.wait()


@pytest.fixture(scope="module")
def cluster(place):
    """A master and two workers with a core each: (the master's address, the environment of all its processes)."""
    folder, settings = place
    mark = f"{folder}/standalone"
    environment = runs.list_environment(folder, mark) | settings | {"JAVA_HOME": session.find_java_home()}
    log, size = folder / "master.txt", ["--cores", "1", "--memory", MEMORY]
    try:
        with start_daemon(environment, log, "master.Master", "--port", "0", "--webui-port", "0"):
            found = runs.wait_until(lambda: re.search(r"spark://127\.0\.0\.1:\d+", log.read_text()), log.read_text)
            options = [*size, "--webui-port", "0", found[0]]
            with (
                start_daemon(environment, folder / "worker 1.txt", "worker.Worker", *options),
                start_daemon(environment, folder / "worker 2.txt", "worker.Worker", *options),
            ):
                runs.wait_until(lambda: log.read_text().count("Registering worker") == 2, log.read_text)
                yield found[0], environment
    finally:
        runs.kill(*runs.find_processes(mark))
        runs.wait_until(lambda: not runs.find_processes(mark), "the end of the cluster")


def check_travelled(run, home):
    """See that every worker imported the package from the zip file that the driver sent to its executor."""
    packages = run.list_packages()
    assert packages
    for package in map(Path, packages):
        assert package.parts[-3:] == ("fruits.zip", "fruits", "__init__.py")
        assert Path(home, "work") in package.parents, package


def find_executor(worker):
    """Find the executor that a Python worker works for: the number of its Java, then those of all of its Python."""
    daemon = runs.find_parent(worker)
    java = runs.find_parent(daemon)
    line = Path(f"/proc/{java}/cmdline").read_text().split("\0")
    assert "org.apache.spark.executor.CoarseGrainedExecutorBackend" in line
    children = Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()
    return java, daemon, *map(int, children)


def freeze_while_it_writes(java, run, output):
    """Stop an executor's Java at a moment when it has a file of features open that is not committed."""
    unfinished = f"{output}/features/_temporary/0/_temporary/"

    def is_writing():
        with suppress(OSError):
            return any(unfinished in os.readlink(file) for file in Path(f"/proc/{java}/fd").iterdir())

    run.freeze_while(java, is_writing)


def check_whole_run(master, environment, pictures, undisturbed, folder, until=walk.FEATURES):
    """Run at a master, and see that the package travelled there and that the features are an undisturbed run's."""
    parameters = runs.list_parameters(pictures, folder / "output", spark_master=master, quality_seconds=5)
    environment = environment | {runs.MARK: str(folder)}
    with runs.start_run(folder / "run", parameters, environment=environment, until=until) as run:
        assert run.finish() == 0, run.read_log()[-3000:]
        assert f"at {master}" in run.read_log()
        check_travelled(run, environment["SPARK_HOME"])
    runs.compare_tables(runs.read_tables(folder / "output", pictures), undisturbed)


def test_a_local_cluster_walks_the_whole_notebook_and_computes_what_one_process_does(
    place, pictures, undisturbed, tmp_path
):
    _, settings = place
    environment = runs.list_environment(tmp_path, str(tmp_path)) | settings
    check_whole_run("local-cluster[2,1,4096]", environment, pictures, undisturbed, tmp_path, walk.ALL)
    paths = runs.read_once(tmp_path / "output", "projection", pictures).keys()
    assert paths == undisturbed.features.keys()
    report = json.loads((tmp_path / "output" / "report.json").read_text())
    assert report["quality_pictures"]["all"] == len(paths)  # how far it gets depends on the machine
    assert len(list((tmp_path / "output" / "figures").glob("*.png"))) == 7


def test_a_standalone_cluster_computes_what_one_process_does(cluster, pictures, undisturbed, tmp_path):
    address, environment = cluster
    check_whole_run(address, environment, pictures, undisturbed, tmp_path)


@pytest.mark.parametrize("is_writing", [False, True], ids=["as it featurizes", "as it writes"])
def test_a_run_survives_an_executor_that_is_killed(cluster, pictures, undisturbed, tmp_path, is_writing):
    address, environment = cluster
    parameters = runs.list_parameters(pictures, tmp_path / "output", spark_master=address)
    environment = environment | {runs.MARK: str(tmp_path)}
    with runs.start_run(tmp_path / "run", parameters, environment=environment, hold_at=2) as run:
        executor = find_executor(run.wait_for_hold())
        if is_writing:
            run.release()
            freeze_while_it_writes(executor[0], run, tmp_path / "output")
        runs.kill(*executor)
        assert run.finish() == 0, run.read_log()[-3000:]
    runs.compare_tables(runs.read_tables(tmp_path / "output", pictures), undisturbed)
