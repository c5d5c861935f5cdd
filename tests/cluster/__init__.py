"""Tests of whole clusters: real processes, sockets, files and clients on a tiny checkpoint."""
