#!/bin/sh
# Run the proxy for two services on this machine, whatever they are written in.
# STABLE_URL and GRAY_URL are their URLs; PORT is the port of the proxy.
exec canary-mw serve --rules "$(dirname "$0")/rules" --port "${PORT:-8080}" \
  --upstream "service-stable=${STABLE_URL:-http://127.0.0.1:9001}" \
  --upstream "service-gray=${GRAY_URL:-http://127.0.0.1:9002}"
