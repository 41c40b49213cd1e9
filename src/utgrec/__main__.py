"""`python -m utgrec` is the `utgrec` command."""

from utgrec.cli import main

if __name__ == "__main__":
    main()
