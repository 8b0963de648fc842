#!/bin/sh
# Prints the path of a redis-server; nothing is installed and nothing is started.
#
#     "$(deploy/local/redis.sh)" --port 6379 --save ''      # a Redis for sessions, until Ctrl-C
#
# One on PATH serves. Otherwise the distribution's is unpacked into .build/redis, without root.
set -eu

if command -v redis-server; then
    exit 0
fi
exec "$(dirname "$0")/unpack.sh" redis usr/bin/redis-server redis-server redis-tools
