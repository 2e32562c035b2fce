"""`multipick COMMAND …`: hands the rest of the command line to the program that declares COMMAND.

Programs declare subcommands by the entry-point group `multipick.commands`: a function that takes the arguments after
the command's name and returns the exit status. Only the called one is imported, so that the operator's image needs no
picker libraries and the reverse.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points, version

GROUP = "multipick.commands"
SUMMARIES = {
    "demo": "Envoy, Valkey, a picker and simulated pods on this machine, with traffic and a verdict",
    "epp": "the endpoint picker that Envoy calls by ext_proc",
    "explain": "why a request went where it went, asked of a running picker",
    "operator": "the Kubernetes operator: keeps every InferencePool as its object says",
    "recording": "check or make a recording of a real engine",
    "replay": "a trace, or made traffic, against every policy in simulated time",
    "sim": "a simulated vLLM pod",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit status is the subcommand's own, 2 for a command line that names none.

    However a command ends, its user sees no traceback of what is no bug: 128 + n after an interrupt or where nobody
    reads the output any more (`| head`), as a shell has it; 1 with one line for what the system refuses, a file mostly.
    """
    try:
        try:
            return _run(argv)
        finally:
            if sys.stdout is not None:  # closed by the shell: >&-
                sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        if error.errno is None:  # none of the system's: a bug
            raise
        unread = isinstance(error, BrokenPipeError)
        if not unread:
            print(f"multipick: {error}", file=sys.stderr)
        if sys.stdout is not None:  # the interpreter flushes once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE if unread else 1


def _run(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage(commands))
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(version("multipick"))
        return 0
    name, *rest = arguments
    if name not in commands:
        print(f"multipick: no command {name!r}\n\n{usage(commands)}", file=sys.stderr)
        return 2
    try:
        command: Callable[[Sequence[str]], int] = commands[name].load()
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("multipick"):
            raise
        print(
            f"multipick {name}: {missing}. Install the program's libraries: pip install 'multipick[{_extra(name)}]'",
            file=sys.stderr,
        )
        return 2
    return command(rest)


def usage(commands: dict[str, EntryPoint]) -> str:
    """The help text: one line a command."""
    rows = [f"  {name:<11} {SUMMARIES.get(name, '')}".rstrip() for name in sorted(commands)]
    return "usage: multipick COMMAND [options]\n\n" + "\n".join(rows) + "\n\n`multipick COMMAND --help` tells more."


def _extra(command: str) -> str:
    return {"explain": "epp", "recording": "epp", "replay": "sim"}.get(command, command)
