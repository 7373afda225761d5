"""Every key there is, with CIFAR-10's values (Table 1 of the paper); not an experiment by
itself."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """All keys. An experiment starts from these and overrides a few."""
    config = ConfigDict()

    config.dataset = "cifar10"  # a name in tavaal_jax.data.SOURCES
    config.data_dir = "~/.cache/tavaal_jax/data"  # prepared and decoded data sets
    config.seed = 0  # with the trial's number, the root of all randomness
    config.methods = (
        "random,tavaal"  # comma-separated names in tavaal_jax.methods.METHODS, or "all"
    )
    config.trials = 5  # repetitions, paired: methods share initial set, subset and weights
    config.cycles = 10  # trainings per run; images are picked after each but the last
    config.initial = 1000  # images labelled at the start, drawn at random
    config.budget = 1000  # images labelled after each cycle
    config.subset = 10_000  # random unlabelled images that are scored; 0: all of them
    config.epochs = 200  # passes over the labelled images in each cycle
    config.batch_size = 128  # of all devices together; a multiple of twice their number
    config.schedule = "joint"  # "joint" (Algorithm 1) or "two_phase" (the released code)
    config.dtype = "float32"  # of the networks' arithmetic: "float32" or "bfloat16"
    config.rank_to_discriminator = "normalised"  # or "raw" (the released code)

    config.imbalance = ConfigDict()
    config.imbalance.ratio = 1  # the classes below keep 1/ratio of their training images
    config.imbalance.classes = (0, 1, 2, 3, 4)

    config.augmentation = ConfigDict()
    config.augmentation.pad = 2  # pixels of zeros on each side before the random crop
    config.augmentation.flip = True  # horizontally, half of the time

    config.task = ConfigDict()
    config.task.network = "resnet"  # or "mlp", for feature vectors
    config.task.widths = (64, 128, 256, 512)  # channels of each stage; units of each hidden layer
    config.task.blocks = (2, 2, 2, 2)  # basic blocks in each stage
    config.task.optimiser = "sgd"  # or "adam"
    config.task.learning_rate = 0.1
    config.task.momentum = 0.9  # of SGD
    config.task.weight_decay = 5e-4  # L2, also on the Ranker; the paper says 5e-3
    config.task.decay_at = 0.8  # fraction of the epochs after which the learning rate drops ...
    config.task.decay_factor = 0.1  # ... by this factor

    config.ranker = ConfigDict()
    config.ranker.features = 128  # units per tap; 0: a single layer on the taps
    config.ranker.eta = 1.0  # weight of the ranking loss, equation (2)
    config.ranker.until_fraction = 0.8  # of the epochs, after which the Ranker is ...
    config.ranker.after = "freeze"  # ... not updated ("freeze") or cut off from T ("detach")

    config.mc_dropout = ConfigDict()  # method mc_dropout only: no other method drops units
    config.mc_dropout.measure = "max_entropy"  # or "bald", "variation_ratios"
    config.mc_dropout.passes = 20  # through T, each with other units dropped
    config.mc_dropout.rate = 0.5  # probability with which a unit is dropped, in training too
    config.mc_dropout.place = "head"  # before T's last layer, or "stages": after each stage

    config.vae = ConfigDict()
    config.vae.network = "conv"  # or "mlp", for feature vectors
    config.vae.latent = 64  # Z
    config.vae.image_size = 0  # side of what it sees; 0: next power of two, at most 64
    config.vae.widths = (128, 256, 512, 1024)  # channels of each stage, the last one repeats
    config.vae.optimiser = "adam"
    config.vae.learning_rate = 5e-4
    config.vae.momentum = 0.9  # of SGD
    config.vae.weight_decay = 0.0
    config.vae.beta = 1.0  # weight of KL, equation (4)
    config.vae.adversarial_weight = 1.0  # lambda, weight of equation (5)
    config.vae.unlabelled = "all"  # what it trains on beside L: "all" of U or the "subset"
    config.vae.epochs = 100  # two_phase only: (labels + M) * epochs / batch_size steps

    config.discriminator = ConfigDict()
    config.discriminator.hidden = (512, 512, 512, 512)  # one dense layer more than given here
    config.discriminator.optimiser = "adam"
    config.discriminator.learning_rate = 5e-4
    config.discriminator.momentum = 0.9  # of SGD
    config.discriminator.weight_decay = 0.0

    config.score_batch_size = 128  # images per device and call in scoring and evaluation
    config.diagnostics = True  # after each choice, what the true labels say of it

    # None of the keys below changes a result.
    config.first_trial = 0  # trials before it are left to other processes with other workdirs
    config.steps_per_call = 50  # most training steps in one call to the devices
    config.seconds_per_call = 5.0  # calls are cut shorter where steps are slow; 0: never
    config.log_every_steps = 50
    config.checkpoint_every_steps = 1000
    config.tensorboard = False  # also write event files (extra "tensorboard")

    return config.lock()
