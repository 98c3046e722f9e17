"""`fit` on its own: methods that learn from the whole design set are updated on their way."""

import jax
import jax.numpy as jnp
import numpy as np

from edd.distillers import supervised
from edd.experiments import build, settings, stages


def test_a_method_is_updated_from_all_examples_whatever_the_mesh():
    inputs = np.arange(20, dtype=np.float32).reshape(10, 2)
    plain = supervised.make(1, 3)
    distiller = plain._replace(
        init=lambda key: ({}, {"sum": jnp.zeros(()), "calls": jnp.zeros(())}),
        statistics=lambda outputs, targets, params, state: jnp.ones(outputs.logits.shape[0]).sum(),
        update=lambda statistics, variables, params, state, step: (
            variables,
            params,
            {"sum": state["sum"] + statistics, "calls": state["calls"] + 1},
        ),
        update_from="design_set",
        update_every=2,
    )
    training = settings.Training(settings.Model("mlp", {"widths": [4]}), epochs=1.0, max_steps=5, batch_size=2)
    model = distiller.student(build.backbone(training.model))
    arrays = {"inputs": inputs, "labels": np.zeros(10, np.int32)}
    found = stages.fit("student", training, model, distiller, arrays, lambda x: x, num_replicas=1, seed=0, progress=False)
    assert jax.device_count() == 8  # ten examples leave padding on every mesh
    assert found.state["calls"].tolist() == [3.0] and found.state["sum"].tolist() == [30.0]
