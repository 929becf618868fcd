"""The linear model that an LSTM has to beat: weighted n-grams and logistic regression."""
