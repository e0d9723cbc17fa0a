"""Tables in, tensors out."""
