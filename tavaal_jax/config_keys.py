"""Every key of a config, once: default, comment, limit, and whether it changes results.

The defaults are CIFAR-10's, on Table 1 of the paper; `config` makes configs of them.
"""

from typing import Any, NamedTuple

from tavaal_jax.limits import (
    Limit,
    amounts,
    at_least,
    byte,
    classes,
    fraction,
    image_size,
    low_high,
    metric_names,
    numbers,
    one_of,
    positive,
    rate,
    seed,
    share,
    sides,
    strides,
    texts,
    whole,
    widths,
)


class Key(NamedTuple):
    """One key of a config."""

    default: Any
    """None: to be set to True or False."""
    comment: str
    limit: Limit | None = None
    neutral: bool = False
    """Changes no result, or, like more trials, only adds some."""


_OPTIMISER = one_of("sgd", "adam")

KEYS: dict[str, Key] = {
    "dataset": Key("cifar10", 'a name in tavaal_jax.SETS, or "people": your own images'),
    "data_dir": Key("~/.cache/tavaal_jax/data", "prepared and decoded data sets", neutral=True),
    "seed": Key(0, "with the trial's number, the root of all randomness", seed),
    "methods": Key(
        "random,tavaal", 'comma-separated names in METHODS, or "all"', neutral=True
    ),
    "trials": Key(
        5, "repetitions, paired: methods share initial set, subset and weights", at_least(1), True
    ),
    "first_trial": Key(0, "trials before it are left to other workdirs", at_least(0), True),
    "cycles": Key(
        10, "trainings per trial; picks follow each but the last; of a folder 0: until all is"
        " labelled", at_least(0),
    ),
    "initial": Key(1000, "images labelled at the start", at_least(1)),
    "first_by": Key(
        "random", "how they are chosen; of features also by a method that needs no label, typiclust"
        " or max_herding: the same for all methods"
    ),
    "budget": Key(1000, "images picked in each cycle", at_least(1)),
    "subset": Key(10_000, "random unlabelled images that are scored; 0: all of them", at_least(0)),
    "epochs": Key(200, "passes over the labelled images in each cycle", at_least(1)),
    "batch_size": Key(
        128, "of all devices together; a multiple of twice their number", at_least(2)
    ),
    "schedule": Key(
        "joint", '"joint" (Algorithm 1) or "two_phase" (the released code)',
        one_of("joint", "two_phase"),
    ),
    "dtype": Key("float32", "of the networks' arithmetic", one_of("float32", "bfloat16")),
    "rank_to_discriminator": Key(
        "normalised", 'or "raw" (the released code), or "none"',
        one_of("normalised", "raw", "none"),
    ),
    "rank_to_decoder": Key("normalised", 'or "none"', one_of("normalised", "none")),
    "imbalance.ratio": Key(
        1, "the classes below keep 1/ratio of their training images", at_least(1)
    ),
    "imbalance.classes": Key((0, 1, 2, 3, 4), "labels", whole),
    "normalisation.mean": Key(
        (), "per channel, of images scaled to [0, 1]; empty: the training set's own", numbers
    ),
    "normalisation.deviation": Key((), "likewise", numbers),
    "normalisation.features": Key(
        "auto", '"each" feature gets deviation 1, "together": one factor for all, which a linear T'
        ' needs; "auto": together on the features of a network, else each',
        one_of("auto", "each", "together"),
    ),
    "augmentation.pad": Key(
        2, "pixels of zeros on each side before the random crop", at_least(0)
    ),
    "augmentation.flip": Key(True, "horizontally, half of the time"),
    "augmentation.crop": Key(
        0, "maps only: side of the random window that T is trained on; 0: all", at_least(0)
    ),
    "cityscapes.folder": Key(
        "", "with leftImg8bit/ and gtFine/ unpacked; empty: cityscapes/ in data_dir", neutral=True
    ),
    "cityscapes.cache": Key(
        False, "decode all pictures once, to 29 GB in data_dir; else whenever they are read",
        neutral=True,
    ),
    "labelled_folder.path": Key(
        "", "with train/<class>/ and test/<class>/ (or val), or with <class>/ alone", neutral=True
    ),
    "labelled_folder.test_fraction": Key(
        0.25, "without a test set: share of each class's photos that is one", rate
    ),
    "labelled_folder.image_size": Key(64, "pixels, to which photos are decoded", at_least(4)),
    "labelled_folder.channels": Key(3, "or 1: grey", one_of(1, 3)),
    "labelled_folder.resize": Key(
        "stretch", 'or "crop": the middle; or "pad"', one_of("stretch", "crop", "pad")
    ),
    "labelled_folder.low_high": Key(
        (), "values of 16-bit and float images that become 0 and 255; empty: all", low_high
    ),
    "labelled_folder.max_pixels": Key(10**8, "larger photos are passed over", at_least(1)),
    "maps_folder.images": Key("", "folder of images", neutral=True),
    "maps_folder.maps": Key("", "folder of label maps, PNGs named as their images", neutral=True),
    "maps_folder.train": Key(
        "train", "sub-folder of both, or a text file that names images", neutral=True
    ),
    "maps_folder.test": Key("", "likewise; empty: test, or val without one", neutral=True),
    "maps_folder.class_names": Key((), "in order of the maps' values; empty: numbers", classes),
    "maps_folder.ignore": Key(255, "value of pixels that are of no class", byte),
    "maps_folder.image_size": Key(
        (), "(height, width) to which all are resized; empty: all have the same size", sides
    ),
    "maps_folder.cache": Key(
        False, "decode all once, to data_dir; else whenever they are read", neutral=True
    ),
    "folder.images": Key("", "people's images, searched in all its sub-folders", neutral=True),
    "folder.follow_links": Key(
        False, "images behind links that lead out of folder.images, too", neutral=True
    ),
    "folder.classes": Key((), "names in order; empty: as labels name them", classes),
    "folder.class_folders": Key(
        None, "whether sub-folders are classes; None: those that are named in classes are"
    ),
    "folder.test": Key("", "a fixed test set: a folder with a sub-folder per class, or a csv"),
    "folder.test_fraction": Key(
        0.25, "without it: share of each request drawn at random for the test set", rate
    ),
    "folder.labels": Key((), "more label files or folders beside <workdir>/labels", texts),
    "folder.labels_strict": Key(True, "a row that fits no image stops the run"),
    "folder.unsure": Key(("unsure", "skip", "?"), "answers that mean: nobody can say", texts),
    "folder.exclude_answers": Key(
        ("bad", "bad image"), "answers that mean: not for training at all", texts
    ),
    "folder.ask_again": Key(False, "images of which nobody was sure, once more at the end"),
    "folder.wait_for": Key(1.0, "share of a request that must be answered", share),
    "folder.image_size": Key(64, "pixels, to which images are decoded", at_least(4)),
    "folder.channels": Key(3, "or 1: grey", one_of(1, 3)),
    "folder.resize": Key(
        "stretch", 'or "crop": the middle; or "pad"', one_of("stretch", "crop", "pad")
    ),
    "folder.low_high": Key(
        (), "values of 16-bit and float images that become 0 and 255; empty: all", low_high
    ),
    "folder.max_pixels": Key(10**8, "larger images are listed, not opened", at_least(1)),
    "folder.suggest": Key(False, "requests show what the model would say", neutral=True),
    "folder.request_parts": Key(
        1, "files that a request's table is divided into, for several people", at_least(1), True
    ),
    "folder.label_studio_images": Key(
        "embed", 'in its tasks; or "local": served by Label Studio', one_of("embed", "local"), True
    ),
    "folder.label_studio_root": Key("", "its document root, for local images", neutral=True),
    "folder.keep_annotators": Key(False, "names and addresses as Label Studio gives them"),
    "folder.near_duplicates": Key(
        0.0, "cosine of two images' features above which they are near-duplicates, in studies too:"
        " a pick has one of them, and none is trained on where one is in the test set; 0: off",
        rate,
    ),
    "folder.poll_seconds": Key(0, "look for answers that often; 0: stop and be started again",
        at_least(0), True),
    "backbone.name": Key(
        "", "frozen network on whose features all is trained, efficientnet_lite0 or another; empty:"
        " none, from scratch"
    ),
    "backbone.weights": Key(
        "", "file of its weights, .safetensors, .npz or .pth; empty: an installed package's",
        neutral=True,
    ),
    "backbone.image_size": Key(
        0, "pixels, to which images are decoded or resized for it; 0: its own", at_least(0)
    ),
    "backbone.features": Key(
        "", "instead of a backbone: a file of features, .npz or .npy with ids", neutral=True
    ),
    "task.network": Key(
        "resnet", 'a name in NETWORKS: "drn" for label maps, "mlp" or "linear" for feature vectors'
    ),
    "task.stem": Key(
        "cifar", 'of resnet; or "imagenet": stride 2 and a max-pool', one_of("cifar", "imagenet")
    ),
    "task.widths": Key(
        (64, 128, 256, 512), "channels of each stage or level; units of each hidden layer", widths
    ),
    "task.blocks": Key((2, 2, 2, 2), "in each stage of resnet, or level of drn", widths),
    "task.pretrained": Key(
        "", "a file of published weights, .npz, .safetensors or .pth, that every cycle starts from"
    ),
    "task.strides": Key((1, 2, 2, 2), "of the first four levels of drn", strides),
    "task.class_weights": Key(
        "", 'or "balanced": classes with few labels weigh more in T\'s loss', one_of("", "balanced")
    ),
    "task.optimiser": Key("sgd", 'or "adam"', _OPTIMISER),
    "task.learning_rate": Key(0.1, "of T and R", positive),
    "task.momentum": Key(0.9, "of SGD", fraction),
    "task.weight_decay": Key(5e-4, "L2, also on the Ranker; the paper says 5e-3", at_least(0)),
    "task.decay_at": Key(
        0.8, "fraction of the epochs after which the learning rate drops ...", fraction
    ),
    "task.decay_factor": Key(0.1, "... by this factor", fraction),
    "ranker.features": Key(128, "units per tap; 0: a single layer on the taps", at_least(0)),
    "ranker.loss_weight": Key(1.0, "weight of the ranking loss, equation (2)", at_least(0)),
    "ranker.active_fraction": Key(0.6, "of the epochs, after which the Ranker is ...", fraction),
    "ranker.when_inactive": Key(
        "detach", '... cut off from T ("detach") or not updated ("freeze", 0.8: Algorithm 1)',
        one_of("freeze", "detach"),
    ),
    "mc_dropout.measure": Key(
        "max_entropy", "of the method mc_dropout; bald and power_bald take bald",
        one_of("max_entropy", "bald", "variation_ratios"),
    ),
    "mc_dropout.passes": Key(20, "through T, each with other units dropped", at_least(1)),
    "mc_dropout.rate": Key(
        0.5, "probability with which a unit is dropped, in training too", rate
    ),
    "mc_dropout.place": Key(
        "head", 'before T\'s last layer, or "stages": after each stage', one_of("head", "stages")
    ),
    "vae.network": Key("conv", 'or "mlp", for feature vectors', one_of("conv", "mlp")),
    "vae.latent": Key(64, "Z", at_least(1)),
    "vae.image_size": Key(
        0, "side of what it sees; 0: next power of two, at most 64", image_size
    ),
    "vae.widths": Key(
        (128, 256, 512, 1024), "channels of each stage, the last one repeats", widths
    ),
    "vae.optimiser": Key("adam", 'or "sgd"', _OPTIMISER),
    "vae.learning_rate": Key(5e-4, "constant", positive),
    "vae.momentum": Key(0.9, "of SGD", fraction),
    "vae.weight_decay": Key(0.0, "L2", at_least(0)),
    "vae.beta": Key(1.0, "weight of KL, equation (4)", at_least(0)),
    "vae.adversarial_weight": Key(1.0, "lambda, weight of equation (5)", at_least(0)),
    "vae.unlabelled": Key(
        "all", 'what it trains on beside L: "all" of U or the "subset"', one_of("all", "subset")
    ),
    "vae.updates": Key(
        1, "joint only: of VAE and D in each step; 1 is Algorithm 1", at_least(1)
    ),
    "vae.epochs": Key(
        100, "two_phase only: (labels + M) * epochs / batch_size steps", at_least(1)
    ),
    "discriminator.hidden": Key(
        (512, 512, 512, 512), "one dense layer more than given here", widths
    ),
    "discriminator.optimiser": Key("adam", 'or "sgd"', _OPTIMISER),
    "discriminator.learning_rate": Key(5e-4, "constant", positive),
    "discriminator.momentum": Key(0.9, "of SGD", fraction),
    "discriminator.weight_decay": Key(0.0, "L2", at_least(0)),
    "sraal.hidden": Key(
        (1024, 256), "of the method sraal: layers that tell the class from half of Z", widths
    ),
    "sraal.eta": Key(1.0, "weight of their loss in the VAE's", at_least(0)),
    "score_batch_size": Key(
        128, "images per device and call in scoring and evaluation", at_least(1)
    ),
    "metrics": Key(
        "accuracy", "of classes of images, the first one in front: or accuracy,balanced_accuracy,"
        "macro_f1", metric_names,
    ),
    "diagnostics": Key(True, "after each choice, what the true labels say of it"),
    "data_placement": Key(
        "auto", 'on the devices ("resident") or read ahead ("streamed", as undecoded pictures are)',
        one_of("auto", "resident", "streamed"), True,
    ),
    "parallel": Key(
        "devices", 'a trial runs on all devices; "trials": on one, in a process of its own; "ray":'
        " the same on all machines of a Ray cluster", one_of("devices", "trials", "ray"), True,
    ),
    "workers": Key(
        0, "not for devices: most trials at the same time; 0: one for each device, or core of the"
        " CPU", at_least(0), True
    ),
    "ray.address": Key(
        "", "host:port of a Ray cluster, or local: a new one; empty: RAY_ADDRESS, or one that runs"
        " here, or a new one", neutral=True,
    ),
    "ray.share": Key(
        "", 'of a trial, such as "GPU=0.5" or "CPU=4"; empty: a GPU or TPU if there are some, else'
        " a core", amounts, True,
    ),
    "steps_per_call": Key(50, "most training steps in one call to the devices", at_least(1), True),
    "seconds_per_call": Key(
        5.0, "calls are cut shorter where steps are slow; 0: never", at_least(0), True
    ),
    "log_every_steps": Key(50, "a line of metrics.jsonl", at_least(1), True),
    "checkpoint_every_steps": Key(
        1000, "and when a training stage or cycle ends, if the last one is 5 s ago",
        at_least(1), True,
    ),
}  # fmt: skip
