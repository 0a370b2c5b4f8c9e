#!/usr/bin/env bash
# Makes a folder that serves by itself: a virtual environment of pinned versions with this project's wheel in it.
# The build stage of the Dockerfile runs this and nothing else; so can a machine without Docker.
#
#   build_image_root.sh PREFIX cpu|cuda [TORCH_INDEX_URL]
#
# PREFIX           an absolute path; the folder can be copied to another machine, but only to the same path
# TORCH_INDEX_URL  the package index that torch alone comes from; default: where everything else comes from
# HASHES           a file of `make hashes`: no archive of another content is installed, but for torch's, whose index may be
#                  another one (default deploy/docker/hashes.txt, if that is there)
# PYTHON           the interpreter, of the minor version that constraints.txt was made with (default python3)
set -euo pipefail

fail() {
    echo "build_image_root.sh: $*" >&2
    exit 1
}

[[ $# -ge 2 && $# -le 3 ]] || fail "write: build_image_root.sh PREFIX cpu|cuda [TORCH_INDEX_URL]"
prefix=$1 variant=$2 torch_index=${3:-}
[[ $prefix == /* ]] || fail "PREFIX is $prefix: it must be an absolute path"
[[ ! -e $prefix ]] || fail "PREFIX is $prefix, which is there already: choose a path that is free"
[[ $variant == cpu || $variant == cuda ]] || fail "the variant is $variant: it must be cpu or cuda"

source_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
pins=$source_root/constraints.txt
hashes=${HASHES:-$source_root/deploy/docker/hashes.txt}
[[ -z ${HASHES:-} || -f $hashes ]] || fail "there is no file $hashes (HASHES): make one with make hashes"
scratch=$(mktemp -d)
made=no
clean_up() {
    rm -rf "$scratch"
    [[ $made == yes ]] || rm -rf "$prefix" # half a folder is none
}
trap clean_up EXIT

venv() { "${PYTHON:-python3}" -m venv "$1"; }
install() { "$1/bin/python" -m pip install --quiet --no-cache-dir --constraint "$pins" "${@:2}"; }

# The wheel, by a pinned build backend: pip's own isolation would take the newest one.
venv "$scratch/build"
install "$scratch/build" hatchling
"$scratch/build/bin/python" -m pip wheel --quiet --no-cache-dir --no-deps --no-build-isolation \
    --wheel-dir "$scratch/wheel" "$source_root"
wheels=("$scratch"/wheel/*.whl)

# Torch by itself, without its dependencies: an index of torch builds has others at versions that are not the pinned ones.
venv "$prefix"
torch=$(grep -E '^torch==' "$pins")
install "$prefix" --no-deps ${torch_index:+--index-url "$torch_index"} "$torch"
with_cuda=$("$prefix/bin/python" - <<'PYTHON'
import importlib.util, pathlib, runpy  # torch itself cannot be imported yet
(folder,) = importlib.util.find_spec("torch").submodule_search_locations
print("yes" if runpy.run_path(str(pathlib.Path(folder, "version.py")))["cuda"] else "no")
PYTHON
)
[[ $variant == cpu || $with_cuda == yes ]] || fail "this $torch is a build without CUDA: pass a TORCH_INDEX_URL that has one"
[[ $variant == cuda || $with_cuda == no ]] || echo \
    "note: this $torch brings the CUDA libraries, gigabytes that a CPU never uses; pass the TORCH_INDEX_URL of CPU builds" >&2
if [[ -f $hashes ]]; then
    install "$prefix" --no-deps --require-hashes --requirement "$hashes"
    install "$prefix" --no-deps "${wheels[0]}"
    "$prefix/bin/python" -m pip check # whether the file has all that is needed here
else
    install "$prefix" "${wheels[0]}[server,gguf,observability]"
fi

{
    echo "#!$prefix/bin/python"
    cat "$source_root/deploy/docker/is_serving.py"
} >"$prefix/bin/is-serving"
chmod 755 "$prefix/bin/is-serving"

# What is in the image, for whoever looks for a vulnerable version: as pip says it, and as CycloneDX.
mkdir -p "$prefix/share/transparent-llm"
install "$scratch/build" cyclonedx-bom
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0} "$scratch/build/bin/cyclonedx-py" environment --output-reproducible \
    --pyproject "$source_root/pyproject.toml" --output-file "$prefix/share/transparent-llm/sbom.cdx.json" \
    "$prefix/bin/python"
"$prefix/bin/python" -m pip freeze >"$prefix/share/transparent-llm/installed.txt"
"$prefix/bin/python" -m pip inspect >"$prefix/share/transparent-llm/installed.json"
"$prefix/bin/python" -m pip uninstall --quiet --yes pip setuptools 2>"$scratch/uninstall.log"
version=$("$prefix/bin/transparent-llm" --version)
made=yes
echo "$version for $variant in $prefix"
