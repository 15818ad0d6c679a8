# bash completion for droppabled                                           -*- shell-script -*-
# SPDX-License-Identifier: MIT

_droppabled() {
    local cur=${COMP_WORDS[COMP_CWORD]}

    case ${COMP_WORDS[COMP_CWORD - 1]} in
    -l | --log-level) mapfile -t COMPREPLY < <(compgen -W "error warning notice info debug" -- "$cur") ;;
    -c | --config | -r | --record | -s | --socket) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "--config --log-level --record --socket --help --usage --version" -- "$cur") ;;
    esac
}

complete -F _droppabled droppabled
