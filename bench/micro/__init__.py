"""What do the parts cost that are not the model, and what would the plainest code cost there?

    python -m bench.micro            (or `make bench`)

Every figure is processor time, so that a busy machine changes little, and has a floor: the same by
the libraries alone. Figures that were committed for the same processor are compared as ratios.
"""
