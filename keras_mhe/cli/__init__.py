"""The `keras-mhe` command, with the subcommands demo and inspect."""
