"""Many rows: the ledger, the row's path, progress, and the loop that runs them."""
