#compdef netconsole-agent

autoload -U is-at-least

_netconsole-agent() {
    typeset -A opt_args
    typeset -a _arguments_options
    local ret=1

    if is-at-least 5.2; then
        _arguments_options=(-s -S -C)
    else
        _arguments_options=(-s -C)
    fi

    local context curcontext="$curcontext" state line
    _arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
'-V[Print version]' \
'--version[Print version]' \
":: :_netconsole-agent_commands" \
"*::: :->netconsole-agent" \
&& ret=0
    case $state in
    (netconsole-agent)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:netconsole-agent-command-$line[1]:"
        case $line[1] in
            (run)
_arguments "${_arguments_options[@]}" : \
'--config=[The configuration, with targets.d/*.toml beside it \[default\: agent.toml and targets.d/*.toml in /usr/lib/, /run/ and /etc/netconsole-agent\]]:FILE:_files' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(check)
_arguments "${_arguments_options[@]}" : \
'--config=[The configuration, with targets.d/*.toml beside it \[default\: agent.toml and targets.d/*.toml in /usr/lib/, /run/ and /etc/netconsole-agent\]]:FILE:_files' \
'--offline[Look at the text alone, not at this host]' \
'--strict[Do not accept warnings]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(config)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
":: :_netconsole-agent__subcmd__config_commands" \
"*::: :->config" \
&& ret=0

    case $state in
    (config)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:netconsole-agent-config-command-$line[1]:"
        case $line[1] in
            (show)
_arguments "${_arguments_options[@]}" : \
'--config=[The configuration, with targets.d/*.toml beside it \[default\: agent.toml and targets.d/*.toml in /usr/lib/, /run/ and /etc/netconsole-agent\]]:FILE:_files' \
'--json[Print JSON\: {agent, targets}, each value as {value, source, line}]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(example)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(schema)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_netconsole-agent__subcmd__config__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:netconsole-agent-config-help-command-$line[1]:"
        case $line[1] in
            (show)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(example)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(schema)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
;;
(doctor)
_arguments "${_arguments_options[@]}" : \
'--config=[The configuration, with targets.d/*.toml beside it \[default\: as \`run\`, or the host alone without any\]]:FILE:_files' \
'--json[Print JSON\: an array of {area, object, level, finding, remedy}]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(status)
_arguments "${_arguments_options[@]}" : \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'-w+[Print it again every so many seconds]::SECONDS:_default' \
'--watch=[Print it again every so many seconds]::SECONDS:_default' \
'--json[Print JSON]' \
'(--json)-v[Print everything\: reasons, warnings, the parts of the accounts, the last transitions]' \
'(--json)--verbose[Print everything\: reasons, warnings, the parts of the accounts, the last transitions]' \
'(-v --verbose)--ledger[Print each target'\''s account instead, every term on its line]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(target)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
":: :_netconsole-agent__subcmd__target_commands" \
"*::: :->target" \
&& ret=0

    case $state in
    (target)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:netconsole-agent-target-command-$line[1]:"
        case $line[1] in
            (list)
_arguments "${_arguments_options[@]}" : \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'--json[Print a JSON array]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(resolve)
_arguments "${_arguments_options[@]}" : \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'-h[Print help]' \
'--help[Print help]' \
'::name -- The target; all of them if left out:_default' \
&& ret=0
;;
(enable)
_arguments "${_arguments_options[@]}" : \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'-h[Print help]' \
'--help[Print help]' \
':name -- The target:_default' \
&& ret=0
;;
(disable)
_arguments "${_arguments_options[@]}" : \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'-h[Print help]' \
'--help[Print help]' \
':name -- The target:_default' \
&& ret=0
;;
(set)
_arguments "${_arguments_options[@]}" : \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'-h[Print help]' \
'--help[Print help]' \
':name -- The target:_default' \
'*::settings -- A key of its table in the configuration, and the value:_default' \
&& ret=0
;;
(add)
_arguments "${_arguments_options[@]}" : \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Its name:_default' \
'*::settings -- A key of its table in the configuration, and the value:_default' \
&& ret=0
;;
(remove)
_arguments "${_arguments_options[@]}" : \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'-h[Print help]' \
'--help[Print help]' \
':name -- The target:_default' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_netconsole-agent__subcmd__target__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:netconsole-agent-target-help-command-$line[1]:"
        case $line[1] in
            (list)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(resolve)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(enable)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(disable)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(set)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(add)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(remove)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
;;
(userdata)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
":: :_netconsole-agent__subcmd__userdata_commands" \
"*::: :->userdata" \
&& ret=0

    case $state in
    (userdata)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:netconsole-agent-userdata-command-$line[1]:"
        case $line[1] in
            (set)
_arguments "${_arguments_options[@]}" : \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'-h[Print help]' \
'--help[Print help]' \
':target -- The target:_default' \
':key -- The key:_default' \
':value -- The value; may be a template:_default' \
&& ret=0
;;
(unset)
_arguments "${_arguments_options[@]}" : \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'-h[Print help]' \
'--help[Print help]' \
':target -- The target:_default' \
':key -- The key:_default' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_netconsole-agent__subcmd__userdata__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:netconsole-agent-userdata-help-command-$line[1]:"
        case $line[1] in
            (set)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(unset)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
;;
(send)
_arguments "${_arguments_options[@]}" : \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'--all[Send it to all targets]' \
'-h[Print help]' \
'--help[Print help]' \
'*::words -- The targets, and last the text; `-` takes a message from each line of standard input:_default' \
&& ret=0
;;
(ping)
_arguments "${_arguments_options[@]}" : \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'--json[Print {"target"\: …, "nonce"\: …}]' \
'-h[Print help]' \
'--help[Print help]' \
':target -- The target:_default' \
&& ret=0
;;
(filter)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
":: :_netconsole-agent__subcmd__filter_commands" \
"*::: :->filter" \
&& ret=0

    case $state in
    (filter)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:netconsole-agent-filter-command-$line[1]:"
        case $line[1] in
            (explain)
_arguments "${_arguments_options[@]}" : \
'--last=[How many of the last records \[default\: 10\]]:N:_default' \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'--json[Print a JSON array of lines]' \
'-h[Print help]' \
'--help[Print help]' \
':target -- The target:_default' \
'::line -- The line; if left out, the last records are taken:_default' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_netconsole-agent__subcmd__filter__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:netconsole-agent-filter-help-command-$line[1]:"
        case $line[1] in
            (explain)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
;;
(tail)
_arguments "${_arguments_options[@]}" : \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'--json[Print one JSON object per packet\: packet, and left_out if packets before it were left out]' \
'-h[Print help]' \
'--help[Print help]' \
':target -- The target:_default' \
&& ret=0
;;
(dump)
_arguments "${_arguments_options[@]}" : \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(loglevel)
_arguments "${_arguments_options[@]}" : \
'--for=[Go back to the level before after that time, such as \`5m\`; else it stays until the agent restarts]:DURATION:_default' \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'-h[Print help]' \
'--help[Print help]' \
':level -- error, warn, info, debug, trace or off, also for a part of the agent:_default' \
&& ret=0
;;
(reload)
_arguments "${_arguments_options[@]}" : \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(import)
_arguments "${_arguments_options[@]}" : \
'()--configfs=[Where the configfs tree is]:PATH:_files' \
'-h[Print help]' \
'--help[Print help]' \
'::string -- The netconsole= string of the module or the kernel'\''s command line; the live configfs tree if left out:_default' \
&& ret=0
;;
(receive)
_arguments "${_arguments_options[@]}" : \
'--listen=[Address and port to listen on; \`\[\:\:\]\` takes IPv4 as well. Without it port 6666 of all addresses, or 2004 with --netoops]:ADDR:PORT:_default' \
'--dir=[Folder for the files of the dumps]:DIR:_files' \
'--count=[Exit after so many records (plain lines count) or dumps]:N:_default' \
'--for=[Exit after that time, such as \`30s\` or \`10m\`]:DURATION:_default' \
'--netoops[Receive dumps of the kernel log from netoops senders, instead of records]' \
'--json[Print one JSON object per record or dump]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(bugreport)
_arguments "${_arguments_options[@]}" : \
'--out=[The archive, which must not exist \[default\: netconsole-agent-bugreport-TIME.tar.gz\]]:FILE:_files' \
'--config=[The configuration, with targets.d/*.toml beside it \[default\: as \`run\`\]]:FILE:_files' \
'--socket=[Control socket of the agent \[default\: as the configuration says\]]:PATH:_files' \
'--kernel-log[Put the last 200 lines of the kernel'\''s log into it, which can hold anything]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(completions)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
':shell -- The shell:(bash zsh fish)' \
&& ret=0
;;
(man)
_arguments "${_arguments_options[@]}" : \
'--out=[Folder to write to; made if it is not there]:DIR:_files' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_netconsole-agent__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:netconsole-agent-help-command-$line[1]:"
        case $line[1] in
            (run)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(check)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(config)
_arguments "${_arguments_options[@]}" : \
":: :_netconsole-agent__subcmd__help__subcmd__config_commands" \
"*::: :->config" \
&& ret=0

    case $state in
    (config)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:netconsole-agent-help-config-command-$line[1]:"
        case $line[1] in
            (show)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(example)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(schema)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
(doctor)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(status)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(target)
_arguments "${_arguments_options[@]}" : \
":: :_netconsole-agent__subcmd__help__subcmd__target_commands" \
"*::: :->target" \
&& ret=0

    case $state in
    (target)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:netconsole-agent-help-target-command-$line[1]:"
        case $line[1] in
            (list)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(resolve)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(enable)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(disable)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(set)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(add)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(remove)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
(userdata)
_arguments "${_arguments_options[@]}" : \
":: :_netconsole-agent__subcmd__help__subcmd__userdata_commands" \
"*::: :->userdata" \
&& ret=0

    case $state in
    (userdata)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:netconsole-agent-help-userdata-command-$line[1]:"
        case $line[1] in
            (set)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(unset)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
(send)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(ping)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(filter)
_arguments "${_arguments_options[@]}" : \
":: :_netconsole-agent__subcmd__help__subcmd__filter_commands" \
"*::: :->filter" \
&& ret=0

    case $state in
    (filter)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:netconsole-agent-help-filter-command-$line[1]:"
        case $line[1] in
            (explain)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
(tail)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(dump)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(loglevel)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(reload)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(import)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(receive)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(bugreport)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(completions)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(man)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
}

(( $+functions[_netconsole-agent_commands] )) ||
_netconsole-agent_commands() {
    local commands; commands=(
'run:Run the agent in the foreground' \
'check:Check a configuration and do nothing else' \
'config:Show the configuration, or an example of one' \
'doctor:Tell what this host can do for the agent, and what is in the way' \
'status:Show what a running agent does' \
'target:Act on the targets of a running agent' \
'userdata:Change the userdata of a running agent'\''s targets' \
'send:Send a message to receivers, without touching the kernel log' \
'ping:Send a marked message, to be looked for at the receiver' \
'filter:Look at what a target'\''s filter does' \
'tail:Show a copy of what is sent to a target' \
'dump:Have a running agent send the end of the kernel log' \
'loglevel:Change the level of a running agent'\''s own log' \
'reload:Have a running agent read its configuration anew' \
'import:Turn the kernel'\''s netconsole targets into a configuration' \
'receive:Receive netconsole packets and print them, or netoops dumps and keep them' \
'bugreport:Put everything that a report of a bug needs into one archive' \
'completions:Print what lets a shell complete these commands' \
'man:Write the manual pages' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'netconsole-agent commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__bugreport_commands] )) ||
_netconsole-agent__subcmd__bugreport_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent bugreport commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__check_commands] )) ||
_netconsole-agent__subcmd__check_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent check commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__completions_commands] )) ||
_netconsole-agent__subcmd__completions_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent completions commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__config_commands] )) ||
_netconsole-agent__subcmd__config_commands() {
    local commands; commands=(
'show:Print the merged configuration, and where each value comes from' \
'example:Print a commented configuration with every key' \
'schema:Print the JSON Schema of the configuration, for editors' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'netconsole-agent config commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__config__subcmd__example_commands] )) ||
_netconsole-agent__subcmd__config__subcmd__example_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent config example commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__config__subcmd__help_commands] )) ||
_netconsole-agent__subcmd__config__subcmd__help_commands() {
    local commands; commands=(
'show:Print the merged configuration, and where each value comes from' \
'example:Print a commented configuration with every key' \
'schema:Print the JSON Schema of the configuration, for editors' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'netconsole-agent config help commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__config__subcmd__help__subcmd__example_commands] )) ||
_netconsole-agent__subcmd__config__subcmd__help__subcmd__example_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent config help example commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__config__subcmd__help__subcmd__help_commands] )) ||
_netconsole-agent__subcmd__config__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent config help help commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__config__subcmd__help__subcmd__schema_commands] )) ||
_netconsole-agent__subcmd__config__subcmd__help__subcmd__schema_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent config help schema commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__config__subcmd__help__subcmd__show_commands] )) ||
_netconsole-agent__subcmd__config__subcmd__help__subcmd__show_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent config help show commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__config__subcmd__schema_commands] )) ||
_netconsole-agent__subcmd__config__subcmd__schema_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent config schema commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__config__subcmd__show_commands] )) ||
_netconsole-agent__subcmd__config__subcmd__show_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent config show commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__doctor_commands] )) ||
_netconsole-agent__subcmd__doctor_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent doctor commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__dump_commands] )) ||
_netconsole-agent__subcmd__dump_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent dump commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__filter_commands] )) ||
_netconsole-agent__subcmd__filter_commands() {
    local commands; commands=(
'explain:Tell what a target'\''s filter does with records, and which rule decides' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'netconsole-agent filter commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__filter__subcmd__explain_commands] )) ||
_netconsole-agent__subcmd__filter__subcmd__explain_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent filter explain commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__filter__subcmd__help_commands] )) ||
_netconsole-agent__subcmd__filter__subcmd__help_commands() {
    local commands; commands=(
'explain:Tell what a target'\''s filter does with records, and which rule decides' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'netconsole-agent filter help commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__filter__subcmd__help__subcmd__explain_commands] )) ||
_netconsole-agent__subcmd__filter__subcmd__help__subcmd__explain_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent filter help explain commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__filter__subcmd__help__subcmd__help_commands] )) ||
_netconsole-agent__subcmd__filter__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent filter help help commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help_commands] )) ||
_netconsole-agent__subcmd__help_commands() {
    local commands; commands=(
'run:Run the agent in the foreground' \
'check:Check a configuration and do nothing else' \
'config:Show the configuration, or an example of one' \
'doctor:Tell what this host can do for the agent, and what is in the way' \
'status:Show what a running agent does' \
'target:Act on the targets of a running agent' \
'userdata:Change the userdata of a running agent'\''s targets' \
'send:Send a message to receivers, without touching the kernel log' \
'ping:Send a marked message, to be looked for at the receiver' \
'filter:Look at what a target'\''s filter does' \
'tail:Show a copy of what is sent to a target' \
'dump:Have a running agent send the end of the kernel log' \
'loglevel:Change the level of a running agent'\''s own log' \
'reload:Have a running agent read its configuration anew' \
'import:Turn the kernel'\''s netconsole targets into a configuration' \
'receive:Receive netconsole packets and print them, or netoops dumps and keep them' \
'bugreport:Put everything that a report of a bug needs into one archive' \
'completions:Print what lets a shell complete these commands' \
'man:Write the manual pages' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'netconsole-agent help commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__bugreport_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__bugreport_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help bugreport commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__check_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__check_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help check commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__completions_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__completions_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help completions commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__config_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__config_commands() {
    local commands; commands=(
'show:Print the merged configuration, and where each value comes from' \
'example:Print a commented configuration with every key' \
'schema:Print the JSON Schema of the configuration, for editors' \
    )
    _describe -t commands 'netconsole-agent help config commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__config__subcmd__example_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__config__subcmd__example_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help config example commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__config__subcmd__schema_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__config__subcmd__schema_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help config schema commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__config__subcmd__show_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__config__subcmd__show_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help config show commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__doctor_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__doctor_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help doctor commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__dump_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__dump_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help dump commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__filter_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__filter_commands() {
    local commands; commands=(
'explain:Tell what a target'\''s filter does with records, and which rule decides' \
    )
    _describe -t commands 'netconsole-agent help filter commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__filter__subcmd__explain_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__filter__subcmd__explain_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help filter explain commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__help_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help help commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__import_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__import_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help import commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__loglevel_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__loglevel_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help loglevel commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__man_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__man_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help man commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__ping_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__ping_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help ping commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__receive_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__receive_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help receive commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__reload_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__reload_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help reload commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__run_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__run_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help run commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__send_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__send_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help send commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__status_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__status_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help status commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__tail_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__tail_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help tail commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__target_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__target_commands() {
    local commands; commands=(
'list:Print the names of the targets' \
'resolve:Find the device, source address and next hop anew' \
'enable:Switch a target on again' \
'disable:Switch a target off until it is switched on again or the agent restarts. What was handed to its socket still leaves; what comes later stays in the record store' \
'set:Change settings of a target until the agent restarts' \
'add:Add a target until the agent restarts' \
'remove:Remove a target until the agent restarts' \
    )
    _describe -t commands 'netconsole-agent help target commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__target__subcmd__add_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__target__subcmd__add_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help target add commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__target__subcmd__disable_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__target__subcmd__disable_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help target disable commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__target__subcmd__enable_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__target__subcmd__enable_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help target enable commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__target__subcmd__list_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__target__subcmd__list_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help target list commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__target__subcmd__remove_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__target__subcmd__remove_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help target remove commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__target__subcmd__resolve_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__target__subcmd__resolve_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help target resolve commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__target__subcmd__set_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__target__subcmd__set_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help target set commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__userdata_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__userdata_commands() {
    local commands; commands=(
'set:Set a key until the agent restarts' \
'unset:Remove a key until the agent restarts' \
    )
    _describe -t commands 'netconsole-agent help userdata commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__userdata__subcmd__set_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__userdata__subcmd__set_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help userdata set commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__help__subcmd__userdata__subcmd__unset_commands] )) ||
_netconsole-agent__subcmd__help__subcmd__userdata__subcmd__unset_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent help userdata unset commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__import_commands] )) ||
_netconsole-agent__subcmd__import_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent import commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__loglevel_commands] )) ||
_netconsole-agent__subcmd__loglevel_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent loglevel commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__man_commands] )) ||
_netconsole-agent__subcmd__man_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent man commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__ping_commands] )) ||
_netconsole-agent__subcmd__ping_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent ping commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__receive_commands] )) ||
_netconsole-agent__subcmd__receive_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent receive commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__reload_commands] )) ||
_netconsole-agent__subcmd__reload_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent reload commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__run_commands] )) ||
_netconsole-agent__subcmd__run_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent run commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__send_commands] )) ||
_netconsole-agent__subcmd__send_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent send commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__status_commands] )) ||
_netconsole-agent__subcmd__status_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent status commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__tail_commands] )) ||
_netconsole-agent__subcmd__tail_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent tail commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__target_commands] )) ||
_netconsole-agent__subcmd__target_commands() {
    local commands; commands=(
'list:Print the names of the targets' \
'resolve:Find the device, source address and next hop anew' \
'enable:Switch a target on again' \
'disable:Switch a target off until it is switched on again or the agent restarts. What was handed to its socket still leaves; what comes later stays in the record store' \
'set:Change settings of a target until the agent restarts' \
'add:Add a target until the agent restarts' \
'remove:Remove a target until the agent restarts' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'netconsole-agent target commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__target__subcmd__add_commands] )) ||
_netconsole-agent__subcmd__target__subcmd__add_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent target add commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__target__subcmd__disable_commands] )) ||
_netconsole-agent__subcmd__target__subcmd__disable_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent target disable commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__target__subcmd__enable_commands] )) ||
_netconsole-agent__subcmd__target__subcmd__enable_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent target enable commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__target__subcmd__help_commands] )) ||
_netconsole-agent__subcmd__target__subcmd__help_commands() {
    local commands; commands=(
'list:Print the names of the targets' \
'resolve:Find the device, source address and next hop anew' \
'enable:Switch a target on again' \
'disable:Switch a target off until it is switched on again or the agent restarts. What was handed to its socket still leaves; what comes later stays in the record store' \
'set:Change settings of a target until the agent restarts' \
'add:Add a target until the agent restarts' \
'remove:Remove a target until the agent restarts' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'netconsole-agent target help commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__target__subcmd__help__subcmd__add_commands] )) ||
_netconsole-agent__subcmd__target__subcmd__help__subcmd__add_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent target help add commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__target__subcmd__help__subcmd__disable_commands] )) ||
_netconsole-agent__subcmd__target__subcmd__help__subcmd__disable_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent target help disable commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__target__subcmd__help__subcmd__enable_commands] )) ||
_netconsole-agent__subcmd__target__subcmd__help__subcmd__enable_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent target help enable commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__target__subcmd__help__subcmd__help_commands] )) ||
_netconsole-agent__subcmd__target__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent target help help commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__target__subcmd__help__subcmd__list_commands] )) ||
_netconsole-agent__subcmd__target__subcmd__help__subcmd__list_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent target help list commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__target__subcmd__help__subcmd__remove_commands] )) ||
_netconsole-agent__subcmd__target__subcmd__help__subcmd__remove_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent target help remove commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__target__subcmd__help__subcmd__resolve_commands] )) ||
_netconsole-agent__subcmd__target__subcmd__help__subcmd__resolve_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent target help resolve commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__target__subcmd__help__subcmd__set_commands] )) ||
_netconsole-agent__subcmd__target__subcmd__help__subcmd__set_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent target help set commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__target__subcmd__list_commands] )) ||
_netconsole-agent__subcmd__target__subcmd__list_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent target list commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__target__subcmd__remove_commands] )) ||
_netconsole-agent__subcmd__target__subcmd__remove_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent target remove commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__target__subcmd__resolve_commands] )) ||
_netconsole-agent__subcmd__target__subcmd__resolve_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent target resolve commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__target__subcmd__set_commands] )) ||
_netconsole-agent__subcmd__target__subcmd__set_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent target set commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__userdata_commands] )) ||
_netconsole-agent__subcmd__userdata_commands() {
    local commands; commands=(
'set:Set a key until the agent restarts' \
'unset:Remove a key until the agent restarts' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'netconsole-agent userdata commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__userdata__subcmd__help_commands] )) ||
_netconsole-agent__subcmd__userdata__subcmd__help_commands() {
    local commands; commands=(
'set:Set a key until the agent restarts' \
'unset:Remove a key until the agent restarts' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'netconsole-agent userdata help commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__userdata__subcmd__help__subcmd__help_commands] )) ||
_netconsole-agent__subcmd__userdata__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent userdata help help commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__userdata__subcmd__help__subcmd__set_commands] )) ||
_netconsole-agent__subcmd__userdata__subcmd__help__subcmd__set_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent userdata help set commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__userdata__subcmd__help__subcmd__unset_commands] )) ||
_netconsole-agent__subcmd__userdata__subcmd__help__subcmd__unset_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent userdata help unset commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__userdata__subcmd__set_commands] )) ||
_netconsole-agent__subcmd__userdata__subcmd__set_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent userdata set commands' commands "$@"
}
(( $+functions[_netconsole-agent__subcmd__userdata__subcmd__unset_commands] )) ||
_netconsole-agent__subcmd__userdata__subcmd__unset_commands() {
    local commands; commands=()
    _describe -t commands 'netconsole-agent userdata unset commands' commands "$@"
}

if [ "$funcstack[1]" = "_netconsole-agent" ]; then
    _netconsole-agent "$@"
else
    compdef _netconsole-agent netconsole-agent
fi
