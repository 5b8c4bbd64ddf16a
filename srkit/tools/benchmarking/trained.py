"""The network and the evaluation sets of an option file, of a training or a test; speed does not depend on weights."""

from __future__ import annotations

from srkit import build
from srkit.engine.distributed import Group, join_group
from srkit.engine.evaluator import EvalSet
from srkit.engine.precision import Precision
from srkit.engine.restorer import Restorer
from srkit.options import Options
from srkit.test_run import load_models


def restorer_and_sets(options: Options, with_sets: bool = True) -> tuple[Restorer, list[EvalSet]]:
    """What tests run. A test file's model file has to exist; a training file's network begins with the seed's weights.

    Raises: SrkitError for what cannot be built.
    """
    group: Group = join_group("none", options.num_gpu, backend=None, port=0, timeout_s=0)[0]
    if options.train is None:
        model = load_models(options, group)[0]
        return model.restorer, model.sets
    part = options.networks["network_g"]
    build.seed_networks(options.manual_seed)
    network = build.place(build.build_network(part.type, part.options, options.scale), group.device)
    tile, overlap = build.tile_of(options)
    restorer = Restorer(
        network,
        normalization=build.build_normalization(options),
        scale=options.scale,
        device=group.device,
        precision=Precision(options.val.precision, group.device),
        tile=tile,
        overlap=overlap,
    )
    read_as = build.read_as(options.datasets["train"])
    return restorer, build.build_eval_sets(options, read_as) if with_sets else []
