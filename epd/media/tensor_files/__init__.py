"""File formats of tensors, read by hand: every byte is a stranger's. Nothing here is executed.

A format says where a tensor lies in the file and as what; turning that into an array is the
caller's.
"""
