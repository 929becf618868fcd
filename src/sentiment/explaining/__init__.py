"""Why a model says what it says of a text: word by word, and inside the recurrence."""
