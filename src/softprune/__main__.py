"""`python -m softprune`."""

from softprune.cli import main

if __name__ == "__main__":
    main()
