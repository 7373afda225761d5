"""Claim: on a CPU, a step of VAE and D takes less than half of the released code's time.

Ours is the second phase of `schedule="two_phase"` as `main` runs it: ranks are constants there and
D needs only the encoder. `PyTorch, released work` computes what the authors' code does per step
(ranks of both batches by T and R, the whole VAE once more for D); `PyTorch, our work` leaves that
out.

    python benchmarks/vaal_step.py [--batch_size=128] [--rounds=7] [--bfloat16] [--json]

`ratio` is the released work's time over ours, `ratios` has both; with --bfloat16 it is our float32
time over our bfloat16 time.
"""

import harness


def main():
    """Command line."""
    flags = harness.parser(__doc__, rounds=7)
    flags.add_argument("--batch_size", type=int, default=128)
    flags.add_argument("--bfloat16", action="store_true", help="our float32 against our bfloat16")
    arguments = flags.parse_args()
    peers = {"PyTorch, released work": "released", "PyTorch, our work": "reduced"}
    harness.compare_steps("adversary", peers, arguments)


if __name__ == "__main__":
    main()
