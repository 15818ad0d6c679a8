# The public header as the body of a manual page: each documented declaration with what its comment says. Doxygen's words (@param,
# @return) are those that the header uses.
function say(text) {
    sub(/^@return/, "\nReturns", text)
    sub(/@return/, "Returns", text)
    if (match(text, /^@param [^ ]+ /))
        text = "\n`" substr(text, 8, RLENGTH - 8) "`: " substr(text, RLENGTH + 1)
    gsub(/[ ]@/, " ", text)
    return text
}
function end_comment() {
    comment = text
    text = ""
    documented = 1
    declaration = ""
}
BEGIN { print "# SYNOPSIS\n\n```\n#include <droppable/droppable.h>\n\ncc ... $(pkg-config --cflags --libs droppable)\n```\n" }
/@file/ { file = 1; next }
/^\/\* ---- .* ---- \*\// { gsub(/^\/\* ---- | ---- \*\//, ""); printf "# %s\n\n", toupper($0); next }
/^\/\*\*.*\*\/$/ { line = $0; gsub(/^\/\*\* ?| ?\*\/$/, "", line); text = say(line); end_comment(); next }
/^\/\*\*/ { inside = 1; line = $0; sub(/^\/\*\* ?/, "", line); text = say(line); next }
inside && /\*\// {
    line = $0
    sub(/ ?\*\/.*/, "", line)
    sub(/^ \* ?/, "", line)
    text = text "\n" say(line)
    inside = 0
    if (file) {
        printf "# DESCRIPTION\n%s\n\n", text
        text = ""
        file = 0
    } else
        end_comment()
    next
}
inside {
    line = $0
    sub(/^ \* ?/, "", line)
    text = text "\n" (line ~ /^    / ? line : say(line))
    next
}
/^(#|extern|}$|$)/ && !documented { next }
documented {
    if ($0 == "") { documented = 0; next }
    declaration = declaration $0 "\n"
    # A struct or enum ends with its brace, all else with a semicolon, a macro with its line.
    if (/^#define/ || ((/;$/ || /;[ ]*\/\*\*.*\*\/$/) && (declaration !~ /\{/ || /^};/))) {
        printf "```\n%s```\n\n%s\n\n", declaration, comment
        documented = 0
    }
}
