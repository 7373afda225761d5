"""Claim: on a CPU, a step of the paper's joint schedule takes less than PyTorch's time.

Ours is a step of `schedule="joint"` as `main` runs it after the first epoch: ranks of both batches,
T and R, VAE, D. The peer computes the same, on batches prepared beforehand, eager and compiled.

    python benchmarks/joint_step.py [--batch_size=128] [--steps=1] [--rounds=7]
        [--bfloat16] [--json]

`ratio` is the faster peer's time over ours; with --bfloat16 both compute in it, and our float32
step is timed beside them.
"""

import harness


def main():
    """Command line."""
    harness.compare_steps("joint", {"PyTorch": "joint"}, harness.step_flags(__doc__))


if __name__ == "__main__":
    main()
