"""Behaviour tests and contrast pairs: what a run does where accuracy does not look."""
