"""`python -m fseft`."""

from fseft.cli.main import main

if __name__ == "__main__":
    main()
