#!/bin/sh
# Create a virtual environment with the first Python on the PATH that is new enough.
#
#   sh scripts/venv.sh DIRECTORY [INTERPRETER]
set -eu

directory=$1
wanted=${2:-}

# A name on the PATH may be a shim without a Python behind it, so each one is run.
suits() {
    "$1" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 14)))' >/dev/null 2>&1
}

# Remove only folders that look like a virtual environment, complete or incomplete.
unmake() {
    if [ -e "$directory/pyvenv.cfg" ]; then rm -rf "$directory"; fi
}

for python in ${wanted:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
    if suits "$python"; then
        unmake
        if "$python" -m venv "$directory" >/dev/null 2>&1; then
            exit 0
        fi
        # Debian has the installer of venv in a package of its own; virtualenv contains one.
        unmake
        if "$python" -m virtualenv -q "$directory" >/dev/null 2>&1; then
            exit 0
        fi
        broken=$python
    fi
done

if [ -n "${broken:-}" ]; then
    echo "$broken cannot make virtual environments. On Debian or Ubuntu: apt-get install python3-venv" >&2
else
    echo "No Python 3.11 to 3.14 was found${wanted:+ under the name $wanted}. Install one, or name it: make test PYTHON=/path/to/python3" >&2
fi
exit 1
