# bash completion for droppablectl                                         -*- shell-script -*-
# SPDX-License-Identifier: MIT

# What a verb takes, besides --json and --socket.
_droppablectl_options() { # VERB
    case $1 in
    drop) echo --all --region --pid ;;
    free) echo --cgroup ;;
    limit) echo --region --pid --user --cgroup --budget --quota --share --priority ;;
    why) printf "%s\n" -n ;;
    esac
}

_droppablectl() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb='' verb_at=0 i
    local verbs="status list why drop free limit probe run"

    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --socket | --region | --pid | --user | --cgroup | --budget | --quota | --share | --priority | -n) ((i++)) ;;
        -*) ;;
        *) verb=${COMP_WORDS[i]} verb_at=$i && break ;;
        esac
    done

    # From here on it is another program's command line.
    if [[ $verb == run ]]; then
        if declare -F _command_offset >/dev/null; then
            [[ ${COMP_WORDS[verb_at + 1]:-} != -- ]] || ((verb_at++))
            _command_offset $((verb_at + 1))
        else
            mapfile -t COMPREPLY < <(compgen -c -- "$cur")
        fi
        return
    fi

    case $prev in
    --socket)
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    --priority)
        mapfile -t COMPREPLY < <(compgen -W "low normal high default" -- "$cur")
        return
        ;;
    --budget | --quota)
        mapfile -t COMPREPLY < <(compgen -W "infinity default" -- "$cur")
        return
        ;;
    --share)
        mapfile -t COMPREPLY < <(compgen -W "default" -- "$cur")
        return
        ;;
    --user)
        mapfile -t COMPREPLY < <(compgen -u -- "$cur")
        return
        ;;
    --pid)
        mapfile -t COMPREPLY < <(compgen -W "$(cd /proc && echo [0-9]*)" -- "$cur")
        return
        ;;
    --region | --cgroup | -n) return ;;
    esac

    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "--json --socket --help --usage --version $(_droppablectl_options "$verb")" -- "$cur")
    elif [[ -z $verb ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$verbs" -- "$cur")
    fi
}

complete -F _droppablectl droppablectl
