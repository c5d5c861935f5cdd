"""How does a running server answer under load?

    python -m bench.serving --dataset-name image --image-count 2 --request-rate 4

This is `epd bench`, which an installed `epd` has, too; `--help` lists what can be asked for. Beside
it here: what all benchmarks that start clusters share (`checkpoints`, `cluster`, `hardware`,
`load`, `stages`, `workload`), and how much the load generator itself can do (`generator`, against
`null_server`).
"""
