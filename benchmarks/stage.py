"""Claim: on a CPU, one whole two-phase cycle of TA-VAAL takes less than half of PyTorch's time.

Both sides train T and R on the labelled images with crops and flips, then VAE and D on labelled
images and the subset, then score the subset, for the same number of epochs. Ours is
`cycle.advance`, the generator behind `main`, to the end of its first cycle, including ranks and
test but not checkpoints. The peer is `torch_peer.Stage`, with the released code's work per step.
Images are random, of CIFAR's shape.

    python benchmarks/stage.py [--epochs=2] [--vae_epochs=1] [--rounds=1] [--json]

The paper's proportion of epochs is 200 to 100. `ratio` is the peer's time over ours; our programs
are compiled before, the peer's memory format is the faster one for the VAE's step. A round with the
default flags takes half an hour on two cores.
"""

import harness
import jax

from tavaal_jax.study import cycle, training


def main():
    """Command line."""
    flags = harness.parser(__doc__, rounds=1)
    flags.add_argument("--batch_size", type=int, default=128)
    flags.add_argument("--labelled", type=int, default=1_000)
    flags.add_argument("--subset", type=int, default=10_000)
    flags.add_argument("--epochs", type=int, default=2)
    flags.add_argument("--vae_epochs", type=int, default=1)
    arguments = flags.parse_args()
    programs = harness.cifar(
        images=arguments.labelled + arguments.subset, schedule="two_phase",
        batch_size=arguments.batch_size, initial=arguments.labelled, budget=arguments.labelled,
        subset=arguments.subset, epochs=arguments.epochs, cycles=2, diagnostics=False,
    )  # fmt: skip
    config = programs.config
    with config.unlocked():
        config.vae.unlabelled, config.vae.epochs = "subset", arguments.vae_epochs
    programs.train("task", 1)
    programs.train("adversary", 1)
    programs.scores(range(128))
    programs.accuracy()
    vae_steps = training.stage_steps(config, programs.setup.size, config.initial, "adversary")

    def ours():
        key = jax.random.key(1)

        def first_cycle():
            state = cycle.start(programs.setup, key)
            for after, _ in cycle.advance(programs.setup, key, state, lambda stage: 5):
                if after.cycle == 1:
                    return after.pick_rank
            return None

        return harness.seconds_of(first_cycle)

    peer = harness.Peer(
        "stage", arguments.huge_pages_for_peer,
        batch_size=arguments.batch_size, hidden=len(config.discriminator.hidden),
        latent=config.vae.latent, labelled=arguments.labelled, subset=arguments.subset,
        epochs=arguments.epochs, vae_steps=vae_steps,
    )  # fmt: skip
    times = harness.interleave(
        {"ours": ours, "PyTorch, released work": lambda: peer(untimed=0)}, arguments.rounds
    )
    peer.close()
    steps = training.stage_steps(config, programs.setup.size, config.initial, "task")
    title = f"cycle of {steps} steps of T, {vae_steps} of the VAE, {arguments.subset} scores"
    harness.report(title, times, None, arguments, peers=peer.about)


if __name__ == "__main__":
    main()
