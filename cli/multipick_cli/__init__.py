"""The `multipick` command: finds the subcommands that the installed programs declare and runs one."""
