"""How fast does a topology answer, and where does the time go?

    python -m bench.topologies --model half-billion --topology EPD --topology 1E1P1D \
        --concurrency 1 4 8 --images 0 1

Each is started on this machine and asked for answers of exactly so many tokens, after prompts of
exactly so many. `report` makes a table and one JSON object of it.
"""
