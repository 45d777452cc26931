"""What is done with recordings once they are published, and the ledger of it."""
