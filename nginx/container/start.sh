#!/bin/sh
# nginx as the container's main process, and beside it a watch on the names of the services: nginx asks for their addresses only
# when it starts or reloads, and they change when a service is scaled or made anew.
set -eu

PERIOD_SECONDS=2
# All that can be written to in the container.
PREFIX=/tmp/edge

addresses() { getent ahostsv4 command-api query-api | awk '{print $1}' | sort -u; }

watch() {
    known=$1
    shift
    while sleep "$PERIOD_SECONDS"; do
        now=$(addresses) || continue
        # A reload is refused while a name has no address; then the next round tries again.
        if [ "$now" != "$known" ] && "$@" -s reload; then
            known=$now
        fi
    done
}

mkdir -p "$PREFIX/run"
ln -sfn /edge/web "$PREFIX/web"
set -- nginx -e stderr -p "$PREFIX/" -c /edge/nginx.conf
# nginx does not start without them.
until getent ahostsv4 command-api query-api >/dev/null; do sleep 1; done
watch "$(addresses)" "$@" &
exec "$@"
