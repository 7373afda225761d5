"""Whether a network, ours or one added from outside, can be trained as a config says."""

from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax.algorithm import values
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.engine import devices
from tavaal_jax.errors import UserError
from tavaal_jax.models import network_checks, networks
from tavaal_jax.models.network_checks import NetworkShapes
from tavaal_jax.models.networks import NETWORKS, SHIPPED, Network


def check_network(
    row: Network,
    config: ConfigDict | None = None,
    shape: tuple[int, ...] | None = None,
    classes: int = 10,
) -> NetworkShapes:
    """Try a row of `NETWORKS` on four random images; returns its size and its outputs' shapes.

    `config` (None: the default one) is what `build` is given, `shape` that of an image or of
    features (None: `(32, 32, 3)` or `(8,)`). Values are compared with `dtype="float32"`, as the
    rounding of bfloat16 differs with the size of a batch where a CPU computes in it. Raises
    UserError, in one line, for the first thing that a study could not work with, see
    `TaskNetwork`; what `build` or the network itself raises is raised as it is. Compiles the
    network a few times: seconds for a small one.
    """
    config = configs.default() if config is None else config
    if shape is None:
        shape = (8,) if row.inputs[0] == "features" else (32, 32, 3)
    fault = row.check(config, shape)
    if fault is not None:
        raise UserError(fault)
    try:
        found = network_checks.check_shapes(
            row.build(config, classes, shape, None), shape, classes, row.maps
        )
        exact = config.copy_and_resolve_references()
        exact.dtype = "float32"
        network_checks.check_values(
            lambda axis_name: row.build(exact, classes, shape, axis_name), shape, devices.AXIS
        )
    except UserError as error:
        raise UserError(f"the network cannot be used, {error}") from error
    return found


def check(
    config: ConfigDict,
    methods: list[str],
    dataset: str,
    shape: tuple[int, ...],
    classes: int,
    has_maps: bool,
) -> None:
    """Raises UserError where `task.network` does not fit a data set, the config or the methods.

    Computes nothing and starts no device.
    """
    name = config.task.network
    row = networks.find(name)
    if not row.fits(shape, has_maps):
        what = f"{shape[0]} features" if len(shape) == 1 else "images"
        if row.maps != has_maps:
            what = "label maps" if has_maps else "no label maps"
        fitting = [n for n, one in NETWORKS.items() if one.fits(shape, has_maps)]
        mend = f"choose one of {', '.join(fitting)}" if fitting else "add one to NETWORKS"
        raise UserError(f"task.network is {name!r}, and {dataset} has {what}: {mend}")
    fault = row.check(config, shape)
    if fault is not None:
        raise UserError(fault)
    if config.task.pretrained and row.published is None:
        known = [n for n, one in NETWORKS.items() if one.published is not None]
        raise UserError(
            f"task.pretrained is {config.task.pretrained}, and task.network is {name!r}: there are"
            f" such weights for {', '.join(known)} only"
        )
    if row not in SHIPPED:
        _check_from_outside(config, row, methods, shape, classes)


def _check_from_outside(
    config: ConfigDict, row: Network, methods: list[str], shape: tuple[int, ...], classes: int
) -> None:
    name = config.task.network
    network = row.build(config, classes, shape, None)
    try:
        found = network_checks.check_shapes(network, shape, classes, row.maps)
    except UserError as error:
        raise UserError(f"NETWORKS has {name!r}, and {error}") from error
    dropping = [method for method in methods if METHODS[method].dropout]
    if dropping and not found.drops:
        raise UserError(
            f"NETWORKS has {name!r}, and it drops no units, as {dropping[0]} needs: use"
            " tavaal_jax.models.dropout with its dropout_keys, or leave that method out"
        )
    last = [m for m in methods if METHODS[m].value in (values.disagreement, values.mixing)]
    if last and not hasattr(network, "head"):
        raise UserError(
            f"NETWORKS has {name!r}, and it has no method head, its last layer, which {last[0]}"
            " needs: give it one (see TaskNetwork), or leave that method out"
        )
