"""How fast does a topology answer, and where does the time go?

    python -m bench.serving --model half-billion --topology EPD --topology 1E1P1D \
        --concurrency 1 4 8 --images 0 1

`workload` says what is asked, `load` asks it and keeps every arrival, `cluster` starts what is
asked, `stages` reads where the time went, `report` makes a table and one JSON object of it.
"""
