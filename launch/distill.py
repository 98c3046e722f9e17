"""Distils an ensemble saved as arrays: python launch/distill.py --inputs x.npy --member-logits z.npy --workdir runs/mine."""

import argparse
import json
import sys

import numpy as np


def array(path: str) -> np.ndarray:
    """A .npy file; pickled content is refused."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path} is not a readable .npy file: {error}") from None


def mapping(text: str) -> dict:
    """A JSON mapping."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"must be a JSON mapping, got {text!r} ({error})") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON mapping, got {text!r}")
    return value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--inputs", type=array, required=True, help=".npy file [N, *S]")
    made.add_argument("--member-logits", type=array, required=True, help=".npy file [M, N, K]: the members' predictions on the inputs")
    made.add_argument("--workdir", required=True, help="run directory; resumed if it holds the same run")
    made.add_argument("--kind", default="logits", choices=["logits", "log_probs", "probs"], help="what the predictions are")
    made.add_argument("--labels", type=array, help=".npy file [N] of integers, for methods that use labels")
    made.add_argument("--method", default="proxy", help="distillation method")
    made.add_argument("--model", default="mlp", help="student network")
    made.add_argument("--method-options", type=mapping, default={}, help="JSON mapping passed to the method")
    made.add_argument("--model-options", type=mapping, default={}, help="JSON mapping passed to the model")
    made.add_argument("--epochs", type=float, default=100.0, help="passes over the inputs")
    made.add_argument("--batch-size", type=int, default=128, help="inputs per step")
    made.add_argument("--learning-rate", type=float, default=1e-3, help="peak learning rate of Adam, cosine schedule")
    made.add_argument("--seeds", type=int, default=1, help="students trained side by side")
    made.add_argument("--seed", type=int, default=0, help="of everything random")
    made.add_argument("--test-inputs", type=array, help=".npy file [N, *S]; with the two below, a report is written")
    made.add_argument("--test-member-logits", type=array, help=".npy file [M, N, K] on the test inputs")
    made.add_argument("--test-labels", type=array, help=".npy file [N] of integers")
    return made


def main() -> None:
    given = vars(parser().parse_args())
    test = [given.pop(name) for name in ("test_inputs", "test_member_logits", "test_labels")]
    if any(each is not None for each in test) and any(each is None for each in test):
        sys.exit("error: --test-inputs, --test-member-logits and --test-labels go together")
    from edd.experiments import arrays

    try:
        student = arrays.distill(given.pop("inputs"), given.pop("member_logits"), progress=True, **given)
        if test[0] is not None:
            arrays.report_fidelity(student, test[0], test[1], given["workdir"], kind=given["kind"], labels=test[2])
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"student in {given['workdir']}: edd.experiments.load_student({given['workdir']!r}).predict(inputs)")


if __name__ == "__main__":
    main()
