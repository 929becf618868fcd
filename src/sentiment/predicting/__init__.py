"""Predicting what does not fit into memory: files of any size, texts as they come."""
