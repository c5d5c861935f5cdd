"""How near does every stage come to what this card can do?

    python -m bench.gpu              # what `make gpu-check` runs: at most 10 minutes on one card
    python -m bench.gpu --dry-run    # the same steps on the CPU with tiny shapes, for their sake
    python -m bench.gpu --dry-run --device cuda    # on a card

Weights are random, of the shapes of published models (bench/gpu/shapes), so nothing is downloaded.
The card is measured first; floors are counted from the model's shape (bench/gpu/floors.py) and
divided by what the card was measured to do. Each job has a process and a time budget of its own:
one that fails or hangs takes no other's numbers with it.

It ends with 1 where a test or a part failed or tests did not come to their end, else with 0: a
target that is missed, and what there was no time to measure, stand in the table and fail nothing.
"""
