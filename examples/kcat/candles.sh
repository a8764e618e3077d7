#!/bin/sh
# Print the 1m candles, one JSON object per line, for ever; with -e only those that are there.
# ALPHA_PULSE_KAFKA=127.0.0.1:19092 sh candles.sh [-e]
set -eu
topic="${ALPHA_PULSE_NAMESPACE:+$ALPHA_PULSE_NAMESPACE.}market.candles.1m.v1"
exec kcat -b "${ALPHA_PULSE_KAFKA:-127.0.0.1:19092}" -X isolation.level=read_committed \
  -C -q -t "$topic" -o beginning "$@"
