"""Claim: on a CPU, a step of VAE and D takes less than half of the released code's time.

Ours is the second phase of `schedule="two_phase"` as `main` runs it: ranks are constant there, and
D needs only the encoder. `PyTorch, released work` computes what the authors' code does per step
(ranks of both batches by T and R, the whole VAE again for D); `PyTorch, our work` leaves that out.

    python benchmarks/vaal_step.py [--batch_size=128] [--steps=1] [--rounds=7]
        [--bfloat16] [--json]

`ratio` is the released work's time over ours, `ratios` has both; with --bfloat16 it is our float32
time over our bfloat16 time.
"""

import harness


def main():
    """Command line."""
    arguments = harness.step_flags(__doc__)
    peers = {"PyTorch, released work": "released", "PyTorch, our work": "reduced"}
    harness.compare_steps("adversary", peers, arguments)


if __name__ == "__main__":
    main()
