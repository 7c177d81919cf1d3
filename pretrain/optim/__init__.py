"""The optimizer, the learning-rate schedule, mixed precision and loss scaling."""
