"""The transfer-learning scenario of the data, and what to try next. May import `classify.diagnose` and what is below it."""
