# A page of docs/ as the body of a manual page: its title is the page's name, its sections go up a level.
NR == 1 && /^# / { print "# DESCRIPTION"; next }
/^```/ { code = !code }
!code && /^## / { print "# " toupper(substr($0, 4)); next }
!code && /^###+ / { sub(/^#/, "") }
{ print }
