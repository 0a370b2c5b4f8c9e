#!/bin/sh
# Build the application here with the library installed, static (from a build of it) and shared, and with the project's
# sources; run each.
#
#   build_both_ways.sh BUILD FOLDER [JOBS]

set -eu

here=$(cd "$(dirname "$0")" && pwd)
library=$(cd "$here/../.." && pwd)
project=$(cd "$library/../.." && pwd)
mkdir -p "$2"
static=$(cd "$1" && pwd) folder=$(cd "$2" && pwd) jobs=${3:-2}

build() { # FOLDER SOURCES [OPTION ...]
    built=$1 sources=$2
    shift 2
    cmake -S "$sources" -B "$built" -G Ninja -DCMAKE_BUILD_TYPE=Release "$@" >"$built.log" 2>&1 &&
        cmake --build "$built" --parallel "$jobs" >>"$built.log" 2>&1 || {
        cat "$built.log" >&2
        return 1
    }
}

find_installed() { # NAME BUILD
    cmake --install "$2" --prefix "$folder/installed-$1" >"$folder/install-$1.log"
    build "$folder/found-$1" "$here" -DCMAKE_PREFIX_PATH="$folder/installed-$1"
    echo "find_package, $1: $("$folder/found-$1/consumer")"
}

main() { # in a function, which the shell has read whole before it runs
    find_installed static "$static"
    build "$folder/shared" "$library" -DBUILD_SHARED_LIBS=ON
    find_installed shared "$folder/shared"
    build "$folder/fetched" "$here" -DCONSUMER_FETCHES="$project"
    echo "FetchContent: $("$folder/fetched/consumer")"
}

main
