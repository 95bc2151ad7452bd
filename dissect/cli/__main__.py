"""`python -m microtome.dissect.cli`: the command line where the console script is not on the path."""

from microtome.dissect.cli.app import main

if __name__ == "__main__":
    main()
