"""A search over settings: many trainings, and the best of them."""
