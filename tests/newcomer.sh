#!/usr/bin/env bash
# What the README promises a newcomer: `make run`, then one curl. Ends what it starts.
set -euo pipefail
cd "$(dirname "$0")/.."
port=$("${PYTHON:-python3}" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
log=$(mktemp)
GATEWAY_PORT=$port setsid make run >"$log" 2>&1 &
group=$!
trap 'kill -TERM -- -"$group" 2>/dev/null || true; wait "$group" 2>/dev/null || true; rm -f "$log"' EXIT
for _ in $(seq 1200); do
  curl -fs "http://127.0.0.1:$port/readyz" >/dev/null 2>&1 && break
  kill -0 "$group" 2>/dev/null || { cat "$log"; echo 'newcomer: make run ended'; exit 1; }
  sleep 1
done
answer=$(curl -fsS --data-binary @docs/astronaut.jpg "http://127.0.0.1:$port/v1/detect")
echo "$answer" | "${PYTHON:-python3}" -c '
import json, sys
answer = json.load(sys.stdin)
assert {"detections", "branch", "models_used", "model_signature"} <= set(answer), answer
assert answer["image"] == {"width": 512, "height": 512}, answer["image"]
print("newcomer:", answer["branch"]["name"], answer["models_used"][0]["weights"], len(answer["detections"]), "boxes")
'
grep -q 'try it: curl' "$log" || { cat "$log"; echo 'newcomer: no curl line'; exit 1; }
echo '1 passed, 0 failed'
