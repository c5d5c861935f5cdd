"""A GPU that a CPU plays, so that code for CUDA runs where there is none.

torch takes its tensors for CUDA's. Their bytes are on the host (`memory.cpp`), and its operators
compute there (`operators.py`); Triton's kernels run in the interpreter. What a card would not
forgive is told as a fault: tensors of host and device in one operator, work of two streams on the
same memory without an order between them, memory given back while a stream still uses it, pinned
memory that the host changes before its copy is done (`order.py`). Copies to the host arrive when
somebody waits for them and not before, graphs repeat what was recorded (`graphs.py`), and what
waits for the device raises where torch was asked to raise.

`python -m pytest -p tests.simulated.plugin -m gpu` runs tests for a card on it.
"""
