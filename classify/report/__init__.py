"""A run as one HTML page. May import every room of `classify` but `sweep`, `finetune` and `tracking`."""
