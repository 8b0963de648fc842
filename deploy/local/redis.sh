#!/bin/sh
# Prints the path of a redis-server; nothing is installed and nothing is started.
#
#     "$(deploy/local/redis.sh)" --port 6379 --save ''      # a Redis for sessions, until Ctrl-C
#
# One on PATH serves. Otherwise Debian's or Ubuntu's packages are unpacked into .build/redis: that needs no root, and
# runs none of their scripts, which would start a service.
set -eu

if command -v redis-server; then
    exit 0
fi
build=$(cd "$(dirname "$0")/../.." && pwd)/.build
wrapper=$build/redis/redis-server
if [ -x "$wrapper" ]; then
    echo "$wrapper"
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo 'redis.sh: no redis-server on PATH, and no apt-get to fetch one; install Redis 6 or newer' >&2
    exit 1
fi

mkdir -p "$build"
work=$(mktemp -d "$build/redis.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir "$work/debs" "$work/root" "$work/apt"

# Every library that Redis' libraries need, but the C library: that has to be the system's.
libraries() {
    apt-cache "$@" depends redis-tools | sed -n 's/^ *Depends: \(lib[^ ]*\)$/\1/p' |
        xargs apt-cache "$@" depends -i --recurse | grep '^lib' | grep -v '^libc6$' | sort -u
}

download() {
    packages="redis-server redis-tools $(libraries "$@")"
    # shellcheck disable=SC2086  # names of packages, one word each
    (cd "$work/debs" && apt-get "$@" -q download $packages) >&2
}

echo "redis-server: unpacking the distribution's packages into $build/redis" >&2
if ! download 2>/dev/null; then # no lists yet, or old ones: fresh ones of our own, the system's stay as they are
    mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
    set -- -o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache" -o APT::Sandbox::User=
    apt-get "$@" -q update >&2
    download "$@"
fi
for deb in "$work"/debs/*.deb; do
    dpkg-deb -x "$deb" "$work/root"
done
rm -rf "$work/debs" "$work/apt"

cat >"$work/redis-server" <<'WRAPPER'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
libraries=$(find "$root/lib" "$root/usr/lib" -maxdepth 1 -name '*-linux-gnu*' 2>/dev/null | tr '\n' ':')
LD_LIBRARY_PATH="$libraries" exec "$root/usr/bin/redis-server" "$@"
WRAPPER
chmod 755 "$work/redis-server"
"$work/redis-server" --version >&2
mv -T "$work" "$build/redis" 2>/dev/null || test -x "$wrapper" # another call may have been faster
echo "$wrapper"
