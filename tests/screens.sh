#!/bin/sh
# Install what the tests of `make test-ui` need from the system, where it is missing and may be installed: Chromium, and what Qt links to.
# Without it the tests are skipped with a reason; nothing fails here.
python=$1
missing=""
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing="chromium"
"$python" -c "import PySide6.QtWidgets" 2>/dev/null || missing="$missing libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq >/dev/null 2>&1
  # shellcheck disable=SC2086
  apt-get install -y -qq $missing >/dev/null 2>&1 && exit 0
fi
echo "missing: $missing; the tests that need it are skipped (install it with the system's package manager)"
