"""How do other servers answer on this machine, with the same checkpoint under the same load?

    make bench-peers                                  # makes the environments, measures everything
    python -m bench.peers --out FILE.json             # goes on where FILE.json ends
    python -m bench.peers --out FILE.json --only vllm-bfloat16:alone epd-EPD:alone
    python -m bench.peers --out FILE.json --report    # the table of what there is

One server runs at a time. There are two rounds, the second one in the order turned round, so that
whatever the machine does in between meets all. Every server gets the same
requests with pictures and texts that no other request has, and whoever has a prefix cache runs
without. An answer of another length than asked for is a failure, and so is no answer.
"""
