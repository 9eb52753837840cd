#!/usr/bin/env bash
# Start PixyProxy for the first time: a database, an administrator's key, a first picture, and a running server.
set -euo pipefail

host=${HOST:-127.0.0.1}
port=${PORT:-8000}
url="http://$host:$port"
bin=${VENV:-.venv}/bin

# Check before making the key: it would be sent to the process that has the port.
if ! $bin/python -c 'import socket, sys; socket.create_server((sys.argv[1], int(sys.argv[2])))' "$host" "$port" 2>/dev/null; then
  echo "Cannot bind $host:$port: the address is in use or invalid. Try: make run PORT=8001" >&2
  exit 1
fi

# A separate command, so that its error message is the last output if a setting is wrong.
issued=$($bin/pixyproxy bootstrap --json)
key=$($bin/python -c 'import json, sys; print(json.load(sys.stdin)["api_key"] or "")' <<<"$issued")

make_first_picture() {
  $bin/python - "$url/healthz" <<'PYTHON' || return
import sys, time, urllib.request
for _ in range(300):
    try:
        urllib.request.urlopen(sys.argv[1], timeout=1)
        break
    except OSError:
        time.sleep(0.1)
else:
    sys.exit("The server did not start; see its log above.")
PYTHON
  if picture=$(PIXYPROXY_API_KEY=$key $bin/pixyproxy generate --url "$url" "a lighthouse above a quiet sea at sunset"); then
    printf '\nFirst picture: %s\nGallery:       %s\n\n' "$picture" "$url"
  else
    printf '\nThe first picture failed; see the error above. Gallery: %s\n\n' "$url"
  fi
}

if [ -n "$key" ]; then
  printf '\nThe administrator'"'"'s API key, shown only once. To run the examples in another terminal:\n\n'
  printf '  export PIXYPROXY_API_KEY=%s\n\n' "$key"
  make_first_picture &
else
  printf '\nUsing the data and pictures of the last run. Gallery: %s\n' "$url"
  printf 'If the key is lost, replace it: .venv/bin/pixyproxy key list, then .venv/bin/pixyproxy key rotate GUID\n\n'
fi
exec $bin/pixyproxy serve --host "$host" --port "$port"
