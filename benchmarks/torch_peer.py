"""The peer: PyTorch as its users run it, eager or compiled, reimplemented, in its own process.

The networks and the work per step are those of the authors' released code (SGD on ResNet-18 with
the Ranker, then VAE and discriminator), in plain PyTorch. Each kind of work is a class with a
method `run`; the memory format is the faster one, found at the start. On a GPU cuDNN benchmarks its
algorithms first and TF32 is allowed, as in XLA. `compiled`: losses and ranks, all but the
optimisers' steps, by `torch.compile`; `bfloat16`: under autocast.

Run by the other scripts over pipes, so that neither side's allocator, threads or environment
affects the other's: a line of JSON in, `{"untimed": 1, "timed": 3}` runs, a line out.
"""

import argparse
import json
import pathlib
import sys
import time

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests"))
from torch_models import DRND22
from torch_networks import BACKBONES, VAE, Discriminator, Ranker, ResNet18


def ranking_loss(predicted, target):
    """Equation (1) on pairs (i, B-1-i)."""
    half = len(predicted) // 2
    difference = (predicted - predicted.flip(0))[:half]
    larger = ((target - target.flip(0))[:half] > 0).float().detach()
    return functional.binary_cross_entropy_with_logits(difference, larger)


def vae_loss(x, decoded, mean, log_variance):
    """Reconstruction and KL."""
    kl = -0.5 * torch.mean(1 + log_variance - mean.square() - log_variance.exp())
    return functional.mse_loss(decoded, x) + kl


def bce(logits, value):
    """Binary cross-entropy against a constant."""
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, value))


def compiled(function, arguments):
    """The function, by `torch.compile` where the arguments say so."""
    return torch.compile(function) if arguments.get("compiled") else function


class Task:
    """One step of T and R."""

    def __init__(self, arguments, to):
        self.size, self.to = arguments["batch_size"], to
        self.net, self.ranker = to(ResNet18(100)).train(), Ranker()
        params = [*self.net.parameters(), *self.ranker.parameters()]
        self.optimiser = torch.optim.SGD(params, 0.1, momentum=0.9, weight_decay=5e-4)
        self.images = to(torch.randn(self.size, 3, 32, 32))
        self.labels = torch.randint(0, 100, (self.size,))
        self.loss = compiled(self.loss, arguments)

    def loss(self, images, labels):
        """Equation (2)."""
        logits, taps = self.net(images)
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return losses.mean() + ranking_loss(self.ranker(taps), losses)

    def step(self, images, labels):
        """SGD with equation (2)."""
        self.optimiser.zero_grad()
        self.loss(images, labels).backward()
        self.optimiser.step()

    def run(self):
        """One step on random images."""
        self.step(self.images, self.labels)


class Adversary:
    """One step of VAE and discriminator on random images; subclasses say how much of it."""

    released: bool

    def __init__(self, arguments, to):
        size, latent = arguments["batch_size"], arguments["latent"]
        self.vae = to(VAE(latent)).train()
        self.discriminator = Discriminator(latent, arguments["hidden"])
        self.vae_optimiser = torch.optim.Adam(self.vae.parameters(), 5e-4)
        self.d_optimiser = torch.optim.Adam(self.discriminator.parameters(), 5e-4)
        self.net, self.ranker = to(ResNet18(100)).eval(), Ranker()
        self.pools = [to(torch.randn(size, 3, 32, 32)) for _ in range(2)]
        self.ranks = [torch.rand(size, 1) for _ in range(2)]
        for name in ("rank_of", "vae_loss", "mean_of", "d_loss"):
            setattr(self, name, compiled(getattr(self, name), arguments))

    def rank_of(self, x):
        """Normalised ranks `[B, 1]`."""
        return torch.sigmoid(self.ranker(self.net(x)[1]))[:, None]

    def vae_loss(self, pools, ranks):
        """Equation (4) of both pools and (5)."""
        loss = 0.0
        for x, rank in zip(pools, ranks, strict=True):
            decoded, mean, log_variance = self.vae(rank, x)
            loss = loss + vae_loss(x, decoded, mean, log_variance)
            loss = loss + bce(self.discriminator(rank, mean), 1.0)
        return loss

    def mean_of(self, x, rank):
        """Means of the latents; the released code decodes once more for them."""
        return self.vae(rank, x)[1] if self.released else self.vae.encode(x)[0]

    def d_loss(self, means, ranks):
        """Equation (6)."""
        loss = 0.0
        for mean, rank, value in zip(means, ranks, (1.0, 0.0), strict=True):
            loss = loss + bce(self.discriminator(rank, mean), value)
        return loss

    def step(self, pools, ranks):
        """VAE, then D; the released code computes the ranks anew."""
        if self.released:
            with torch.no_grad():
                ranks = [self.rank_of(x) for x in pools]
        self.vae_optimiser.zero_grad()
        self.vae_loss(pools, ranks).backward()
        self.vae_optimiser.step()
        with torch.no_grad():
            means = [self.mean_of(x, rank) for x, rank in zip(pools, ranks, strict=True)]
        self.d_optimiser.zero_grad()
        self.d_loss(means, ranks).backward()
        self.d_optimiser.step()

    def run(self):
        """One step on random images."""
        self.step(self.pools, self.ranks)


class Released(Adversary):
    """The released code's step: ranks by T and R on both batches, the whole VAE for D."""

    released = True


class Reduced(Adversary):
    """Only what the result needs, as ours: constant ranks, the encoder alone for D."""

    released = False


class Joint(Reduced):
    """One step of Algorithm 1: ranks of both batches, T and R, then VAE and D."""

    def __init__(self, arguments, to):
        super().__init__(arguments, to)
        self.task = Task(arguments, to)
        self.net, self.ranker = self.task.net, self.task.ranker

    def run(self):
        """The ranks are in evaluation mode, as ours."""
        self.net.eval()
        with torch.no_grad():
            ranks = [self.rank_of(x) for x in self.pools]
        self.net.train()
        self.task.run()
        self.step(self.pools, ranks)


class Score(Adversary):
    """Scores of one batch of images: T, R, encoder, D in evaluation mode."""

    released = False

    def __init__(self, arguments, to):
        super().__init__(arguments, to)
        self.vae.eval()
        self.discriminator.eval()
        self.score = compiled(self.score, arguments)

    def score(self, x):
        """D's logits `[B]`."""
        rank = torch.sigmoid(self.ranker(self.net(x)[1]))[:, None]
        return self.discriminator(rank, self.vae.encode(x)[0])

    def run(self):
        """One batch."""
        with torch.inference_mode():
            self.score(self.pools[0])


class Stage(Released):
    """One two-phase TA-VAAL cycle as the released code runs it, scoring of the subset included.

    T and R for `epochs` on the labelled images (crop and flip), then VAE and D for `vae_steps`,
    then D of the subset. Images are in memory as floats; the released code's loader takes longer.
    """

    def __init__(self, arguments, to):
        super().__init__(arguments, to)
        self.task = Task(arguments, to)
        self.net, self.ranker = self.task.net, self.task.ranker
        self.arguments, self.to = arguments, to
        self.labelled = torch.randn(arguments["labelled"], 3, 32, 32)
        self.labels = torch.randint(0, 100, (len(self.labelled),))
        self.subset = torch.randn(arguments["subset"], 3, 32, 32)

    def augmented(self, images):
        """Random crop from 36 pixels and flip, each image its own."""
        padded = functional.pad(images, (2, 2, 2, 2))
        count, pixels = len(images), torch.arange(32)
        rows = torch.randint(0, 5, (count, 1)) + pixels
        columns = torch.randint(0, 5, (count, 1)) + pixels
        columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
        number = torch.arange(count)[:, None, None, None]
        channel = torch.arange(images.shape[1])[:, None, None]
        return self.to(padded[number, channel, rows[:, None, :, None], columns[:, None, None]])

    def run(self):
        """The whole cycle."""
        size, labelled = self.task.size, len(self.labelled)
        self.net.train()
        for _ in range(self.arguments["epochs"]):
            order = torch.randperm(labelled)
            for start in range(0, labelled - size + 1, size):
                rows = order[start : start + size]
                self.task.step(self.augmented(self.labelled[rows]), self.labels[rows])
        self.net.eval()
        self.vae.train()
        for _ in range(self.arguments["vae_steps"]):
            pools = [
                self.to(x[torch.randint(0, len(x), (size,))]) for x in (self.labelled, self.subset)
            ]
            self.step(pools, None)
        self.vae.eval()
        with torch.inference_mode():
            scores = []
            for x in map(self.to, self.subset.split(size)):
                rank = torch.sigmoid(self.ranker(self.net(x)[1]))[:, None]
                scores.append(self.discriminator(rank, self.vae.encode(x)[0]))
        torch.cat(scores).argsort()[:labelled]


class Segment:
    """One step of DRN-D-22 on windows of 412 pixels, 19 classes."""

    def __init__(self, arguments, to):
        self.net = to(DRND22(19)).train()
        self.optimiser = torch.optim.SGD(
            self.net.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4
        )
        self.images = to(torch.randn(arguments["batch_size"], 3, 412, 412))
        self.labels = torch.randint(0, 19, (arguments["batch_size"], 412, 412))

    def run(self):
        """SGD on the mean over the labelled pixels."""
        self.optimiser.zero_grad()
        functional.cross_entropy(self.net(self.images), self.labels, ignore_index=255).backward()
        self.optimiser.step()


class SegmentScore:
    """The mean entropy of one whole image's pixels."""

    def __init__(self, arguments, to):
        self.net = to(DRND22(19)).eval()
        self.image = to(torch.randn(1, 3, arguments["height"], arguments["width"]))

    def run(self):
        """One image."""
        with torch.inference_mode():
            logs = functional.log_softmax(self.net(self.image), 1)
            -(logs.exp() * logs).sum(1).mean()


class Features:
    """Features of one batch of images by a backbone in evaluation mode, compiled or eager."""

    def __init__(self, arguments, to):
        self.net = to(BACKBONES[arguments["network"]]()).eval()
        if arguments["compiled"]:
            self.net = torch.compile(self.net)
        self.images = to(torch.randn(arguments["batch_size"], 3, 224, 224))

    def run(self):
        """One batch."""
        with torch.inference_mode():
            self.net(self.images)


WORK = {
    "task": Task, "released": Released, "reduced": Reduced, "joint": Joint, "score": Score,
    "stage": Stage, "segment": Segment, "segment_score": SegmentScore,
    "features": Features,
}  # fmt: skip


def in_bfloat16(kind):
    """The kind of work under autocast, which is entered in each run, as in a training loop."""

    class Cast(kind):
        def run(self):
            with torch.autocast(torch.get_default_device().type, torch.bfloat16):
                super().run()

    return Cast


def seconds(work, untimed=0, timed=1):
    """Wall time of some runs after some others."""
    for _ in range(untimed):
        work.run()
    wait()
    begin = time.perf_counter()
    for _ in range(timed):
        work.run()
    wait()
    return time.perf_counter() - begin


def wait():
    """Until the GPU, if there is one, has done everything."""
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()


def faster_format(kind, arguments):
    """The work in whichever memory format runs a step faster, after one step to warm up."""
    formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    times = {}
    probe = WORK["released"] if kind is Stage else kind
    for name, memory_format in formats.items():
        work = probe(arguments, lambda x, f=memory_format: x.to(memory_format=f))
        times[name] = min(seconds(work, untimed=1) for _ in range(2))
    best = min(times, key=times.get)
    return kind(arguments, lambda x: x.to(memory_format=formats[best])), best, times


def main():
    """Serves the runs that each line on stdin asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=sorted(WORK))
    parser.add_argument("arguments", type=json.loads)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_default_device(options.arguments.get("device", "cpu"))
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    kind = WORK[options.work]
    kind = in_bfloat16(kind) if options.arguments.get("bfloat16") else kind
    work, memory_format, times = faster_format(kind, options.arguments)
    gflop = None
    if options.work != "stage" and not options.arguments.get("compiled"):
        with FlopCounterMode(display=False) as counter:
            work.run()
        gflop = counter.get_total_flops() / 1e9
    about = {
        "torch": torch.__version__, "threads": torch.get_num_threads(), "gflop": gflop,
        "memory_format": memory_format, "format_seconds": times,
        "device": torch.get_default_device().type,
    }  # fmt: skip
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        print(json.dumps({"seconds": seconds(work, **json.loads(line))}), flush=True)


if __name__ == "__main__":
    main()
