#!/bin/sh
# Prints the path of a prometheus, with promtool beside it; nothing is installed and nothing is started.
#
#     "$(deploy/local/prometheus.sh)" --config.file deploy/prometheus/prometheus.yml      # until Ctrl-C
#     "$(dirname "$(deploy/local/prometheus.sh)")/promtool" check rules deploy/prometheus/rules/*.yml
#
# One on PATH serves. Otherwise Debian's or Ubuntu's package is unpacked into .build/prometheus: that needs no root, and
# runs none of its scripts, which would start a service. Both programs need the C library alone.
set -eu

if command -v promtool >/dev/null && command -v prometheus; then
    exit 0
fi
build=$(cd "$(dirname "$0")/../.." && pwd)/.build
binary=$build/prometheus/prometheus
if [ -x "$binary" ]; then
    echo "$binary"
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo 'prometheus.sh: no prometheus on PATH, and no apt-get to fetch one; install Prometheus 2.42 or newer' >&2
    exit 1
fi

mkdir -p "$build"
work=$(mktemp -d "$build/prometheus.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir "$work/debs" "$work/root" "$work/apt" "$work/ready"

download() {
    (cd "$work/debs" && apt-get "$@" -q download prometheus) >&2
}

echo "prometheus: unpacking the distribution's package into $build/prometheus" >&2
if ! download 2>/dev/null; then # no lists yet, or old ones: fresh ones of our own, the system's stay as they are
    mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
    set -- -o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache" -o APT::Sandbox::User=
    apt-get "$@" -q update >&2
    download "$@"
fi
for deb in "$work"/debs/*.deb; do
    dpkg-deb -x "$deb" "$work/root"
done
mv "$work/root/usr/bin/prometheus" "$work/root/usr/bin/promtool" "$work/ready"
"$work/ready/prometheus" --version >&2
chmod 755 "$work/ready"
mv -T "$work/ready" "$build/prometheus" 2>/dev/null || test -x "$binary" # another call may have been faster
echo "$binary"
