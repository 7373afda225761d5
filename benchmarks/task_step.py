"""Claim: on a CPU, a training step of ResNet-18 and the Ranker is about as fast as PyTorch's.

Ours is the program that `main` runs (gathering and augmenting its batch included), the peer is
`torch_peer.Task` on batches prepared beforehand, in its faster memory format, eager and compiled.

    python benchmarks/task_step.py [--batch_size=128] [--steps=1] [--rounds=7]
        [--bfloat16] [--json]

`ratio` is the faster peer's time over ours; with --bfloat16 both compute in it, and our float32
step is timed beside them.
"""

import harness


def main():
    """Command line."""
    arguments = harness.step_flags(__doc__)
    harness.compare_steps("task", {"PyTorch": "task"}, arguments)


if __name__ == "__main__":
    main()
