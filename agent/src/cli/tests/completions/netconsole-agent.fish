# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_netconsole_agent_global_optspecs
    string join \n h/help V/version
end

function __fish_netconsole_agent_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_netconsole_agent_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_netconsole_agent_using_subcommand
    set -l cmd (__fish_netconsole_agent_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -s V -l version -d 'Print version'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "run" -d 'Run the agent in the foreground'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "check" -d 'Check a configuration and do nothing else'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "config" -d 'Show the configuration, or an example of one'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "doctor" -d 'Tell what this host can do for the agent, and what is in the way'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "status" -d 'Show what a running agent does'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "target" -d 'Act on the targets of a running agent'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "userdata" -d 'Change the userdata of a running agent\'s targets'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "send" -d 'Send a message to receivers, without touching the kernel log'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "ping" -d 'Send a marked message, to be looked for at the receiver'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "filter" -d 'Look at what a target\'s filter does'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "tail" -d 'Show a copy of what is sent to a target'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "dump" -d 'Have a running agent send the end of the kernel log'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "loglevel" -d 'Change the level of a running agent\'s own log'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "reload" -d 'Have a running agent read its configuration anew'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "import" -d 'Turn the kernel\'s netconsole targets into a configuration'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "receive" -d 'Receive netconsole packets and print them, or netoops dumps and keep them'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "bugreport" -d 'Put everything that a report of a bug needs into one archive'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "completions" -d 'Print what lets a shell complete these commands'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "man" -d 'Write the manual pages'
complete -c netconsole-agent -n "__fish_netconsole_agent_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand run" -l config -d 'The configuration, with targets.d/*.toml beside it [default: agent.toml and targets.d/*.toml in /usr/lib/, /run/ and /etc/netconsole-agent]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand run" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand check" -l config -d 'The configuration, with targets.d/*.toml beside it [default: agent.toml and targets.d/*.toml in /usr/lib/, /run/ and /etc/netconsole-agent]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand check" -l offline -d 'Look at the text alone, not at this host'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand check" -l strict -d 'Do not accept warnings'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand check" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand config; and not __fish_seen_subcommand_from show example schema help" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand config; and not __fish_seen_subcommand_from show example schema help" -f -a "show" -d 'Print the merged configuration, and where each value comes from'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand config; and not __fish_seen_subcommand_from show example schema help" -f -a "example" -d 'Print a commented configuration with every key'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand config; and not __fish_seen_subcommand_from show example schema help" -f -a "schema" -d 'Print the JSON Schema of the configuration, for editors'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand config; and not __fish_seen_subcommand_from show example schema help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand config; and __fish_seen_subcommand_from show" -l config -d 'The configuration, with targets.d/*.toml beside it [default: agent.toml and targets.d/*.toml in /usr/lib/, /run/ and /etc/netconsole-agent]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand config; and __fish_seen_subcommand_from show" -l json -d 'Print JSON: {agent, targets}, each value as {value, source, line}'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand config; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand config; and __fish_seen_subcommand_from example" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand config; and __fish_seen_subcommand_from schema" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "show" -d 'Print the merged configuration, and where each value comes from'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "example" -d 'Print a commented configuration with every key'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "schema" -d 'Print the JSON Schema of the configuration, for editors'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand doctor" -l config -d 'The configuration, with targets.d/*.toml beside it [default: as `run`, or the host alone without any]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand doctor" -l json -d 'Print JSON: an array of {area, object, level, finding, remedy}'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand status" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand status" -s w -l watch -d 'Print it again every so many seconds' -r
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand status" -l json -d 'Print JSON'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand status" -s v -l verbose -d 'Print everything: reasons, warnings, the parts of the accounts, the last transitions'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand status" -l ledger -d 'Print each target\'s account instead, every term on its line'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand status" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and not __fish_seen_subcommand_from list resolve enable disable set add remove help" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and not __fish_seen_subcommand_from list resolve enable disable set add remove help" -f -a "list" -d 'Print the names of the targets'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and not __fish_seen_subcommand_from list resolve enable disable set add remove help" -f -a "resolve" -d 'Find the device, source address and next hop anew'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and not __fish_seen_subcommand_from list resolve enable disable set add remove help" -f -a "enable" -d 'Switch a target on again'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and not __fish_seen_subcommand_from list resolve enable disable set add remove help" -f -a "disable" -d 'Switch a target off until it is switched on again or the agent restarts. What was handed to its socket still leaves; what comes later stays in the record store'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and not __fish_seen_subcommand_from list resolve enable disable set add remove help" -f -a "set" -d 'Change settings of a target until the agent restarts'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and not __fish_seen_subcommand_from list resolve enable disable set add remove help" -f -a "add" -d 'Add a target until the agent restarts'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and not __fish_seen_subcommand_from list resolve enable disable set add remove help" -f -a "remove" -d 'Remove a target until the agent restarts'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and not __fish_seen_subcommand_from list resolve enable disable set add remove help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from list" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from list" -l json -d 'Print a JSON array'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from resolve" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from resolve" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from enable" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from enable" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from disable" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from disable" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from set" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from add" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from remove" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from help" -f -a "list" -d 'Print the names of the targets'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from help" -f -a "resolve" -d 'Find the device, source address and next hop anew'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from help" -f -a "enable" -d 'Switch a target on again'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from help" -f -a "disable" -d 'Switch a target off until it is switched on again or the agent restarts. What was handed to its socket still leaves; what comes later stays in the record store'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from help" -f -a "set" -d 'Change settings of a target until the agent restarts'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from help" -f -a "add" -d 'Add a target until the agent restarts'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Remove a target until the agent restarts'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand target; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand userdata; and not __fish_seen_subcommand_from set unset help" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand userdata; and not __fish_seen_subcommand_from set unset help" -f -a "set" -d 'Set a key until the agent restarts'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand userdata; and not __fish_seen_subcommand_from set unset help" -f -a "unset" -d 'Remove a key until the agent restarts'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand userdata; and not __fish_seen_subcommand_from set unset help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand userdata; and __fish_seen_subcommand_from set" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand userdata; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand userdata; and __fish_seen_subcommand_from unset" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand userdata; and __fish_seen_subcommand_from unset" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand userdata; and __fish_seen_subcommand_from help" -f -a "set" -d 'Set a key until the agent restarts'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand userdata; and __fish_seen_subcommand_from help" -f -a "unset" -d 'Remove a key until the agent restarts'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand userdata; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand send" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand send" -l all -d 'Send it to all targets'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand send" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand ping" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand ping" -l json -d 'Print {"target": …, "nonce": …}'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand ping" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand filter; and not __fish_seen_subcommand_from explain help" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand filter; and not __fish_seen_subcommand_from explain help" -f -a "explain" -d 'Tell what a target\'s filter does with records, and which rule decides'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand filter; and not __fish_seen_subcommand_from explain help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand filter; and __fish_seen_subcommand_from explain" -l last -d 'How many of the last records [default: 10]' -r
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand filter; and __fish_seen_subcommand_from explain" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand filter; and __fish_seen_subcommand_from explain" -l json -d 'Print a JSON array of lines'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand filter; and __fish_seen_subcommand_from explain" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand filter; and __fish_seen_subcommand_from help" -f -a "explain" -d 'Tell what a target\'s filter does with records, and which rule decides'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand filter; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand tail" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand tail" -l json -d 'Print one JSON object per packet: packet, and left_out if packets before it were left out'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand tail" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand dump" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand dump" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand loglevel" -l for -d 'Go back to the level before after that time, such as `5m`; else it stays until the agent restarts' -r
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand loglevel" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand loglevel" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand reload" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand reload" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand import" -l configfs -d 'Where the configfs tree is' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand import" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand receive" -l listen -d 'Address and port to listen on; `[::]` takes IPv4 as well. Without it port 6666 of all addresses, or 2004 with --netoops' -r
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand receive" -l dir -d 'Folder for the files of the dumps' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand receive" -l count -d 'Exit after so many records (plain lines count) or dumps' -r
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand receive" -l for -d 'Exit after that time, such as `30s` or `10m`' -r
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand receive" -l netoops -d 'Receive dumps of the kernel log from netoops senders, instead of records'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand receive" -l json -d 'Print one JSON object per record or dump'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand receive" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand bugreport" -l out -d 'The archive, which must not exist [default: netconsole-agent-bugreport-TIME.tar.gz]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand bugreport" -l config -d 'The configuration, with targets.d/*.toml beside it [default: as `run`]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand bugreport" -l socket -d 'Control socket of the agent [default: as the configuration says]' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand bugreport" -l kernel-log -d 'Put the last 200 lines of the kernel\'s log into it, which can hold anything'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand bugreport" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand completions" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand man" -l out -d 'Folder to write to; made if it is not there' -r -F
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand man" -s h -l help -d 'Print help'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "run" -d 'Run the agent in the foreground'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "check" -d 'Check a configuration and do nothing else'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "config" -d 'Show the configuration, or an example of one'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "doctor" -d 'Tell what this host can do for the agent, and what is in the way'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "status" -d 'Show what a running agent does'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "target" -d 'Act on the targets of a running agent'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "userdata" -d 'Change the userdata of a running agent\'s targets'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "send" -d 'Send a message to receivers, without touching the kernel log'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "ping" -d 'Send a marked message, to be looked for at the receiver'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "filter" -d 'Look at what a target\'s filter does'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "tail" -d 'Show a copy of what is sent to a target'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "dump" -d 'Have a running agent send the end of the kernel log'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "loglevel" -d 'Change the level of a running agent\'s own log'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "reload" -d 'Have a running agent read its configuration anew'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "import" -d 'Turn the kernel\'s netconsole targets into a configuration'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "receive" -d 'Receive netconsole packets and print them, or netoops dumps and keep them'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "bugreport" -d 'Put everything that a report of a bug needs into one archive'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "completions" -d 'Print what lets a shell complete these commands'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "man" -d 'Write the manual pages'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and not __fish_seen_subcommand_from run check config doctor status target userdata send ping filter tail dump loglevel reload import receive bugreport completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "show" -d 'Print the merged configuration, and where each value comes from'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "example" -d 'Print a commented configuration with every key'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "schema" -d 'Print the JSON Schema of the configuration, for editors'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and __fish_seen_subcommand_from target" -f -a "list" -d 'Print the names of the targets'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and __fish_seen_subcommand_from target" -f -a "resolve" -d 'Find the device, source address and next hop anew'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and __fish_seen_subcommand_from target" -f -a "enable" -d 'Switch a target on again'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and __fish_seen_subcommand_from target" -f -a "disable" -d 'Switch a target off until it is switched on again or the agent restarts. What was handed to its socket still leaves; what comes later stays in the record store'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and __fish_seen_subcommand_from target" -f -a "set" -d 'Change settings of a target until the agent restarts'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and __fish_seen_subcommand_from target" -f -a "add" -d 'Add a target until the agent restarts'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and __fish_seen_subcommand_from target" -f -a "remove" -d 'Remove a target until the agent restarts'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and __fish_seen_subcommand_from userdata" -f -a "set" -d 'Set a key until the agent restarts'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and __fish_seen_subcommand_from userdata" -f -a "unset" -d 'Remove a key until the agent restarts'
complete -c netconsole-agent -n "__fish_netconsole_agent_using_subcommand help; and __fish_seen_subcommand_from filter" -f -a "explain" -d 'Tell what a target\'s filter does with records, and which rule decides'
