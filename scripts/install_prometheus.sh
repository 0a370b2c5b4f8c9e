#!/usr/bin/env bash
# Debian's package of Prometheus, which tests scrape servers with; nothing where it is there already or apt-get is not.
# The daemon that the package may start is stopped: nobody here asked for it.
set -euo pipefail

if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "no apt-get here: install prometheus and promtool by hand for the tests that use them" >&2
    exit 0
fi
as_root=$(dirname "$0")/as_root.sh
"$as_root" apt-get update --quiet
"$as_root" env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends prometheus
if command -v systemctl >/dev/null; then
    "$as_root" systemctl disable --now prometheus || true
fi
