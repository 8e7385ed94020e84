"""What every benchmark shares. Knows nothing of critics: a case hands it plain callables."""
