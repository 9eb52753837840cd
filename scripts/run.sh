#!/usr/bin/env bash
# The first minute with PixyProxy: a database, an administrator's key, a picture, and a server that stays.
set -euo pipefail

host=${HOST:-127.0.0.1}
port=${PORT:-8000}
url="http://$host:$port"
bin=${VENV:-.venv}/bin

# Before the key is made: it would be sent to whoever has the port.
if ! $bin/python -c 'import socket, sys; socket.create_server((sys.argv[1], int(sys.argv[2])))' "$host" "$port" 2>/dev/null; then
  echo "Port $port of $host cannot be used: it is taken, or is none. Try: make run PORT=8001" >&2
  exit 1
fi

# By itself: where settings are wrong, what it says of them is all there is to say.
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
    sys.exit("The server did not come up.")
PYTHON
  if picture=$(PIXYPROXY_API_KEY=$key $bin/pixyproxy generate --url "$url" "a lighthouse above a quiet sea at sunset"); then
    printf '\nFirst picture: %s\nGallery:       %s\n\n' "$picture" "$url"
  else
    printf '\nThere is no first picture, for the reason above. Gallery: %s\n\n' "$url"
  fi
}

if [ -n "$key" ]; then
  printf '\nThe administrator'"'"'s API key, shown only now. For the examples, in another terminal:\n\n'
  printf '  export PIXYPROXY_API_KEY=%s\n\n' "$key"
  make_first_picture &
else
  printf '\nData and pictures are kept from the last run. Gallery: %s\n' "$url"
  printf 'Is the key lost? .venv/bin/pixyproxy key list, then key rotate GUID, which gives it a new secret.\n\n'
fi
exec $bin/pixyproxy serve --host "$host" --port "$port"
