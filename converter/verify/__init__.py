"""The parity certificate, and the independent float64 forward passes that it compares."""
