"""How fast do rows travel from an encode to a prefill worker, against bytes alone?

    python -m bench.transfer --network namespaces

Two processes on two hosts (network namespaces joined by a veth pair), or on one, made of the
workers' own parts: links, stages, hand-off machines, staging, merge. An item is pulled as prefill
pulls it, from the first PullRows until its last row is where a forward can take it: through shared
memory that is where the encoder put it. Between any two items the same two
processes move the same number of bytes by a plain TCP socket, or by memcpy where rows go through
shared memory; each ratio is of neighbours. `plain` makes the measured baseline, `ends` the two
workers, `network` the hosts.
"""
