"""Measurements on rows, one kind a file: each a function from model, tokenizer, rows and batch size to metrics."""
