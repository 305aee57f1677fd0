"""Runs without a person: what counts as a failure, what is asked of sparkmagic, what is said when Livy is away."""

import datetime
import http.server
import ipaddress
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import boto3
import nbformat
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from nbformat import v4

from fruits import headless


@contextmanager
def serve(certificate=None):
    """Serve an address that answers every GET with 200: yields the server. certificate: PEM file, for https."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802 -- the name that http.server calls
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def livy():
    with serve() as server:
        yield f"http://127.0.0.1:{server.server_port}"


def write_certificate(path):
    """Write a certificate of 127.0.0.1, its own issuer, and its key into a PEM file."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(hours=1))
    place = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = builder.add_extension(place, critical=True).sign(key, hashes.SHA256())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(certificate.public_bytes(Encoding.PEM) + secret)


@pytest.fixture
def write_notebook(tmp_path):
    """Make a function that writes a notebook of code cells for this machine's Python, and returns its path."""

    def write(*sources):
        notebook = v4.new_notebook(cells=[v4.new_code_cell(source) for source in sources])
        notebook.cells[0].metadata.tags = ["parameters"]
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, tmp_path / "notebook.ipynb")
        return str(tmp_path / "notebook.ipynb")

    return write


@pytest.fixture(autouse=True)
def keep_environment(monkeypatch):
    """Forget what a run sets in the environment."""
    monkeypatch.setenv("SPARKMAGIC_CONF_DIR", "nowhere")
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")


def test_a_remote_error_is_fatal_and_patience_is_long(tmp_path):
    headless.configure_sparkmagic(tmp_path, "http://localhost:1234")
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["all_errors_are_fatal"] is True
    assert settings["shutdown_session_on_spark_statement_errors"] is True
    assert settings["use_auto_viz"] is False
    assert settings["livy_session_startup_timeout_seconds"] >= 300
    assert settings["kernel_python_credentials"]["url"] == "http://localhost:1234"
    assert os.environ["SPARKMAGIC_CONF_DIR"] == str(tmp_path)


def test_a_run_gives_several_signs_of_life_in_the_time_after_which_livy_gives_it_up_and_pauses_between(tmp_path):
    headless.configure_sparkmagic(tmp_path, "http://localhost:1234")
    settings = json.loads((tmp_path / "config.json").read_text())
    assert 5 <= settings["heartbeat_refresh_seconds"] <= settings["livy_server_heartbeat_timeout_seconds"] / 5


@pytest.mark.parametrize(("outputs", "complaints"), [
    ([], []),
    ([v4.new_output("stream", name="stdout", text="Error, in words only")], []),
    ([v4.new_output("stream", name="stderr", text="no figure\n")], ["  cell 2: no figure"]),
    ([v4.new_output("stream", name="stderr", text=f"{headless.WAITS} \n")], []),
    ([v4.new_output("stream", name="stderr", text=f"{headless.WAITS}\nno figure\n")], ["  cell 2: no figure"]),
    ([v4.new_output("error", ename="KeyError", evalue="'x'")], ["  cell 2: KeyError: 'x'"]),
], ids=["nothing", "words", "stderr", "a wait", "a wait and more", "error"])  # fmt: skip
def test_what_a_cell_writes_to_stderr_is_a_failure_and_what_it_prints_is_not(outputs, complaints):
    cells = [v4.new_markdown_cell("text"), v4.new_code_cell("1", outputs=outputs)]
    assert headless.find_failures(cells) == complaints


def test_a_notebook_that_succeeds_ends_with_0_and_is_written(livy, write_notebook, tmp_path, capsys):
    notebook = write_notebook("share = 0.5", "print('share is', share)")
    (tmp_path / "run.yaml").write_text("share: 0.9\n")
    executed = tmp_path / "executed.ipynb"
    options = ["--parameters", str(tmp_path / "run.yaml"), "--livy", livy]
    assert headless.main([notebook, str(executed), *options]) == 0
    assert f"executed: {executed}" in capsys.readouterr().out
    assert "share is 0.9" in executed.read_text()


@pytest.mark.parametrize(("source", "message"), [
    ("import sys; print('the figure failed', file=sys.stderr)", "cell 2: the figure failed"),
    ("raise ValueError('not today')", "ValueError: not today"),
], ids=["stderr", "error"])  # fmt: skip
def test_a_cell_that_fails_ends_with_1_and_its_reason(livy, write_notebook, tmp_path, capsys, source, message):
    notebook = write_notebook("share = 0.5", source)
    assert headless.main([notebook, str(tmp_path / "executed.ipynb"), "--livy", livy]) == 1
    assert message in capsys.readouterr().err


def test_a_notebook_its_parameters_and_the_executed_one_may_all_lie_on_s3(livy, write_notebook, moto_server):
    s3 = boto3.client("s3", region_name="eu-west-3")
    s3.create_bucket(Bucket="fruits", CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
    s3.put_object(Bucket="fruits", Key="project/cloud.yaml", Body=b"share: 0.9")
    places = ["s3://fruits/project/cloud.ipynb", "s3://fruits/output/cloud.ipynb"]
    for source, status in (("print('share is', share)", 0), ("print('still', share); 1 / 0", 1)):
        s3.upload_file(write_notebook("share = 0.5", source), "fruits", "project/cloud.ipynb")
        assert headless.main([*places, "--parameters", "s3://fruits/project/cloud.yaml", "--livy", livy]) == status
        executed = s3.get_object(Bucket="fruits", Key="output/cloud.ipynb")["Body"].read()
        assert (b"still 0.9" if status else b"share is 0.9") in executed


def test_a_cell_that_failed_is_told_where_the_executed_notebook_cannot_be_written_either(
    livy, write_notebook, tmp_path, capsys
):
    notebook = write_notebook("share = 0.5", "raise ValueError('not today')")
    (tmp_path / "file").write_text("in the way")
    assert headless.main([notebook, str(tmp_path / "file" / "executed.ipynb"), "--livy", livy]) == 1
    said = capsys.readouterr().err
    assert "ValueError: not today" in said
    assert re.search(r"^headless: .*file", said.splitlines()[-1])


def test_a_run_whose_time_is_over_writes_what_it_had_executed_and_ends_its_kernel(livy, write_notebook, tmp_path):
    started, executed = tmp_path / "kernel", tmp_path / "executed.ipynb"
    wait = "import os, pathlib, time; print('so far'); pathlib.Path(place).write_text(str(os.getpid())); time.sleep(99)"
    notebook = write_notebook(f"place = {str(started)!r}", wait)
    command = [sys.executable, "-m", "fruits.headless", notebook, str(executed), "--livy", livy]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (started.exists() and started.read_text()):
        assert run.poll() is None
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)  # as timeout does in the step of cluster.ipynb
    said = run.communicate(timeout=60)[1]
    assert run.returncode == 1
    assert "headless: interrupted, by somebody or since its time was over" in said.splitlines()
    assert "so far" in executed.read_text()
    assert not Path("/proc", started.read_text()).exists()


def test_a_livy_that_does_not_answer_ends_with_1_before_the_notebook_is_opened(tmp_path, capsys):
    status = headless.main(["nowhere.ipynb", str(tmp_path / "executed.ipynb"), "--livy", "http://127.0.0.1:9"])
    assert status == 1
    assert "Livy does not answer at http://127.0.0.1:9" in capsys.readouterr().err


def test_a_file_of_parameters_that_is_no_list_of_names_is_refused(tmp_path):
    (tmp_path / "run.yaml").write_text("- s3://bucket\n")
    with pytest.raises(ValueError, match=r"run.yaml holds list, expected lines such as images_path"):
        headless.read_parameters(str(tmp_path / "run.yaml"))
    (tmp_path / "run.yaml").write_text("# nothing\n")
    assert headless.read_parameters(str(tmp_path / "run.yaml")) == {}


def test_a_livy_behind_https_is_believed_where_its_issuer_is_named(tmp_path, monkeypatch):
    write_certificate(tmp_path / "livy.pem")
    with serve(tmp_path / "livy.pem") as server:
        address = f"https://127.0.0.1:{server.server_port}"
        with pytest.raises(headless.RunError, match="certificate verify failed"):
            headless.check_livy(address)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "livy.pem"))
        headless.check_livy(address)
