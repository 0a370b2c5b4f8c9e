#!/bin/sh
# Build the application here with the library installed, static and shared, and with the project's sources; run each.
#
#   build_both_ways.sh FOLDER [JOBS]

set -eu

here=$(cd "$(dirname "$0")" && pwd)
library=$(cd "$here/../.." && pwd)
project=$(cd "$library/../.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
jobs=${2:-2}

build() { # FOLDER SOURCES [OPTION ...]
    built=$1 sources=$2
    shift 2
    cmake -S "$sources" -B "$built" -G Ninja -DCMAKE_BUILD_TYPE=Release "$@" >"$built.log" 2>&1 &&
        cmake --build "$built" --parallel "$jobs" >>"$built.log" 2>&1 || {
        cat "$built.log" >&2
        return 1
    }
}

for shared in OFF ON; do
    build "$folder/library-$shared" "$library" -DBUILD_SHARED_LIBS=$shared \
        -DCMAKE_INSTALL_PREFIX="$folder/installed-$shared"
    cmake --install "$folder/library-$shared" >/dev/null
    build "$folder/found-$shared" "$here" -DCMAKE_PREFIX_PATH="$folder/installed-$shared"
    echo "find_package, BUILD_SHARED_LIBS=$shared: $("$folder/found-$shared/consumer")"
done

build "$folder/fetched" "$here" -DCONSUMER_FETCHES="$project"
echo "FetchContent: $("$folder/fetched/consumer")"
