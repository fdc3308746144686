"""What it means: pure folds and conditions over the log, and the roles that run them."""
