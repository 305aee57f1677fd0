"""What the tests of cloud.ipynb share: S3 (moto's) with pictures in it, and Livy's stand-in with a Spark on S3A."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import boto3
import pytest
import requests

from fruits import session

ROOT = Path(__file__).parents[2]
CLOUD = ROOT / "notebooks" / "cloud.ipynb"
S3A = "org.apache.hadoop:hadoop-aws:3.3.4,com.amazonaws:aws-java-sdk-bundle:1.12.262"  # as pyspark 3.5's Hadoop
MAVEN_CENTRAL = "https://repo1.maven.org/maven2/org/apache/hadoop/hadoop-aws/3.3.4/hadoop-aws-3.3.4.pom"
BUCKET, REGION = "fruits-eu-test", "eu-west-3"
PICTURES_A_KIND = 2


def can_reach_maven():
    """Say whether Spark can fetch S3A's jars."""
    try:
        return urllib.request.urlopen(MAVEN_CENTRAL, timeout=20).status == 200
    except (urllib.error.URLError, TimeoutError):
        return False


def has_started(address, process):
    """Wait until a server answers, at most a minute: whether it does."""
    give_up = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < give_up:
        with suppress(requests.RequestException):
            if requests.get(address, timeout=10).ok:  # the hub's proxy starts first, and answers that it finds no hub
                return True
        time.sleep(0.5)
    return False


def find_free_port():
    """Find a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def pictures(moto_server, tmp_path_factory):
    """Put some drawn pictures, and one file that is none, into the bucket: their folder on this machine."""
    folder = tmp_path_factory.mktemp("cloud") / "images"
    for kind in sorted((ROOT / "data" / "images").iterdir()):
        (folder / kind.name).mkdir(parents=True)
        for picture in sorted(kind.iterdir())[:PICTURES_A_KIND]:
            shutil.copy(picture, folder / kind.name)
    (folder / "Café 100%").mkdir()
    (folder / "Café 100%" / "not a picture.jpg").write_bytes(b"a banana, in words")
    for bucket, region in (("fruits-london", "eu-west-2"), (BUCKET, REGION)):
        s3 = boto3.client("s3", region_name=region)
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
    for file in folder.rglob("*.*"):
        s3.upload_file(str(file), BUCKET, f"images/{file.relative_to(folder)}")
    s3.put_object(Bucket="fruits-london", Key="images/Lemon/0.jpg", Body=b"1")
    return folder


@pytest.fixture(scope="module")
def livy(moto_server, tmp_path_factory):
    """Serve Livy's interface: its address."""
    with serve_livy(moto_server, tmp_path_factory.mktemp("livy")) as (address, _):
        yield address


@contextmanager
def serve_livy(environment, folder):
    """Serve Livy's interface, with Spark settings that send s3:// to moto: (its address, its process group)."""
    if not can_reach_maven():
        pytest.skip("Maven Central does not answer: no jars for S3A")
    port, java_home = find_free_port(), session.find_java_home()
    conf = {
        "spark.master": "local[2]",
        "spark.driver.memory": "2g",
        # Half of the seconds that Java takes.
        "spark.driver.extraJavaOptions": f"{session.JAVA_OPTIONS} {session.find_classes(java_home)}",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.jars.packages": S3A,
        "spark.local.dir": str(folder),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "spark.hadoop.fs.s3a.endpoint": environment["AWS_ENDPOINT_URL"],
        "spark.hadoop.fs.s3a.endpoint.region": REGION,
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.connection.ssl.enabled": "false",
        "spark.hadoop.fs.s3a.access.key": "test",
        "spark.hadoop.fs.s3a.secret.key": "test",
    }
    settings = os.environ | {"JAVA_HOME": java_home, "PYSPARK_PYTHON": sys.executable, "MPLBACKEND": "Agg"}
    command = [sys.executable, Path(__file__).with_name("livy.py"), str(port), json.dumps(conf)]
    server = subprocess.Popen(command, cwd=folder, env=settings, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        assert has_started(f"{address}/sessions", server), "Livy's stand-in does not answer"
        yield address, server.pid
    finally:
        with suppress(ProcessLookupError):  # a test may have killed it
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
