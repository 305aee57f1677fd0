"""The cloud on one machine: cloud.ipynb through sparkmagic, on s3:// pictures; S3 is moto's, Spark reads it by S3A.

Livy is stood in for by livy.py. Needs Maven Central, for S3A's jars.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import nbformat
import numpy as np
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
import yaml
from moto.server import ThreadedMotoServer

from fruits import session

ROOT = Path(__file__).parents[1]
CLOUD = ROOT / "notebooks" / "cloud.ipynb"
LOCAL = ROOT / "notebooks" / "local.ipynb"
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


pytestmark = pytest.mark.skipif(not can_reach_maven(), reason="Maven Central does not answer: no jars for S3A")


def find_free_port():
    """Find a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def aws():
    """Serve S3 from this process: the environment that points AWS's clients at it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment
    server.stop()


@pytest.fixture(scope="module")
def pictures(aws, tmp_path_factory):
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
def livy(aws, tmp_path_factory):
    """Serve Livy's interface, with Spark settings that send s3:// to moto: its address."""
    folder, port = tmp_path_factory.mktemp("livy"), find_free_port()
    conf = {
        "spark.master": "local[2]",
        "spark.driver.memory": "2g",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.jars.packages": S3A,
        "spark.local.dir": str(folder),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "spark.hadoop.fs.s3a.endpoint": aws["AWS_ENDPOINT_URL"],
        "spark.hadoop.fs.s3a.endpoint.region": REGION,
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.connection.ssl.enabled": "false",
        "spark.hadoop.fs.s3a.access.key": "test",
        "spark.hadoop.fs.s3a.secret.key": "test",
    }
    java = {"JAVA_HOME": session.find_java_home()}
    environment = os.environ | java | {"PYSPARK_PYTHON": sys.executable, "MPLBACKEND": "Agg"}
    command = [sys.executable, Path(__file__).with_name("livy.py"), str(port), json.dumps(conf)]
    server = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield address
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def run_headless(folder, livy, parameters):
    """Run cloud.ipynb as an EMR step does. Returns (finished process, path of the executed notebook)."""
    folder.mkdir()
    (folder / "cloud.yaml").write_text(yaml.safe_dump(parameters))
    executed = folder / "cloud.ipynb"
    command = [sys.executable, "-m", "fruits.headless", CLOUD, executed, "--parameters", folder / "cloud.yaml"]
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"}
    answer = subprocess.run(
        [*command, "--livy", livy], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    return answer, executed


@pytest.fixture(scope="module")
def cloud_run(livy, pictures, tmp_path_factory):
    """One run of cloud.ipynb on the bucket."""
    parameters = {"images_path": f"s3://{BUCKET}/images", "output_path": f"s3://{BUCKET}/output", "max_components": 8}
    answer, executed = run_headless(tmp_path_factory.mktemp("run") / "cloud", livy, parameters)
    assert answer.returncode == 0, answer.stderr[-3000:]
    return nbformat.read(executed, as_version=4)


def read_table(path):
    """Read a parquet table of the bucket, or of this machine, sorted by the end of its paths."""
    if "://" in str(path):
        filesystem, _ = pyarrow.fs.FileSystem.from_uri(f"s3://{BUCKET}")
        rows = pq.read_table(str(path).removeprefix("s3://"), filesystem=filesystem).to_pylist()
    else:
        rows = pq.read_table(path).to_pylist()
    return {"/".join(row["path"].split("/")[-2:]): row for row in rows}


def test_the_features_on_s3_equal_those_of_the_local_notebook(cloud_run, pictures, tmp_path):
    options = ["-p", "images_path", pictures, "-p", "output_path", tmp_path / "output"]
    command = [sys.executable, "-m", "papermill", LOCAL, tmp_path / "local.ipynb", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    subprocess.run(list(map(str, command)), env=environment, capture_output=True, check=True, timeout=300)
    local, cloud = read_table(tmp_path / "output" / "features"), read_table(f"s3://{BUCKET}/output/features")
    assert len(local) == 23 * PICTURES_A_KIND
    assert local.keys() == cloud.keys()
    for path, row in local.items():
        assert (row["label"], row["length"]) == (cloud[path]["label"], cloud[path]["length"])
        np.testing.assert_allclose(cloud[path]["features"], row["features"], atol=1e-5)


def test_what_is_not_a_picture_is_rejected_with_its_reason(cloud_run):
    (row,) = read_table(f"s3://{BUCKET}/output/rejected").values()
    assert row["path"] == f"s3://{BUCKET}/images/Café 100%/not a picture.jpg"
    assert row["reason"].startswith("not a picture")


def test_the_report_the_model_and_the_figures_are_on_s3(cloud_run):
    s3 = boto3.client("s3")
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET, Prefix="output/")["Contents"]]
    assert {f"output/figures/{name}.png" for name in ("pictures", "variance", "two_components")} <= set(keys)
    assert any(key.startswith("output/pca/") for key in keys)
    report = json.loads(s3.get_object(Bucket=BUCKET, Key="output/report.json")["Body"].read())
    assert report["images_found"] == report["images_featurized"] + 1 == 23 * PICTURES_A_KIND + 1


def test_the_figures_are_seen_in_the_executed_notebook(cloud_run):
    shown = [cell for cell in cloud_run.cells if cell.source == "%matplot plt"]
    assert len(shown) == 3
    for cell in shown:
        assert any("image/png" in output.get("data", {}) for output in cell.outputs)


@pytest.mark.parametrize(("changed", "message"), [
    ({"variance_kept": 2}, r"variance_kept is 2 \(int\), expected a number above 0 and up to 1"),
    ({"image_path": "s3://x"}, r"'image_path' is unknown, images_path may be meant"),
    ({"images_path": "s3://fruits-nowhere/images"}, r"images_path is 's3://fruits-nowhere/images'.*correct it"),
    ({"images_path": "s3://fruits-london/images"}, r"eu-west-2.*London"),
], ids=["wrong value", "unknown name", "missing bucket", "wrong region"])  # fmt: skip
def test_a_remote_error_ends_in_a_failure_that_says_what_to_do(livy, pictures, tmp_path, changed, message):
    parameters = {"images_path": f"s3://{BUCKET}/images", "output_path": f"s3://{BUCKET}/elsewhere"}
    answer, _ = run_headless(tmp_path / "run", livy, parameters | changed)
    assert answer.returncode == 1
    assert re.search(message, answer.stderr, re.S), answer.stderr[-3000:]


def test_a_livy_that_does_not_answer_is_said_at_once(tmp_path):
    start = time.monotonic()
    answer, _ = run_headless(tmp_path / "run", f"http://127.0.0.1:{find_free_port()}", {})
    assert answer.returncode == 1
    assert re.search(r"Livy does not answer at http://127.0.0.1:\d+.*livy-server", answer.stderr)
    assert time.monotonic() - start < 30
