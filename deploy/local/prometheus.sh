#!/bin/sh
# Prints the path of a prometheus, with promtool beside it; nothing is installed and nothing is started.
#
#     "$(deploy/local/prometheus.sh)" --config.file deploy/prometheus/prometheus.yml      # until Ctrl-C
#     "$(dirname "$(deploy/local/prometheus.sh)")/promtool" check rules deploy/prometheus/rules/*.yml
#
# One on PATH serves (2.42 or newer). Otherwise the distribution's is unpacked into .build/prometheus, without root.
set -eu

if command -v promtool >/dev/null && command -v prometheus; then
    exit 0
fi
exec "$(dirname "$0")/unpack.sh" prometheus usr/bin/prometheus,usr/bin/promtool prometheus
