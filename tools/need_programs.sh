#!/usr/bin/env bash
# Makes sure that what the tests need of Debian's packages is there: PostgreSQL's server, SoftHSM,
# strace, OpenSSL's command, promtool and systemd-analyze (of which only the programs are used: no server need
# run).
# As root it installs what is missing; anyone else is told what to install.
set -euo pipefail

missing=()
compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null || missing+=(postgresql)
compgen -G "/usr/lib/*/softhsm/libsofthsm2.so" >/dev/null \
    || compgen -G "/usr/lib/softhsm/libsofthsm2.so" >/dev/null || missing+=(softhsm2)
command -v strace >/dev/null || missing+=(strace)
command -v openssl >/dev/null || missing+=(openssl)
command -v promtool >/dev/null || missing+=(prometheus)
command -v systemd-analyze >/dev/null || missing+=(systemd)
[[ ${#missing[@]} -eq 0 ]] && exit 0

if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "The tests need ${missing[*]}: sudo apt-get install ${missing[*]}" >&2
    exit 1
fi
echo "Installing ${missing[*]} for the tests …"
# Debian starts each server that it installs, Prometheus for whoever reaches the machine, unless this says no.
readonly say=/usr/sbin/policy-rc.d
if [[ ! -e $say ]]; then
    trap 'rm -f "$say"' EXIT
    install -m 0755 /dev/stdin "$say" <<<$'#!/bin/sh\nexit 101'
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
