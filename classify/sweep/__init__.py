"""Train every head on every tap, choose one, score it once. May import `advise` and the rooms below it."""
