"""The command line of pretraining: flags, their types, and the configuration that they become."""
