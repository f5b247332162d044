"""`python -m slimtune.cli`, which is how slimtune starts itself."""

from slimtune.cli import main

main()
