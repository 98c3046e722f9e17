"""Distils an ensemble saved as arrays: python launch/distill.py --inputs x.npy --member-logits z.npy --workdir runs/mine."""

import argparse
import json

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
    made.add_argument(
        "--ood",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", "INPUTS", "LOGITS"),
        help="an out-of-distribution set for the report: its name, inputs [N, *S] and member logits [M, N, K]; may be repeated",
    )
    made.add_argument("--traceback", action="store_true", help="show where in the code an error came from")
    return made


def main() -> None:
    given = vars(parser().parse_args())
    show = given.pop("traceback")
    from edd.experiments import errors

    errors.tell(lambda: run(given), show_traceback=show)
    print(f"student in {given['workdir']}: edd.experiments.load_student({given['workdir']!r}).predict(inputs)")


def run(given: dict) -> None:
    """Checks the test arrays, distils, and reports where there are test arrays; takes its own options out of `given`."""
    test = [given.pop(name) for name in ("test_inputs", "test_member_logits", "test_labels")]
    try:
        outside = {name: (array(inputs), array(logits)) for name, inputs, logits in given.pop("ood")}
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--ood: {error}") from None
    if any(each is not None for each in (*test, *outside)) and any(each is None for each in test):
        raise ValueError("--test-inputs, --test-member-logits and --test-labels go together, and --ood needs them")
    from edd.experiments import arrays

    inputs, member_logits = given.pop("inputs"), given.pop("member_logits")
    if test[0] is not None:
        sets = {"test": tuple(test[:2]), **outside}
        shapes = {
            "input_shape": inputs.shape[1:],
            "dtype": inputs.dtype,
            "num_classes": member_logits.shape[-1] if member_logits.ndim else 0,
        }
        arrays.member_logits_of(member_logits, given["kind"])
        arrays.check_test(sets, test[2], kind=given["kind"], **shapes)
    student = arrays.distill(inputs, member_logits, progress=True, **given)
    if test[0] is not None:
        options = {"kind": given["kind"], "labels": test[2], "out_of_distribution": outside}
        arrays.report_fidelity(student, test[0], test[1], given["workdir"], **options)


if __name__ == "__main__":
    main()
