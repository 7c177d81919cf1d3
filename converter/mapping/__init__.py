"""Rule tables: which tensor of one format becomes which of another, and the transforms between them."""
