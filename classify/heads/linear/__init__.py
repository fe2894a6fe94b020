"""Linear heads solved jointly over folds and penalties."""
