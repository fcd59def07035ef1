#!/bin/sh
# Installs what is missing of etc/packages.debian with apt-get, as root or through sudo. All there: says nothing, takes milliseconds.
# A line of the list may name alternatives, `a | b`: the first that apt knows is taken.
set -eu
list=$(dirname "$0")/packages.debian

die() {
    echo "deps: $*" >&2
    exit 1
}

command -v dpkg-query >/dev/null ||
    die "this is not Debian or Ubuntu: install the counterparts of the packages in $list, then use DEPS=no"

# Word splitting is wanted all over here.
# shellcheck disable=SC2046,SC2086
{
    installed=" $(dpkg-query -W -f '${Package} ${db:Status-Status}\n' $(sed 's/#.*//; s/|/ /g' "$list") \
        2>/dev/null | sed -n 's/ installed$//p' | tr '\n' ' ')"

    # Prints the alternatives of each line of which none is installed, one line each.
    missing_lines() {
        sed 's/#.*//; s/|/ /g' "$list" | while read -r names; do
            for name in $names; do
                case $installed in *" $name "*) continue 2 ;; esac
            done
            [ -z "$names" ] || echo "$names"
        done
    }
    missing=$(missing_lines)
    [ -n "$missing" ] || exit 0

    # The first alternative that apt knows.
    chosen() {
        echo "$missing" | while read -r names; do
            pick=
            for name in $names; do
                if [ -z "$pick" ] && apt-cache show "$name" >/dev/null 2>&1; then
                    pick=$name
                fi
            done
            echo "${pick:-${names%% *}}"
        done | tr '\n' ' '
    }

    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        as_root=sudo
    else
        die "packages are missing; as root: apt-get install $(chosen)"
    fi

    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    apt() {
        $as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1 </dev/null || {
            cat "$log" >&2
            die "apt-get $1 failed, see above"
        }
    }
    apt update
    packages=$(chosen)
    echo "deps: installing $packages"
    apt install -y --no-install-recommends $packages
}
