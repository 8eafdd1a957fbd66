"""The `polyattn` command: prints the library's values.

`arguments` reads the user's words, `commands` has one function for each command.
"""

from polyattn.cli.commands import app, main

__all__ = ["app", "main"]
