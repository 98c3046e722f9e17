"""Knowledge distillation equals its loss on one teacher, averages several, and refuses what is out of range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distillers import knowledge_distillation
from edd.losses import distillation
from edd.models.base import Outputs

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32)
TEACHERS = jnp.asarray(RNG.normal(size=(4, 5, 3)), jnp.float32)
LABELS = jnp.array([0, 2, 1, 1, 0])


def loss(distiller, teachers, logits=LOGITS):
    return distiller.loss(Outputs(logits, logits), distiller.targets(teachers), {}, {}, LABELS, None)


@pytest.mark.parametrize("form", distillation.MATCHING)
def test_one_teacher_is_the_loss(form):
    distiller = knowledge_distillation.make(1, 3, beta=0.6, teacher_temperature=4.0, student_temperature=2.0, form=form)
    expected = distillation.knowledge_distillation(LOGITS, TEACHERS[0], LABELS, 0.6, 4.0, student_temperature=2.0, matching=form)
    np.testing.assert_allclose(loss(distiller, TEACHERS[:1]), expected, rtol=1e-5)


def test_the_squared_logits_of_the_mnist_study():
    found = loss(knowledge_distillation.make(1, 3, beta=0.6, form="logits"), TEACHERS[:1])
    hard = -jax.nn.log_softmax(LOGITS)[jnp.arange(5), LABELS]
    np.testing.assert_allclose(found, 0.4 * hard + 0.6 * jnp.sum((LOGITS - TEACHERS[0]) ** 2, -1) / 2, rtol=1e-5)


def test_several_teachers_teach_their_mean():
    soft = knowledge_distillation.make(4, 3, teacher_temperature=3.0).targets(TEACHERS)
    np.testing.assert_allclose(jnp.exp(soft), jax.nn.softmax(TEACHERS / 3.0).mean(0), rtol=1e-5)
    np.testing.assert_allclose(knowledge_distillation.make(4, 3, form="logits").targets(TEACHERS), TEACHERS.mean(0), rtol=1e-6)


def test_beta_zero_is_plain_cross_entropy_and_kl_vanishes_at_the_teacher():
    plain = loss(knowledge_distillation.make(1, 3, beta=0.0), TEACHERS[:1])
    np.testing.assert_allclose(plain, -jax.nn.log_softmax(LOGITS)[jnp.arange(5), LABELS], rtol=1e-5)
    distiller = knowledge_distillation.make(1, 3, form="kl", teacher_temperature=2.0)
    np.testing.assert_allclose(loss(distiller, TEACHERS[:1], TEACHERS[0] / 2.0), 0.0, atol=1e-6)


@pytest.mark.parametrize(
    "options,message",
    [
        ({"beta": -0.1}, r"beta must lie in \[0, 1\]"),
        ({"beta": 1.1}, r"beta must lie in \[0, 1\]"),
        ({"teacher_temperature": 0.0}, "teacher_temperature must be above 0"),
        ({"student_temperature": -1.0}, "student_temperature must be above 0"),
        ({"form": "square"}, "form must be one of"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        knowledge_distillation.make(1, 3, **options)
