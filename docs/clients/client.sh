#!/bin/sh
# Coracle from a shell, with nc alone: put, get, and a retry with a session.
#
# Usage: sh client.sh [HOST PORT]
host=${1:-127.0.0.1} port=${2:-3001}

# Sends requests, a line each, over one connection, and prints the replies. With -N nc ends when all are answered.
ask() {
    printf '%s\n' "$@" | nc -N "$host" "$port"
}

# Retries a write until its outcome is known. The server applies it once, however often it arrives.
write() {
    for attempt in 1 2 3 4 5 6 7 8 9 10; do
        reply=$(ask "$1")
        case $reply in
        *'"error":"no_leader"'* | *'"error":"busy"'*) sleep 1 ;;
        *'"status":"ok"'* | *'"definite":true'*) echo "$reply" && return ;;
        esac
    done
    echo 'the outcome is unknown' >&2
    exit 1
}

ask '{"op":"put","key":"snack","value":"chips"}' '{"op":"get","key":"snack"}'
client=$(od -An -N8 -tx1 /dev/urandom | tr -d ' ') # A name that no other client uses.
create='{"op":"cas","key":"'$client'","expect":null,"value":1,"session":{"client":"'$client'","seq":'
write "$create"'1}}'
write "$create"'1}}'
write "$create"'2}}'
