"""The download of the real pictures, with Kaggle's client and with ones that play it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
# What Kaggle's archive unpacks as, in the folder after --path. source: https://www.kaggle.com/datasets/moltean/fruits
UNPACK = """#!/bin/sh
[ "$1 $2 $3 $4 $6" = "datasets download moltean/fruits --path --unzip" ] || exit 9
mkdir -p "$5/{folder}/Training/Apple 1" "$5/{folder}/Test/Apple 1"
touch "$5/{folder}/Training/Apple 1/0_100.jpg" "$5/{folder}/Test/Apple 1/3_100.jpg"
"""


@pytest.fixture
def project(tmp_path):
    """A project with nothing but what the download needs, and a folder of programs before all others."""
    for folder in ("links", "params", "data", "bin"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "links" / "download.sh", tmp_path / "links")
    shutil.copy(ROOT / "params" / "fruits-360.yaml", tmp_path / "params")
    return tmp_path


def play_kaggle(project, script):
    (project / "bin" / "kaggle").write_text(script)
    (project / "bin" / "kaggle").chmod(0o755)


def download(project, *arguments, **environment):
    environment = {"PATH": f"{project}/bin:/usr/bin:/bin", "HOME": str(project)} | environment
    command = ["bash", str(project / "links" / "download.sh"), *arguments]
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=120)


def test_the_pictures_lie_where_the_parameters_expect_them(project):
    play_kaggle(project, UNPACK.format(folder="fruits-360_100x100/fruits-360"))
    answer = download(project)
    assert answer.returncode == 0, answer.stderr
    assert "-f params/fruits-360.yaml" in answer.stdout
    assert sorted(path.name for path in (project / "data").rglob("*.jpg")) == ["0_100.jpg", "3_100.jpg"]
    assert os.listdir(project / "data") == ["fruits-360_100x100"]


def test_a_second_download_downloads_nothing(project):
    play_kaggle(project, UNPACK.format(folder="fruits-360_100x100/fruits-360"))
    assert download(project).returncode == 0
    play_kaggle(project, "#!/bin/sh\nexit 9\n")
    answer = download(project)
    assert answer.returncode == 0, answer.stderr


def test_an_interrupted_download_leaves_nothing_that_passes_for_whole(project):
    play_kaggle(project, UNPACK.format(folder="fruits-360_100x100/fruits-360") + "exit 1\n")
    assert download(project).returncode == 1
    assert not (project / "data" / "fruits-360_100x100").exists()
    play_kaggle(project, UNPACK.format(folder="fruits-360_100x100/fruits-360"))
    assert download(project).returncode == 0


def test_another_layout_is_told_with_what_was_found(project):
    play_kaggle(project, UNPACK.format(folder="renamed/fruits"))
    answer = download(project)
    assert answer.returncode == 1
    assert "renamed/fruits/" in answer.stderr
    assert "set images_path" in answer.stderr


def test_a_client_that_is_missing_is_told_with_what_to_do(project):
    answer = download(project)
    assert answer.returncode == 1
    assert "make fruits-360" in answer.stderr


def test_an_argument_is_refused(project):
    answer = download(project, "data/elsewhere")
    assert answer.returncode == 1
    assert "takes no argument, but found: data/elsewhere" in answer.stderr


def test_without_a_network_kaggles_own_client_ends_in_words_that_tell_what_to_do(project):
    (project / "bin" / "kaggle").symlink_to(BIN / "kaggle")
    answer = download(project, HTTPS_PROXY="http://127.0.0.1:9")  # where nobody listens
    assert answer.returncode == 1
    assert "api.kaggle.com" in answer.stderr
    assert "check the network or the proxy" in answer.stderr
    assert not list((project / "data").rglob("*.jpg"))


def test_shellcheck_finds_nothing():
    subprocess.run([BIN / "shellcheck", ROOT / "links" / "download.sh"], check=True)
