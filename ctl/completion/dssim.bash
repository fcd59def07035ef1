# bash completion for dssim. Options are those that its own help names; scenarios those of etc/sim and share/ds/sim.
_dssim()
{
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]}
    local commands='run swarm replay whatif' where scenarios=
    if [[ $COMP_CWORD -eq 1 ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands --help --version" -- "$word")
        return
    fi
    case $before in
    --scenario | --faults)
        for where in etc/sim "$(dirname "$(command -v "$program")")/../share/ds/sim"; do
            scenarios+=" $(cd "$where" 2> /dev/null && printf '%s ' *.yaml)"
        done
        [[ $before == --faults ]] && scenarios+=' none'
        compopt -o filenames 2> /dev/null
        mapfile -t COMPREPLY < <(compgen -W "${scenarios//.yaml/}" -- "$word"; compgen -f -- "$word")
        ;;
    -o | --output)
        mapfile -t COMPREPLY < <(compgen -W 'table csv json' -- "$word")
        ;;
    --estimates)
        mapfile -t COMPREPLY < <(compgen -W 'requested actual' -- "$word")
        ;;
    --from | --policy)
        compopt -o filenames 2> /dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        ;;
    *)
        if [[ $word == -* ]]; then
            mapfile -t COMPREPLY < <(compgen -W "$("$program" "${COMP_WORDS[1]}" --help 2> /dev/null |
                grep -oE '^ +(--[a-z-]+|-o)' | tr -d ' ') --help" -- "$word")
        elif [[ ${COMP_WORDS[1]} == replay || ${COMP_WORDS[1]} == whatif ]]; then
            compopt -o filenames 2> /dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
        fi
        ;;
    esac
}
complete -F _dssim dssim
