"""What is kept: the contract of a store, and the stores."""
