"""Stock clients and load tools against a cluster, and the exact requests that others send."""
