#!/bin/sh
# Unpacks packages of Debian or Ubuntu into .build/FOLDER with a wrapper beside them for each PROGRAM, and prints the path
# of the first wrapper.
#
#     unpack.sh FOLDER PROGRAM[,PROGRAM…] PACKAGE…      # unpack.sh redis usr/bin/redis-server redis-server redis-tools
#
# Needs no root, and runs none of the packages' scripts, which would start a service.
set -eu

folder=$1 programs=$(echo "$2" | tr ',' ' ')
shift 2
packages=$*
name=$(basename "${programs%% *}")
build=$(cd "$(dirname "$0")/../.." && pwd)/.build
wrapper=$build/$folder/$name
if [ -x "$wrapper" ]; then
    echo "$wrapper"
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "$name isn't on PATH, and there is no apt-get to fetch it; install it" >&2
    exit 1
fi

mkdir -p "$build"
work=$(mktemp -d "$build/$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir "$work/debs" "$work/root" "$work/apt"

# Every library that the packages' libraries need, but the C library, which has to be the system's, and JavaScript.
libraries() {
    # shellcheck disable=SC2086  # names of packages, one word each
    apt-cache "$@" depends $packages | sed -n 's/^ *Depends: \(z\{0,1\}lib[^ ]*\)$/\1/p' | grep -v '^libjs-' | sort -u |
        xargs apt-cache "$@" depends -i --recurse | grep '^z\{0,1\}lib' | grep -v -e '^libc6$' -e '^libjs-' | sort -u
}

download() {
    # shellcheck disable=SC2046,SC2086  # names of packages, one word each
    (cd "$work/debs" && apt-get "$@" -q download $packages $(libraries "$@")) >&2
}

echo "$name: unpacking the distribution's packages into $build/$folder" >&2
set --
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

for program in $programs; do
    cat >"$work/$(basename "$program")" <<WRAPPER
#!/bin/sh
root=\$(dirname "\$(readlink -f "\$0")")/root
libraries=\$(find "\$root/lib" "\$root/usr/lib" -maxdepth 1 -name '*-linux-gnu*' 2>/dev/null | tr '\n' ':')
LD_LIBRARY_PATH="\$libraries" exec "\$root/$program" "\$@"
WRAPPER
    chmod 755 "$work/$(basename "$program")"
done
mv -T "$work" "$build/$folder" 2>/dev/null || test -x "$wrapper" # another call may have been faster
echo "$wrapper"
