#!/bin/sh
# Run the proxy in front of a shop, with a rate limiter that it asks about each request.
# SHOP_URL and LIMITER_URL are their URLs; PORT is the port of the proxy.
exec canary-mw serve --rules "$(dirname "$0")/rules" --port "${PORT:-8080}" \
  --upstream "shop=${SHOP_URL:-http://127.0.0.1:9001}" \
  --upstream "limiter=${LIMITER_URL:-http://127.0.0.1:8081}"
