"""`fit` on its own: methods that learn from the whole design set are updated on their way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_a_student_may_begin_from_a_member():
    network = settings.Model("mlp", {"widths": [4]})
    still = settings.Training(network, settings.Optimizer("sgd", 1e-30), max_steps=2, batch_size=2, ema_decay=0.5)
    distiller = supervised.make(1, 3)
    arrays = {"inputs": np.ones((10, 2), np.float32), "labels": np.zeros(10, np.int32)}
    common = {"preprocess": lambda x: x, "seed": 0, "progress": False, "num_replicas": 2}
    model = build.backbone(network)(3)
    teacher = stages.fit("teacher", still, model, distiller, arrays, **common)
    student = settings.Student("end", still, start="member")
    start = stages.beginning(student, teacher)
    trained = stages.fit("student", still, model, distiller, arrays, start=start, **common)
    for own, theirs in zip(jax.tree.leaves(trained.variables), jax.tree.leaves(teacher.variables)):
        np.testing.assert_allclose(own, np.broadcast_to(theirs[0], own.shape), atol=1e-20)
    assert not np.array_equal(*jax.tree.leaves(teacher.variables)[1])
    assert stages.beginning(settings.Student("end", still), teacher) is None
    with pytest.raises(ValueError, match="of another network"):
        stages.fit("wider", still, build.backbone(settings.Model("mlp", {"widths": [5]}))(3), distiller, arrays, start=start, **common)


def test_where_a_student_cannot_begin_from_a_member():
    network = settings.Training(settings.Model("mlp", {"widths": [4]}))
    student = {"own": settings.Student("end", network, start="member")}
    settings.check_starts(student, network.model)
    settings.check_starts(student, settings.Model("mlp", {"widths": [4], "dropout": 0.1}))  # no weights of its own
    for other in (settings.Model("mlp", {"widths": [5]}), None):
        with pytest.raises(ValueError, match="students.own.start must be 'random'"):
            settings.check_starts(student, other)
    with pytest.raises(ValueError, match="start"):
        settings.Student("end", network, start="zero")
