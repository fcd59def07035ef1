#!/bin/sh
# Installs what is missing of etc/packages.debian with apt-get, as root or through sudo. All there: says nothing, takes milliseconds.
# A line of the list may name alternatives, `a | b`: the first that apt knows is taken.
set -eu
list=$(dirname "$0")/packages.debian

say() { echo "deps: $*" >&2; }

if ! command -v dpkg-query >/dev/null; then
    say "this is not Debian or Ubuntu: install the counterparts of the packages in $list, then use DEPS=no"
    exit 1
fi

names=$(sed 's/#.*//; s/|/ /g' "$list")
# shellcheck disable=SC2086  # the names are to be split
installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' $names 2>/dev/null |
    sed -n 's/ installed$//p' | tr '\n' ' ')
is_installed() { case " $installed" in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

missing=
while IFS= read -r line; do
    alternatives=$(echo "${line%%#*}" | tr '|' ' ')
    found=no
    for name in $alternatives; do
        is_installed "$name" && found=yes
    done
    # shellcheck disable=SC2086
    if [ "$found" = no ] && [ -n "$alternatives" ]; then
        missing="$missing $(echo $alternatives | tr ' ' '|')"
    fi
done <"$list"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    as_root=sudo
else
    say "missing packages:$missing: run as root: apt-get install$missing"
    exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 \
        "$@" >"$log" 2>&1 </dev/null || {
        cat "$log" >&2
        say "apt-get $1 failed: see the lines above; missing packages:$missing"
        exit 1
    }
}
apt update
wanted=
for choice in $missing; do
    pick=${choice%%|*}
    for name in $(echo "$choice" | tr '|' ' '); do
        if apt-cache show "$name" >/dev/null 2>&1; then
            pick=$name
            break
        fi
    done
    wanted="$wanted $pick"
done
say "installing$wanted"
# shellcheck disable=SC2086
apt install -y --no-install-recommends $wanted
