"""TA-VAAL, task-aware variational adversarial active learning (CVPR 2021), in JAX and Flax.

What a notebook needs stands here; importing it changes nothing, and imports nothing heavy before
it is used. Shapes are written in docstrings with these letters:

B batch, D devices, H W C image height, width, channels, K classes, Z latent size, E embedding size,
N training images, M subset size, b budget; L and U are the labelled and the unlabelled images.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"

if TYPE_CHECKING:
    from tavaal_jax import models
    from tavaal_jax.algorithm import adversary, losses, picks, values
    from tavaal_jax.algorithm.methods import METHODS, Method
    from tavaal_jax.config import default as default_config
    from tavaal_jax.config_file import load as load_config
    from tavaal_jax.data import SETS, DataFacts, Dataset, DataSource
    from tavaal_jax.errors import Interrupted, UserError, WaitingForLabels
    from tavaal_jax.labelling.embed import Embedded, embed
    from tavaal_jax.models import NETWORKS, Network, TaskNetwork, TaskOutput
    from tavaal_jax.report.progress import Event
    from tavaal_jax.report.result import StudyResult
    from tavaal_jax.run import run_study
    from tavaal_jax.study.checks.methods import check_method
    from tavaal_jax.study.checks.networks import check_network
    from tavaal_jax.study.model import Model, load_model
    from tavaal_jax.study.notebook.estimator import Learner
    from tavaal_jax.study.notebook.query import Query, query

_PLACES = {
    "METHODS": "algorithm.methods:METHODS",
    "Method": "algorithm.methods:Method",
    "adversary": "algorithm.adversary",
    "losses": "algorithm.losses",
    "picks": "algorithm.picks",
    "values": "algorithm.values",
    "models": "models",
    "NETWORKS": "models:NETWORKS",
    "Network": "models:Network",
    "TaskNetwork": "models:TaskNetwork",
    "TaskOutput": "models:TaskOutput",
    "check_method": "study.checks.methods:check_method",
    "check_network": "study.checks.networks:check_network",
    "default_config": "config:default",
    "load_config": "config_file:load",
    "SETS": "data:SETS",
    "DataFacts": "data:DataFacts",
    "DataSource": "data:DataSource",
    "Dataset": "data:Dataset",
    "Interrupted": "errors:Interrupted",
    "UserError": "errors:UserError",
    "WaitingForLabels": "errors:WaitingForLabels",
    "Embedded": "labelling.embed:Embedded",
    "embed": "labelling.embed:embed",
    "Learner": "study.notebook.estimator:Learner",
    "Event": "report.progress:Event",
    "StudyResult": "report.result:StudyResult",
    "Query": "study.notebook.query:Query",
    "query": "study.notebook.query:query",
    "run_study": "run:run_study",
    "Model": "study.model:Model",
    "load_model": "study.model:load_model",
}
__all__ = [
    "METHODS", "NETWORKS", "SETS", "DataFacts", "DataSource", "Dataset", "Embedded", "Event",
    "Interrupted", "Learner", "Method", "Model",
    "Network", "Query", "StudyResult", "TaskNetwork", "TaskOutput", "UserError", "WaitingForLabels",
    "adversary", "check_method", "check_network", "default_config", "embed", "load_config",
    "load_model", "losses", "models", "picks", "query", "run_study", "values",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imports a name when it is first used."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    found = importlib.import_module(f"{__name__}.{module}")
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
