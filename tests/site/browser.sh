#!/usr/bin/env bash
# Print the path of a Chromium that the browser tests can drive, getting one if need be:
# the one on PATH, else Playwright's own, else Debian's package.
set -u
python="${1:-python3}"

on_path() {
  local name
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" && return 0
  done
  return 1
}

playwrights() {
  "$python" - <<'PY'
import pathlib, sys
from playwright.sync_api import sync_playwright
with sync_playwright() as p:
    path = p.chromium.executable_path
if not pathlib.Path(path).exists():
    sys.exit(1)
print(path)
PY
}

on_path && exit 0
playwrights 2>/dev/null && exit 0
echo "no Chromium yet: asking Playwright for one" >&2
timeout 300 "$python" -m playwright install chromium >/dev/null 2>&1
playwrights 2>/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "no Chromium yet: installing Debian's" >&2
  { timeout 300 apt-get update -qq && timeout 900 apt-get install -y -qq chromium; } >/dev/null 2>&1
  on_path && exit 0
fi
cat >&2 <<'MSG'
The browser tests need Chromium, and none could be found or installed. Get one of these:
  sudo apt-get install chromium                  (Debian, Ubuntu)
  .venv/bin/python -m playwright install chromium (any system, from Playwright's servers)
or put any chromium on PATH. Then run `make test` again.
MSG
exit 1
