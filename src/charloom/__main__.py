"""`python -m charloom` runs the command line."""

from charloom.cli import main

main()
