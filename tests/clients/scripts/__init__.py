"""What each client is asked to do; run by the client's own Python or Node."""
