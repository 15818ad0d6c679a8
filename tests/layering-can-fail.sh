#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Shows that layering.sh can fail: makes small source trees, a good one and one with a single violation for each rule, and
# expects its word about each.
set -euo pipefail

layering=$(cd "$(dirname "$0")" && pwd)/layering.sh
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0

repeat() { # COUNT LINE
    local i
    for ((i = 0; i < $1; i++)); do
        printf '%s\n' "$2"
    done
}

good_tree() {
    rm -rf "$scratch/tree"
    mkdir -p "$scratch"/tree/{daemon,client/ctl,client/preload,protocol,include/droppable,examples,bench,tests/unit}
    cd "$scratch/tree"
    echo '#include <stdint.h>' >protocol/wire.h
    echo '#include <stdint.h>' >protocol/pages.h
    printf '#include "codec.h"\n#include "wire.h"\n#include <errno.h>\n' >protocol/codec.c
    echo '#include "wire.h"' >protocol/codec.h
    printf '#include "policy.h"\n#include <stdlib.h>\n' >daemon/policy.c
    echo '#include "pages.h"' >daemon/policy.h
    printf '#include "policy.h"\n#include "wire.h"\n#include <droppable/droppable.h>\n' >daemon/manager.c
    touch daemon/gate.c daemon/manager.h daemon/server.h daemon/session.h daemon/pager.h client/watcher.h client/ctl/print.h client/preload/table.h include/droppable/droppable.h
    printf '#include "watcher.h"\n#include "wire.h"\n' >client/pin.c
    printf '#include "print.h"\n#include "watcher.h"\n' >client/ctl/main.c
    printf '#include "table.h"\n#include "watcher.h"\n#include "wire.h"\n' >client/preload/preload.c
    echo '#include <droppable/droppable.h>' >examples/cache.c
    printf '#include "rows.h"\n#include <droppable/droppable.h>\n' >bench/touch.c
    touch bench/rows.h
    # A function of 60 lines, a file of 600.
    { echo 'int x(void) {' && repeat 58 '    y();' && echo '}' && echo '#include "session.h"'; } >daemon/pager.c
    repeat 600 '/* */' >tests/unit/test-x.c
}

expect() { # pass|fail DESCRIPTION [EXPECTED-TEXT]
    local want=$1 what=$2 text=${3:-} got=pass output
    output=$("$layering" "$scratch/tree" 2>&1) || got=fail
    if [[ $got != "$want" || ($want == fail && $output != *"$text"*) ]]; then
        printf 'FAILED: %s: expected %s%s, got %s:\n%s\n' "$what" "$want" "${text:+ with \"$text\"}" "$got" "$output"
        failures=$((failures + 1))
    else
        printf 'ok: %s\n' "$what"
    fi
}

expect_violation() { # DESCRIPTION FILE LINE-TO-APPEND EXPECTED-TEXT
    good_tree
    printf '%s\n' "$3" >>"$2"
    expect fail "$1" "$4"
}

good_tree
expect pass 'a tree that keeps all rules'

expect_violation 'daemon includes a client header' daemon/manager.c '#include "watcher.h"' '"watcher.h", which is not in: daemon protocol'
expect_violation 'daemon reaches it by path' daemon/manager.c '#include "../client/watcher.h"' 'no way up'
expect_violation 'daemon reaches it by angle' daemon/manager.c '#include <client/watcher.h>' 'quoted and named alone'
expect_violation 'client includes a daemon header' client/pin.c '#include "manager.h"' '"manager.h", which is not in: client protocol'
expect_violation 'spaces do not hide it' client/pin.c ' #  include "manager.h"' '"manager.h", which is not in'
expect_violation 'droppablectl includes a daemon header' client/ctl/main.c '#include "manager.h"' '"manager.h", which is not in'
expect_violation 'the library includes a droppablectl header' client/pin.c '#include "print.h"' '"print.h", which is not in'
expect_violation 'the library includes a header of the preload library' client/pin.c '#include "table.h"' '"table.h", which is not in: client protocol'
expect_violation 'the preload library includes a droppablectl header' client/preload/preload.c '#include "print.h"' '"print.h", which is not in'
expect_violation 'droppablectl includes a header of the preload library' client/ctl/main.c '#include "table.h"' '"table.h", which is not in'
expect_violation 'the preload library includes a daemon header' client/preload/preload.c '#include "manager.h"' '"manager.h", which is not in'
expect_violation 'protocol includes the public header' protocol/wire.h '#include <droppable/droppable.h>' 'must not know'
expect_violation 'protocol includes a daemon header' protocol/pages.h '#include "policy.h"' '"policy.h", which is not in: protocol'
expect_violation 'the public header includes a private one' include/droppable/droppable.h '#include "wire.h"' '"wire.h", which is not in'
expect_violation 'an example includes a private header' examples/cache.c '#include "wire.h"' '"wire.h", which is not in'
expect_violation 'bench includes a private header' bench/touch.c '#include "wire.h"' '"wire.h", which is not in: bench'
expect_violation 'codec knows more than the wire format' protocol/codec.c '#include "pages.h"' 'may include of the project only: wire.h codec.h'
expect_violation 'policy includes a project header' daemon/policy.c '#include "pager.h"' 'may include of the project only: policy.h pages.h'
expect_violation 'policy includes a system header' daemon/policy.h '#include <unistd.h>' 'policy is pure'
expect_violation 'a session thread looks up' daemon/pager.c '#include "manager.h"' '"manager.h", which stands above it'
expect_violation 'a session thread has its session in its header' daemon/pager.h '#include "session.h"' '"session.h", which stands above it'
expect_violation 'the ground looks up' daemon/gate.c '#include "pager.h"' '"pager.h", which stands above it'
expect_violation 'the manager looks up' daemon/manager.c '#include "server.h"' '"server.h", which stands above it'
expect_violation 'a file of 601 lines' tests/unit/test-x.c '/* */' '601 lines, at most 600'

good_tree
sed -i '2i\    y();' daemon/pager.c
expect fail 'a function of 61 lines' 'a function of 61 lines'

exit $((failures > 0))
