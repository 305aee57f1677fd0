"""The project itself: its tree, its pins, its docstrings, its functions, its commands."""

import ast
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "fruits").glob("*.py"))
HEADING = "## The house"
PACKAGES = ("pyspark", "tensorflow", "pillow", "pandas", "pyarrow", "papermill", "matplotlib")
HOME_OR_WORK = re.compile(r"(?<![\w.])/(?:work|root|home/(?!someone/)\w+|Users/\w+)/")
NO_SECRETS = (  # what looks like a secret to a scanner and is none: a piece of its line
    "Action: secretsmanager:GetSecretValue",
    '"HubSecretArn": "arn-of-the-secret"',
    "WEIGHTS_SHA256 = ",
    '"AWS_SECRET_ACCESS_KEY": "test"',
    '"89504e470d0a1a0a',  # a picture
    '{"chpasswd": "exit 1"}',
    "PASSWORD = \"jovyan\", secrets.token_urlsafe()",
)
LONGEST_FUNCTION, MEDIAN_FUNCTION = 40, 10  # lines, without the docstring


def list_tracked():
    """List the files that git knows, or would if they were added: paths from the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(path for path in answer.stdout.split("\0") if path and (ROOT / path).exists())


def read_house():
    """Read the tree in README.md: the paths, in order."""
    _, _, after = (ROOT / "README.md").read_text(encoding="utf-8").partition(f"\n{HEADING}\n")
    assert after, f"README.md has no heading {HEADING!r}"
    block = re.search(r"^```\w*\n(.*?)^```$", after, re.M | re.S)
    assert block, f"README.md has no fenced block after {HEADING!r}"
    return [line.split()[0] for line in block[1].splitlines() if line.strip()]


def read_pins(name):
    """Read the requirements of a file: [(package, version or what stands there instead)]."""
    lines = (
        line.partition("#")[0].partition(";")[0].strip() for line in (ROOT / name).read_text().splitlines()
    )
    found = (
        re.match(r"([\w.-]+)(?:\[[\w,]+\])?(.*)", line) for line in lines if line and not line.startswith("-")
    )
    return [(match[1].lower().replace("_", "-"), match[2].strip()) for match in found]


def find_functions(module):
    """Find the functions and methods of a module, inner ones too."""
    return [node for node in ast.walk(parse(module)) if isinstance(node, ast.FunctionDef)]


def find_public(node):
    """Find the public functions and classes of a module, and the public methods of these classes."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    for child in node.body:
        if isinstance(child, kinds) and not child.name.startswith("_"):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from find_public(child)


def parse(module):
    return ast.parse(module.read_text(encoding="utf-8"))


def count_lines(function):
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_every_path_of_the_readmes_tree_exists():
    house = read_house()
    assert [path for path in house if not (ROOT / path).exists()] == []
    assert [path for path in house if path.endswith("/") != (ROOT / path).is_dir()] == []
    assert len(set(house)) == len(house)


def test_the_readmes_tree_names_all_that_git_holds():
    house = read_house()
    tops = {path.split("/")[0] for path in house}
    assert {path.split("/")[0] for path in list_tracked()} - tops == set()
    named_one_by_one = re.compile(r"(fruits/\w+\.py|notebooks/.*|params/.*|links/.*|presentation/.*\.ipynb)")
    assert {path for path in list_tracked() if named_one_by_one.fullmatch(path)} - set(house) == set()


@pytest.mark.parametrize("name", sorted(path.name for path in ROOT.glob("requirements*.txt")))
def test_every_version_is_exact_and_given_once(name):
    pins = read_pins(name)
    assert [pin for pin in pins if not re.fullmatch(r"==\d[\w.!+-]*", pin[1])] == []
    packages = [package for package, _ in pins]
    assert sorted(set(packages)) == sorted(packages)


def test_the_packages_that_the_project_is_about_are_pinned():
    assert {*PACKAGES, "sagemaker-studio-sparkmagic-lib"} <= {
        package for package, _ in read_pins("requirements.txt")
    }


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_every_public_name_has_a_docstring(module):
    tree = parse(module)
    assert ast.get_docstring(tree)
    assert [node.name for node in find_public(tree) if not ast.get_docstring(node)] == []


def test_functions_are_short():
    lengths = {
        f"{module.stem}.{node.name}": count_lines(node)
        for module in MODULES
        for node in find_functions(module)
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}
    assert statistics.median(lengths.values()) <= MEDIAN_FUNCTION


def test_no_file_names_a_folder_of_one_machine():
    found = []
    for path in list_tracked():
        content = (ROOT / path).read_bytes()
        if b"\0" not in content and Path(path) != Path(__file__).relative_to(ROOT):
            lines = content.decode("utf-8").splitlines()
            found += [f"{path}:{number}" for number, line in enumerate(lines, 1) if HOME_OR_WORK.search(line)]
    assert found == []


def scan_secrets(folder, *paths):
    """Scan files for keys and passwords: [(path, line)]."""
    command = [sys.executable, "-m", "detect_secrets", "scan", *map(str, paths)]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    results = json.loads(answer.stdout)["results"]
    places = [(path, one["line_number"]) for path, found in results.items() for one in found]
    return [(path, Path(folder, path).read_text().splitlines()[number - 1]) for path, number in places]


def test_no_key_and_no_password_is_in_git():
    found = scan_secrets(ROOT, *list_tracked())
    assert [one for one in found if not any(piece in one[1] for piece in NO_SECRETS)] == []


def test_a_key_of_aws_in_a_file_would_be_found(tmp_path):
    key = "AKIA" + "Q3EGRIFRUITSX7LM"
    (tmp_path / "cloud.yaml").write_text(f"images_path: s3://fruits/images\naccess: {key}\n")
    assert scan_secrets(tmp_path, "cloud.yaml") == [("cloud.yaml", f"access: {key}")]


TARGETS = ("run", "slides", "test", "volume-test", "cloud-test", "lab", "bench", "sample", "fruits-360", "clean")


@pytest.mark.parametrize("target", TARGETS)
def test_make_has_the_target(target):
    answer = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


def test_make_clean_removes_installs_and_results_and_nothing_else_of_data():
    command = ["make", "--dry-run", "--no-print-directory", "clean"]  # the tests run within a make
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["rm", "-rf", ".venv", "data/output", "*.egg-info"]


def test_make_run_puts_everything_where_it_says():
    command = ["make", "--dry-run", "run", "RUN=data/output/mine"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "-p output_path data/output/mine" in answer.stdout
    assert "data/output/local" not in answer.stdout


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_is_text_that_git_can_compare(notebook):
    text = notebook.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert "image/png" not in text
