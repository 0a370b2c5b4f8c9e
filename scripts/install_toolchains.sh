#!/usr/bin/env bash
# Debian's packages that the clients in other languages are built and tested with; nothing for those that are there already.
# Node.js 20 or newer is taken as it is found: Debian 12 has 18.
set -euo pipefail

packages=(
    g++ cmake ninja-build pkg-config libgrpc++-dev libssl-dev protobuf-compiler protobuf-compiler-grpc libgtest-dev nlohmann-json3-dev
    clang libclang-rt-dev
    golang-go golang-google-grpc-dev golang-github-golang-protobuf-1-5-dev protoc-gen-go-1-5 protoc-gen-go-grpc
    chromium
)
if ! command -v node >/dev/null || ! command -v npm >/dev/null || [ "$(node --print 'process.versions.node.split(".")[0] >= 20')" != true ]; then
    echo "Node.js 20 or newer with npm is needed for clients/typescript: install it from nodejs.org or your distribution" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "no apt-get here: install what stands for ${packages[*]} by hand" >&2
    exit 1
fi
missing=()
for package in "${packages[@]}"; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep --quiet '^installed$' || missing+=("$package")
done
if [ ${#missing[@]} = 0 ]; then
    exit 0
fi
as_root=$(dirname "$0")/as_root.sh
"$as_root" apt-get update --quiet
"$as_root" env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends "${missing[@]}"
