"""Commands around pretraining; each is a script and a function."""
