#!/usr/bin/env bash
# The page that `vlbr overhead --html` writes opens in a real browser: nothing on its console, its table
# and its plot are there. A page with an error shows first that errors are seen.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need chromium

# open PAGE: the page's document to stdout, the browser's log to stderr.
open_page() {
    timeout 120 chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage \
        --user-data-dir="$WORK/profile" --enable-logging=stderr --log-level=0 \
        --virtual-time-budget=2000 --dump-dom "file://$1"
}
errors() { grep -E 'CONSOLE|Uncaught|Refused to' "$1"; }

echo '<!DOCTYPE html><title>e</title><script>undefinedFunction()</script>' >"$WORK/error.html"
open_page "$WORK/error.html" >"$WORK/error.dom" 2>"$WORK/error.log" || true
check "an error on a page is seen" errors "$WORK/error.log"

"$VLBR" overhead "$ROOT/corpus/scenes/loop.toml" --policy v8,naive,ideal --format html -o "$WORK/page.html" \
    >"$WORK/table.txt" 2>"$WORK/vlbr.err"
open_page "$WORK/page.html" >"$WORK/page.dom" 2>"$WORK/page.log" || true
check "the page opens" grep -q '</svg>' "$WORK/page.dom"
check "nothing is on its console" bash -c "! grep -E 'CONSOLE|Uncaught|Refused to' '$WORK/page.log'"
check "it holds the table" grep -q 'naive' "$WORK/page.dom"
check "it asks for nothing outside itself" bash -c "! grep -Eo '(src|href)=\"?https?:' '$WORK/page.dom'"
