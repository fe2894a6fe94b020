"""Train every head on every tap, select the best, score it once. May import `advise` and the rooms below it."""
