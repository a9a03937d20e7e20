"""The `cocoop` command. Every subcommand only reads its options and calls the library."""
