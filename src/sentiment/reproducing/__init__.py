"""Whether two trainings are one: resumed and never stopped, then and now."""
