#!/bin/sh
# What the images install: docker/install.sh FOLDER cpu|cuda, from the repository's root. FOLDER
# becomes a virtual environment of constraints.txt's versions. TORCH_INDEX names an index with CPU
# builds of torch, where pip's own has none.
set -eu
folder=${1:?usage: docker/install.sh FOLDER cpu|cuda}
kind=${2:?usage: docker/install.sh FOLDER cpu|cuda}

torch=torch==$(sed -n 's/^torch==//p' constraints.txt)
[ "$kind" = cuda ] || torch=$torch+cpu

python3 -m venv "$folder"
install() {
    "$folder/bin/python" -m pip --disable-pip-version-check install --quiet --no-cache-dir \
        --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$@"
}
# First of all, so that nothing installed later chooses another build of it.
install "$torch"
install '.[otel]'
