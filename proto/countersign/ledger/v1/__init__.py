"""Generated from the contract beside it."""
