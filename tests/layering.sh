#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Who may include whom, and how long a file may get. Prints each violation with its place; exit 1 if there is one.
# layering-can-fail.sh shows for each rule that it does fail.
#
# usage: layering.sh SOURCE-TREE
set -euo pipefail

MAX_FILE_LINES=600
MAX_FUNCTION_LINES=60

cd "${1:?usage: layering.sh SOURCE-TREE}"
violations=0

violation() { # PLACE TEXT
    printf '%s: %s\n' "$1" "$2"
    violations=$((violations + 1))
}

# All is read at once, and no process is started for a file: this takes a twentieth of the time.
mapfile -t files < <(find include protocol client daemon examples tests bench -name '*.[ch]' -type f 2>/dev/null | LC_ALL=C sort)

if ((${#files[@]} == 0)); then
    echo "layering: no sources in $PWD" >&2
    exit 1
fi

# Of each file: lines "LINE STYLE NAME", STYLE being quote or angle, for each #include.
declare -A includes=()

read_includes() {
    local file line style name
    while IFS=: read -r file line style name; do
        includes[$file]+="$line $style $name"$'\n'
    done < <(awk '
        /^[[:space:]]*#[[:space:]]*include[[:space:]]*["<]/ {
            style = $0 ~ /include[[:space:]]*"/ ? "quote" : "angle"
            sub(/^[^"<]*["<]/, "")
            sub(/[">].*/, "")
            print FILENAME ":" FNR ":" style ":" $0
        }' "${files[@]}")
}

# A quoted include must be found in one of the folders given; an angle include may name no folder of the project but
# droppable/droppable.h, and that only where PUBLIC is yes.
check_folders() { # FILE PUBLIC FOLDER...
    local file=$1 public=$2 line style name folder found
    shift 2
    while read -r line style name; do
        [[ -n $line ]] || continue
        if [[ $name == *..* ]]; then
            violation "$file:$line" "includes \"$name\": no way up, name the header alone"
            continue
        fi
        if [[ $name == droppable/* ]]; then
            if [[ $public != yes ]]; then
                violation "$file:$line" "includes $name, which this folder must not know"
            fi
            continue
        fi
        if [[ $style == angle ]]; then
            if [[ $name =~ ^(client|daemon|protocol|tests|examples|bench)/ ]]; then
                violation "$file:$line" "includes <$name>: project headers are quoted and named alone"
            fi
            continue
        fi
        found=no
        for folder in "$@"; do
            if [[ -f $folder/$name ]]; then
                found=yes
                break
            fi
        done
        if [[ $found == no ]]; then
            violation "$file:$line" "includes \"$name\", which is not in: $*"
        fi
    done <<<"${includes[$file]:-}"
}

# Quoted includes must be among the names given.
check_quoted() { # FILE NAME...
    local file=$1 line style name allowed
    shift
    while read -r line style name; do
        [[ $style == quote ]] || continue
        for allowed in "$@"; do
            [[ $name == "$allowed" ]] && continue 2
        done
        violation "$file:$line" "includes \"$name\", may include of the project only: $*"
    done <<<"${includes[$file]:-}"
}

# The daemon's modules named include none of the headers given.
check_direction() { # MODULES SUFFIX HEADER...
    local modules=$1 suffix=$2 file line style name
    shift 2
    for file in "${files[@]}"; do
        [[ $file =~ ^daemon/(${modules// /|})\.$suffix$ ]] || continue
        while read -r line style name; do
            if [[ $style == quote && " $* " == *" $name "* ]]; then
                violation "$file:$line" "includes \"$name\", which stands above it"
            fi
        done <<<"${includes[$file]:-}"
    done
}

# policy knows no system call.
check_policy() { # FILE
    local file=$1 line style name
    check_quoted "$file" policy.h pages.h policy-age.h policy-lanes.h policy-plan.h policy-span.h
    while read -r line style name; do
        if [[ $style == angle && ! $name =~ ^(std[a-z]+|string|limits|assert)\.h$ ]]; then
            violation "$file:$line" "includes <$name>: policy is pure, it takes structs and returns a plan"
        fi
    done <<<"${includes[$file]:-}"
}

check_layers() {
    local file

    for file in "${files[@]}"; do
        case $file in
        daemon/*) check_folders "$file" yes daemon protocol ;;
        # The library knows neither the command nor the preload library, nor do these know each other.
        client/ctl/*) check_folders "$file" yes client/ctl client protocol ;;
        client/preload/*) check_folders "$file" yes client/preload client protocol ;;
        client/*) check_folders "$file" yes client protocol ;;
        protocol/*) check_folders "$file" no protocol ;;
        examples/*) check_folders "$file" yes ;;
        bench/*) check_folders "$file" yes bench ;;
        include/*) check_folders "$file" no ;;
        esac
        case $file in
        # These know the wire format and themselves.
        protocol/codec.[ch]) check_quoted "$file" wire.h codec.h ;;
        protocol/channel.[ch]) check_quoted "$file" wire.h channel.h ;;
        daemon/policy.[ch] | daemon/policy-*.[ch] | daemon/protection.[ch]) check_policy "$file" ;;
        esac
    done

    # Nobody looks up. From the top: server, handlers; manager; session and pressure; the session's threads; what all
    # stand on. A session's thread knows its session, but its header does not.
    check_direction 'cgroup cgroup-place config domain gate generation kernel limit log mapping policy privs process psi region turns worker' '[ch]' \
        pager.h dropper.h pressure.h session.h manager.h server.h handlers.h
    check_direction 'pager dropper' '[ch]' pressure.h manager.h server.h handlers.h
    check_direction 'pager dropper pressure' h session.h manager.h
    check_direction 'budget budget-groups budget-set move need pressure session manager source watchdog' '[ch]' server.h handlers.h
    check_direction 'session' h manager.h pressure.h
}

check_lengths() {
    local file line lines
    while IFS=: read -r file line lines; do
        if [[ -z $line ]]; then
            violation "$file:$lines" "$lines lines, at most $MAX_FILE_LINES: this is more than one module"
        else
            violation "$file:$line" "a function of $lines lines, at most $MAX_FUNCTION_LINES"
        fi
        # A function: from the line in the first column that opens it (its last line ends with a brace) to the brace in
        # the first column. Initialisers and types are no functions.
    done < <(
        awk -v max="$MAX_FUNCTION_LINES" -v max_file="$MAX_FILE_LINES" '
            function end_file() {
                if (lines > max_file)
                    print file "::" lines
            }
            FNR == 1 { end_file(); file = FILENAME; open = 0; head = "" }
            { lines = FNR }
            /^[A-Za-z_]/ && !open { start = FNR; head = "" }
            !open { head = head $0 }
            !open && /\{[[:space:]]*$/ {
                open = 1
                is_function = head ~ /\)[[:space:]]*\{[[:space:]]*$/ && head !~ /=/
            }
            open && /^\}/ {
                if (is_function && FNR - start + 1 > max)
                    print file ":" start ":" FNR - start + 1
                open = 0
            }
            END { end_file() }' "${files[@]}"
    )
}

read_includes
check_layers
check_lengths

if ((violations > 0)); then
    printf 'layering: %d violation(s)\n' "$violations"
    exit 1
fi
echo "layering: ok"
