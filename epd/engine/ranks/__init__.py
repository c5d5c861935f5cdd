"""One engine on several ranks: rank 0 schedules, samples and orders; the others do what it orders.

An order is a row of integers, tensors follow it through the group. Pages are numbered alike on all
ranks; each holds its own KV heads.
"""
