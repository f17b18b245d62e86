"""The command `constclf`: one subcommand a line, its module loaded only when it is called.

Deliberately not here: what a subcommand does; each module has `add_arguments(parser)` and `run(options)`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "serve": ("serve.command", "an OpenAI-compatible server whose replies are guarded"),
    "score": ("scoring", "scores a table of texts with a saved classifier, in as many processes as accelerate starts"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand; its exit status. Errors that a user can mend are one line on stderr and status 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="constclf", description="Constitutional classifiers from the command line.")
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, (module, what) in COMMANDS.items():
        sub = subparsers.add_parser(name, help=what, description=what)
        if name in arguments[:1]:
            import_module(f".{module}", __package__).add_arguments(sub)
    options = parser.parse_args(arguments)
    try:
        return import_module(f".{COMMANDS[options.command][0]}", __package__).run(options) or 0
    except (OSError, ValueError, RuntimeError) as error:
        parser.exit(2, f"constclf {options.command}: {error}\n")


if __name__ == "__main__":
    sys.exit(main())
