"""Pure folds from events to rows, and the one engine that runs and rebuilds them."""
