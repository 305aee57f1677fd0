"""The cloud on one machine: cloud.ipynb through sparkmagic, on s3:// pictures; S3 is moto's, Spark reads it by S3A.

Livy is stood in for by livy.py. Needs Maven Central, for S3A's jars.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import boto3
import nbformat
import numpy as np
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
import requests
import yaml
from one_machine import BUCKET, CLOUD, PICTURES_A_KIND, ROOT, find_free_port, serve_livy

from fruits import scale

LOCAL = ROOT / "notebooks" / "local.ipynb"


OWN_KERNELS = {"JUPYTER_PREFER_ENV_PATH": "1"}  # before those of the machine


def make_command(folder, livy, parameters, start=("-m", "fruits.headless")):
    """Make the command that runs cloud.ipynb as an EMR step does: (list, path of the executed notebook)."""
    (folder / "cloud.yaml").write_text(yaml.safe_dump(parameters))
    executed = folder / "executed.ipynb"
    options = ["--parameters", folder / "cloud.yaml", "--livy", livy]
    return [sys.executable, *start, CLOUD, executed, *options], executed


def run_headless(folder, livy, parameters):
    """Run cloud.ipynb to its end. Returns (finished process, path of the executed notebook)."""
    folder.mkdir()
    command, executed = make_command(folder, livy, parameters)
    environment = os.environ | OWN_KERNELS
    answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
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
    assert len(shown) == sum("save_figure" in cell.source for cell in cloud_run.cells) >= 3
    for cell in shown:
        assert any("image/png" in output.get("data", {}) for output in cell.outputs)


def run_statement(livy, code):
    """Run code in a session of its own: what Livy says that it printed."""
    session = f"{livy}/sessions/{requests.post(f'{livy}/sessions', json={'kind': 'pyspark'}, timeout=60).json()['id']}"
    try:
        while (state := requests.get(session, timeout=60).json()["state"]) != "idle":
            assert state == "starting"
            time.sleep(0.5)
        address = f"{session}/statements/{requests.post(f'{session}/statements', json={'code': code}).json()['id']}"
        while (statement := requests.get(address, timeout=60).json())["state"] != "available":
            time.sleep(0.5)
        assert statement["output"]["status"] == "ok", statement
        return statement["output"]["data"]["text/plain"]
    finally:
        requests.delete(session, timeout=60)


def test_a_picture_takes_the_requests_that_its_cost_is_computed_with(livy, pictures, caplog):
    code = f"""
files = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load("s3://{BUCKET}/images")
print(files.selectExpr("sum(length(content))").first()[0])
"""
    with caplog.at_level("INFO", "werkzeug"):
        said = run_statement(livy, code)
    assert int(said) == sum(file.stat().st_size for file in pictures.rglob("*.jpg"))
    asked = Counter(re.findall(rf"(?:HEAD|GET) /{BUCKET}/images/(\S+[.]jpg) ", caplog.text))
    assert len(asked) == 23 * PICTURES_A_KIND + 1
    assert set(asked.values()) == {scale.READS_PER_PICTURE}


def read_report(output):
    """Read the report of a run on the bucket."""
    return json.loads(boto3.client("s3").get_object(Bucket=BUCKET, Key=f"{output}/report.json")["Body"].read())


def test_a_second_run_on_s3_featurizes_only_what_came_and_takes_out_what_went(livy, pictures, tmp_path):
    s3, (first, second, third, fourth) = boto3.client("s3"), sorted(pictures.glob("L*/*"))[:4]
    for number, picture in enumerate((first, second, third)):
        s3.upload_file(str(picture), BUCKET, f"few/Lemon/{number} é+%20.jpg")
    parameters = {"images_path": f"s3://{BUCKET}/few", "output_path": f"s3://{BUCKET}/nightly", "quality_seconds": 0,
                  "packed_path": f"s3://{BUCKET}/packed"}  # fmt: skip
    answer, _ = run_headless(tmp_path / "first", livy, parameters)
    assert answer.returncode == 0, answer.stderr[-3000:]
    before = read_table(f"s3://{BUCKET}/nightly/features")
    assert sorted(before) == [f"Lemon/{number} é+%20.jpg" for number in range(3)]
    s3.upload_file(str(fourth), BUCKET, "few/Lemon/1 é+%20.jpg")
    s3.upload_file(str(fourth), BUCKET, "few/Lemon/3.jpg")
    s3.delete_object(Bucket=BUCKET, Key="few/Lemon/0 é+%20.jpg")
    answer, _ = run_headless(tmp_path / "second", livy, parameters)
    assert answer.returncode == 0, answer.stderr[-3000:]
    after, report = read_table(f"s3://{BUCKET}/nightly/features"), read_report("nightly")
    states = ("found", "new", "changed", "unchanged", "deleted", "featurized")
    assert [report[f"images_{state}"] for state in states] == [3, 1, 1, 1, 1, 3]
    assert sorted(after) == ["Lemon/1 é+%20.jpg", "Lemon/2 é+%20.jpg", "Lemon/3.jpg"]
    assert after["Lemon/2 é+%20.jpg"] == before["Lemon/2 é+%20.jpg"]
    np.testing.assert_allclose(after["Lemon/1 é+%20.jpg"]["features"], after["Lemon/3.jpg"]["features"], atol=1e-5)
    packed = read_table(f"s3://{BUCKET}/packed")
    assert {path: row["content"] for path, row in packed.items()} == {
        "Lemon/1 é+%20.jpg": fourth.read_bytes(), "Lemon/2 é+%20.jpg": third.read_bytes(),
        "Lemon/3.jpg": fourth.read_bytes(),
    }  # fmt: skip


@pytest.mark.parametrize(("changed", "messages"), [
    ({"variance_kept": 2, "image_path": "s3://x", "images_path": "s3://fruits-nowhere/images"}, [
        r"variance_kept is 2 \(int\), expected a number above 0 and up to 1",
        r"'image_path' is unknown, images_path may be meant",
        r"images_path is 's3://fruits-nowhere/images'.*correct it",
    ]),
    ({"images_path": "s3://fruits-london/images"}, [r"eu-west-2.*London"]),
    ({"packed_path": "packed"}, [r"found 'packed', expected an address such as s3://BUCKET/images"]),
], ids=["wrong values", "wrong region", "not on S3"])  # fmt: skip
def test_a_remote_error_ends_in_a_failure_that_says_what_to_do(livy, pictures, tmp_path, changed, messages):
    parameters = {"images_path": f"s3://{BUCKET}/images", "output_path": f"s3://{BUCKET}/elsewhere"}
    answer, _ = run_headless(tmp_path / "run", livy, parameters | changed)
    assert answer.returncode == 1
    assert all(re.search(message, answer.stderr, re.S) for message in messages), answer.stderr[-3000:]


@contextlib.contextmanager
def start_headless(folder, livy, output, **options):
    """Start a run of cloud.ipynb that writes to a folder of the bucket. Yields its process, whose stderr is to read."""
    parameters = {"images_path": f"s3://{BUCKET}/images", "output_path": f"s3://{BUCKET}/{output}"}
    command, _ = make_command(folder, livy, parameters, **options)
    with subprocess.Popen(command, env=os.environ | OWN_KERNELS, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def is_on_its_way(line):
    """Say whether a line of a run's stderr tells that some of its cells have run."""
    return re.search(r"\b[23]\d%", line)


def test_a_livy_that_dies_on_the_way_ends_in_a_failure_that_names_it(moto_server, pictures, tmp_path):
    said = []
    with (
        serve_livy(moto_server, tmp_path) as (address, group),
        start_headless(tmp_path, address, "unfinished") as process,
    ):
        for line in process.stderr:
            said.append(line)
            if is_on_its_way(line):
                with contextlib.suppress(ProcessLookupError):  # two lines may pass before it shows
                    os.killpg(group, signal.SIGKILL)
        assert process.wait(60) == 1
    assert re.search(r"headless: Livy does not answer at .*systemctl status livy-server", said[-1])
    assert nbformat.read(tmp_path / "executed.ipynb", as_version=4).metadata.papermill.exception


def test_livy_ends_the_session_of_a_run_that_was_killed_and_no_other(moto_server, pictures, tmp_path):
    patience = (
        "import sys; from fruits import headless; headless.SIGN_OF_LIFE_PATIENCE = 10; headless.main(sys.argv[1:])"
    )
    with (
        serve_livy(moto_server, tmp_path) as (address, _),
        start_headless(tmp_path, address, "killed", start=("-c", patience)) as process,
    ):
        assert any(map(is_on_its_way, process.stderr))
        (theirs,) = requests.get(f"{address}/sessions", timeout=10).json()["sessions"]
        other = requests.post(f"{address}/sessions", json={"kind": "pyspark"}, timeout=10).json()
        process.kill()
        give_up, left = time.monotonic() + 60, [theirs, other]
        while len(left) == 2 and time.monotonic() < give_up:
            time.sleep(1)
            left = requests.get(f"{address}/sessions", timeout=10).json()["sessions"]
        assert [session["id"] for session in left] == [other["id"]]


def test_a_livy_that_does_not_answer_is_said_at_once(tmp_path):
    start = time.monotonic()
    answer, _ = run_headless(tmp_path / "run", f"http://127.0.0.1:{find_free_port()}", {})
    assert answer.returncode == 1
    assert re.search(r"Livy does not answer at http://127.0.0.1:\d+.*livy-server", answer.stderr)
    assert time.monotonic() - start < 30
