# bash completion for dsctl. The candidates come from dsctl itself: see ctl/complete.h.
_dsctl()
{
    local word=${COMP_WORDS[COMP_CWORD]} line
    local -a words=("${COMP_WORDS[@]:1:COMP_CWORD}")
    # With "=" among COMP_WORDBREAKS, --name=value comes as three words.
    if [[ $word == '=' ]]; then
        word=
    fi
    local -a joined=()
    local w
    for w in "${words[@]}"; do
        if [[ $w == '=' && ${#joined[@]} -gt 0 ]]; then
            joined+=('')
        elif [[ ${#joined[@]} -gt 0 && -z ${joined[-1]} && $w != -* ]]; then
            joined[-1]=$w
        else
            joined+=("$w")
        fi
    done
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == :file ]]; then
            compopt -o filenames 2> /dev/null
            mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$word")
        else
            COMPREPLY+=("${line%%$'\t'*}")
        fi
    done < <("${COMP_WORDS[0]}" __complete "${joined[@]}" 2> /dev/null)
}
complete -F _dsctl dsctl
