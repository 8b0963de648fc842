#!/bin/sh
# Prints the path of a haproxy; nothing is installed and nothing is started.
#
#     "$(deploy/local/haproxy.sh)" -f haproxy.cfg -db       # a balancer, until Ctrl-C
#
# One on PATH serves. Otherwise the distribution's is unpacked into .build/haproxy, without root.
set -eu

for known in haproxy /usr/sbin/haproxy; do # sbin is on root's PATH alone
    if command -v "$known"; then
        exit 0
    fi
done
exec "$(dirname "$0")/unpack.sh" haproxy usr/sbin/haproxy haproxy
