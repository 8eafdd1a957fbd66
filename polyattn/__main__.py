"""`python -m polyattn`, for where the command is not installed."""

from polyattn.cli import main

if __name__ == "__main__":
    main()
