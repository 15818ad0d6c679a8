# The configuration file as sections of its manual page. A comment tells about the keys below it; one that ends with an empty
# comment line is about all that follow.
function flush() {
    if (keys != "")
        printf "%s\n: %s\n\n", keys, text != "" ? text : "As above."
    keys = text = ""
}
/^\[/ { flush(); printf "# %s\n\n", toupper($0); started = 1; next }
!started { next }
/^#[A-Z][A-Za-z]*=/ { keys = keys (keys == "" ? "" : ", ") "`" substr($0, 2) "`"; next }
/^#$/ { printf "%s\n\n", text; text = ""; next }
/^# / { if (keys != "") flush(); text = text (text == "" ? "" : "\n  ") substr($0, 3); next }
{ flush() }
END { flush() }
