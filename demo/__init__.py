"""How the embedded model is made: data, training, evaluation, the files of its checkpoint.

Not part of the `epd` package; what comes out is in epd/models/embedded.
"""
