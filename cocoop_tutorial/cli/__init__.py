"""The `cocoop` command: every subcommand only reads its options and calls the library.

What can also be done from Python, and that is nearly everything, is therefore not here.
"""
