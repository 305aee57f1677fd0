#!/usr/bin/env bash
# Download the real pictures, Fruits-360, from Kaggle into data/, and check that they lie where params/ expects them.
#
#     links/download.sh        (or: make fruits-360, which installs Kaggle's client first)
#
# The set is public: Kaggle's client needs no account for it. Pictures that are there already are not downloaded again.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly DATASET=moltean/fruits PARAMS=params/fruits-360.yaml SCRATCH=data/download
readonly GIBIBYTES=8 # of disk: the archive, which Kaggle's client unpacks beside itself and deletes afterwards

fail() {
    printf 'download: %s\n' "$@" >&2
    exit 1
}

(($# == 0)) || fail "it takes no argument, but found: $*"
pictures=$(sed -n 's/^images_path: *\([^ #]*\).*/\1/p' "$PARAMS")
[[ -n $pictures ]] || fail "$PARAMS sets no images_path: it says where the pictures are expected"

if [[ ! -d $pictures ]]; then
    command -v kaggle >/dev/null || fail "Kaggle's client was not found:" \
        "run 'make fruits-360', or 'pip install -r requirements-data.txt' and try again"
    free=$(($(df -Pk data | awk 'NR == 2 {print $4}') / 1024 / 1024))
    ((free >= GIBIBYTES)) || fail "data/ has $free GiB of free disk, but $GIBIBYTES are needed: make room first"
    rm -rf "$SCRATCH"
    echo "downloading $DATASET into data/"
    kaggle datasets download "$DATASET" --path "$SCRATCH" --unzip || fail \
        "Kaggle's client failed, see above." \
        "Where it could not reach api.kaggle.com, check the network or the proxy (HTTPS_PROXY) and try again," \
        "or download the archive in a browser, from https://www.kaggle.com/datasets/$DATASET, and unzip it in data/." \
        "Where it was not let in, set KAGGLE_API_TOKEN to a token of https://www.kaggle.com/settings/api"
    mv "$SCRATCH"/*/ data/ # whole or not at all, whenever it is interrupted
    rm -rf "$SCRATCH"
fi

[[ -d $pictures ]] || fail "downloaded, but there is no $pictures. Found in data/: $(cd data && echo */ */*/)" \
    "set images_path in $PARAMS to the folder of these that holds Training and Test"
count=$(find "$pictures" -name '*.jpg' | wc -l)
((count > 0)) || fail "no .jpg below $pictures: delete it and try again"
echo "$count pictures in $pictures; go on with:"
echo "mkdir -p data/output/fruits-360"
echo ".venv/bin/papermill notebooks/local.ipynb data/output/fruits-360/local.ipynb -f $PARAMS"
