#!/bin/sh
# Prints the path of a Chromium; nothing is installed and nothing is started.
#
# One on PATH serves. Otherwise the distribution's is unpacked into .build/chromium (420 MB), without root.
set -eu

if command -v chromium; then
    exit 0
fi
exec "$(dirname "$0")/unpack.sh" chromium usr/lib/chromium/chromium chromium chromium-common
