"""Where an ensemble's members come from: networks of their own, masks of one network, or samples along a Markov chain."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from edd.ensembles import dropout
from edd.experiments import settings as settings_lib
from edd.experiments.predict import Trained


class Plan(NamedTuple):
    """How to train an ensemble.

    Attributes:
      networks: how many to train side by side.
      snapshots: (how many, steps between two) states to keep of each, or None for the last alone.
      members: (trained networks, seed) -> the members.
    """

    networks: int
    snapshots: tuple[int, int] | None = None
    members: Callable = lambda trained, seed: trained


def plan(ensemble: settings_lib.Ensemble) -> Plan:
    """What the settings' `source` means.

    Raises:
      ValueError: an unknown source or option, or options out of range.
    """
    if ensemble.source not in SOURCES:
        raise ValueError(settings_lib.unknown_name("ensemble.source", ensemble.source, SOURCES))
    try:
        return SOURCES[ensemble.source](ensemble, **ensemble.options)
    except TypeError as error:
        raise ValueError(f"ensemble.options do not fit source {ensemble.source!r}: {error}") from None


def _deep(ensemble: settings_lib.Ensemble) -> Plan:
    return Plan(ensemble.num_members)


def _mc_dropout(ensemble: settings_lib.Ensemble) -> Plan:
    """One network, a mask for each member."""
    if not ensemble.training.model.options.get("dropout"):
        raise ValueError("source 'mc_dropout' needs a network that drops units: set the model option dropout above 0")

    def members(trained: Trained, seed: int) -> Trained:
        first = jax.tree.map(lambda leaf: leaf[0], trained.variables)
        model, variables = dropout.as_members(trained.model, first, jax.random.key(seed), ensemble.num_members)
        count = np.arange(ensemble.num_members)
        return trained._replace(
            model=model, variables=jax.device_get(variables), alive=count >= 0, frozen_at=np.full_like(count, -1), seeds=count
        )

    return Plan(1, members=members)


def _langevin(ensemble: settings_lib.Ensemble, *, chains: int = 1, every: int = 100) -> Plan:
    """`num_members` / `chains` snapshots of each chain, the last one at the end and `every` steps between two; earlier ones: burn-in."""
    if chains < 1 or every < 1 or ensemble.num_members % chains:
        raise ValueError(f"chains must divide num_members = {ensemble.num_members} and every be at least 1, got {chains} and {every}")
    if ensemble.training.optimizer.name != "sgld":
        raise ValueError(f"source 'langevin' needs optimizer 'sgld', got {ensemble.training.optimizer.name!r}")
    return Plan(chains, (ensemble.num_members // chains, every))


SOURCES = {"deep": _deep, "mc_dropout": _mc_dropout, "langevin": _langevin}
