"""Unlabelled reviews, labelled by finished runs for another to learn from."""
