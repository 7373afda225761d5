"""Claim: on a CPU, a step of VAE and D takes less than half of the released code's time.

Ours is the second phase of `schedule="two_phase"` as `main` runs it: ranks are constant there, and
D needs only the encoder. `PyTorch, released work` computes what the authors' code does per step
(ranks of both batches by T and R, the whole VAE again for D); `PyTorch's reduced work` leaves that
out; each eager and compiled.

    python benchmarks/vaal_step.py [--batch_size=128] [--steps=1] [--rounds=7]
        [--bfloat16] [--json]

`ratio` is the released work's faster time over ours, `ratios` has all; with --bfloat16 both compute
in it, and our float32 step is timed beside them.
"""

import harness


def main():
    """Command line."""
    arguments = harness.step_flags(__doc__)
    peers = {"PyTorch's released work": "released", "PyTorch's reduced work": "reduced"}
    harness.compare_steps("adversary", peers, arguments)


if __name__ == "__main__":
    main()
