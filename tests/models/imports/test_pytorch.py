"""Files of `torch.save` without torch: what is read, and that nothing which a file says is run."""

import base64
import os
import pathlib
import pickle
import zipfile
import zlib

import ml_dtypes
import numpy as np
import pytest

from edd.models.imports import pytorch

# written by torch 2.13, compressed: base = torch.arange(24.0); torch.save(collections.OrderedDict(whole=base.reshape(4, 6),
# transposed=base[4:16].reshape(3, 4).t(), every_second=base[::2], half=torch.tensor([1.5, -2.0], dtype=torch.float16),
# brain=torch.tensor([[3.0], [0.1]], dtype=torch.bfloat16), count=torch.tensor(7), empty=torch.zeros(0, 3)), path)
REAL_FILE = (
    "c-pO1Pi)&%7=QWa1UK#0(zP9hGB#i-Y^j~ZX|k<rYmkLxB(m^F(S($`j@LxEc0T82Q#n<jR&Yaz1E*<64jgu4aO#x<2c(Tt4@evk64H>6IP*O_3AWp`jPjIUoLKMo="
    "X-wdb488C2}z~MfiX(X5XaEWg@#78Z2JRKk;lo+@Ys&(x^0?<PFuFs;oou^hGR5dZ|Rf=GGB#Arj|glJ5Ad(AgWW_(VN+Nm$u9fUw4f4Zp&=csbO_&r+z!fLoAc2C6"
    "Um<nc9W{agV|)rmfMpy_-BFY7v|x09T9QRd078sm@SH-B5`dSGiqyO6AnZF7Tf=S%?t|=_-uYc$`cf&FZx6j?sXzCb~7_%|w%Hy8Kf&kR4ZJyKq{KsPSDG_xKYOp02"
    "`VEscERw&85mJBDss4LB24m|_XiJ20(AcVNb2pQZ3j6=rL=&ZMcCx8PZi)vN3cyfrB7Ikzwo=1?w5;dv&9O6Szb4!q#Wou_c23NO0Ly6$K#3tkH7$?j5##ewF_u4WD"
    "{dYTzmldaA?7KxWvJl$6*T&lulS68>Y7KLm;_f6Z{7-%lInt2dVGeSW`&G~sxCr2S)g@UVNY_{nZNc~lENd+h(iBMQ%K?qyzk{V+{%AUX#3RkOet(&c=$<+Sdw=?fY"
    "31O%V-K&%2yth}gw`^xqqjh{p9o&$LJa=%*28PH?zInX=F^k49++><u>6!F4XI(Q}8`h>_QAI8u<1=g&3oO9$9rz6kB+(-Sj1k!ju)akNo1HX8zWyJ5`@?KeY8ouV&"
    "eAVuIdtKU%rHV$|LF<~f+8=SEP$uFy^LQg_(5zV?jiONKO@kPoJO2O2#6I#1+j)`BeoHrAU;EUiMWUO3UMFtV3k$&(dxdnhC*w{RCdu<nW)GY{!L}%I@x0$#Yd06U<"
    "W*YjK^y}kDMYepYZYBTv_>HiTVHe_^;oe)Ia|}_$PbHEJORJUu|ZZ8e|}cW?1%RC@AvPlVliPYnn`XK7(E`afnf#XUTuOyYcSv=Wmusy$0Y$?-))CJHUq;d-c^@4Mi"
    "58yb?i>B(W@rB`Kd1@={q?EG>#sAzzSkQduhJi{+9~6vYxt`Tcj-?q@JZ#!VSvVFx+=eRA|b^1ypMO!ara$pG!^C^@vPh86tnYdWAX9wWngW?01Ef5rkLpZ7%ueJ{-"
    "QpYV|YcPdW&{VGiKAKM`Dj{s2&6aD8cNPH*ZC+5OL{~-wy9|nl|KJoA~<R3N8Pb`ET{hK=-Anx^vL!PUD!_5Ym6G?K^QK+aKcd0jZE_V4q?*8?zS0Q<j>~|5){q-L2"
    "{r6tT3C`n;xbwZae*?grRWS"
)
NUMBERS = np.arange(6, dtype=np.float32)


class Code(bytes):
    """Pickle code that leaves one value."""


def code(value) -> Code:
    """The pickle code of text, integers, flags, tuples and dictionaries (with code inside)."""
    if isinstance(value, Code):
        return value
    if isinstance(value, bool):
        return Code(b"\x88" if value else b"\x89")
    if isinstance(value, int):
        return Code(b"I%d\n" % value)
    if isinstance(value, str):
        return Code(b"V%s\n" % value.encode())
    if isinstance(value, tuple):
        return Code(b"(" + b"".join(map(code, value)) + b"t")
    return Code(b"(" + b"".join(code(each) for item in value.items() for each in item) + b"d")


def named(module: str, name: str) -> Code:
    return Code(f"c{module}\n{name}\n".encode())


def call(function: Code, *arguments) -> Code:
    return Code(function + code(arguments) + b"R")


def tensor(size=(6,), stride=(1,), offset=0, kind="FloatStorage", key="0", count=6) -> Code:
    storage = Code(code(("storage", named("torch", kind), key, "cpu", count)) + b"Q")
    return call(named("torch._utils", "_rebuild_tensor_v2"), storage, offset, size, stride, False, code({}))


def write(path: pathlib.Path, content, storages=(NUMBERS,), compression=zipfile.ZIP_STORED, **entries) -> pathlib.Path:
    numbers = {f"data/{key}": each.tobytes() for key, each in enumerate(storages)}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, each in {"data.pkl": code(content) + b".", **numbers, **entries}.items():
            archive.writestr(f"archive/{name}", each)
    return path


def test_a_tensor_alone(tmp_path):
    found = pytorch.read_tensor(write(tmp_path / "one.pt", tensor((2, 3), (3, 1))))
    np.testing.assert_array_equal(found, NUMBERS.reshape(2, 3))
    with pytest.raises(ValueError, match="must hold one tensor, it holds dict"):
        pytorch.read_tensor(write(tmp_path / "named.pt", {"w": tensor()}))
    with pytest.raises(ValueError, match="needs os.system"):
        pytorch.read_tensor(write(tmp_path / "code.pt", call(named("os", "system"), "true")))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        pytorch.read_tensor(tmp_path / "none.pt")


def test_a_file_that_torch_wrote(tmp_path):
    (tmp_path / "real.pth").write_bytes(zlib.decompress(base64.b85decode(REAL_FILE)))
    found, base = pytorch.read(tmp_path / "real.pth"), np.arange(24, dtype=np.float32)
    assert set(found) == {"whole", "transposed", "every_second", "half", "brain", "count", "empty"}
    np.testing.assert_array_equal(found["whole"], base.reshape(4, 6))
    np.testing.assert_array_equal(found["transposed"], base[4:16].reshape(3, 4).T)
    np.testing.assert_array_equal(found["every_second"], base[::2])
    assert np.shares_memory(found["whole"], found["transposed"]), "one storage is read once"
    np.testing.assert_array_equal(found["half"], np.array([1.5, -2.0], np.float16))
    np.testing.assert_array_equal(found["brain"], np.array([[3.0], [0.1]], ml_dtypes.bfloat16))
    assert {name: str(each.dtype) for name, each in found.items() if each.dtype != np.float32} == {
        "half": "float16", "brain": "bfloat16", "count": "int64",
    }  # fmt: skip
    assert found["count"].shape == () and found["count"] == 7 and found["empty"].shape == (0, 3)


def test_files_that_torch_writes_now(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed; a file that it wrote is above")
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2).to(torch.bfloat16))
    expected = {name: each.float().numpy() for name, each in network.state_dict().items()}
    parameters = {name: each for name, each in network.state_dict(keep_vars=True).items() if isinstance(each, torch.nn.Parameter)}
    parallel = {"state_dict": {f"module.{name}": each for name, each in network.state_dict().items()}, "epoch": 3, "args": [0.1, None]}
    for content, names in ((network.state_dict(), set(expected)), (parallel, set(expected)), (parameters, set(parameters))):
        torch.save(content, tmp_path / "new.pth")
        found = pytorch.read(tmp_path / "new.pth")
        assert set(found) == names
        assert all(np.array_equal(each.astype(np.float32), expected[name]) for name, each in found.items())
    torch.save(network, tmp_path / "whole.pth")
    with pytest.raises(ValueError, match="it needs torch.nn.modules.container.Sequential"):
        pytorch.read(tmp_path / "whole.pth")
    torch.save(network.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="before torch 1.6"):
        pytorch.read(tmp_path / "old.pth")


def test_views_of_a_storage(tmp_path):
    content = {"all": tensor(), "columns": tensor((3, 2), (1, 3)), "tail": tensor((2,), (2,), 1), "one": tensor((), (), 5)}
    found = pytorch.read(write(tmp_path / "views.pth", content))
    np.testing.assert_array_equal(found["columns"], NUMBERS.reshape(2, 3).T)
    np.testing.assert_array_equal(found["tail"], [1, 3])
    assert found["one"] == 5
    with pytest.raises(ValueError, match="read-only"):
        found["all"][0] = 1


def test_every_byte_order_and_wrapping(tmp_path):
    big = write(tmp_path / "big.pth", {"a": tensor()}, (NUMBERS.astype(">f4"),), byteorder=b"big")
    np.testing.assert_array_equal(pytorch.read(big)["a"], NUMBERS)
    for wrapper in ("state_dict", "model"):
        path = write(tmp_path / "wrapped.pth", {wrapper: code({"module.a": tensor()}), "epoch": 3, "best": tensor((), ())})
        assert set(pytorch.read(path)) == {"a"}
    mixed = write(tmp_path / "mixed.pth", {"module.a": tensor(), "b": tensor()})
    assert set(pytorch.read(mixed)) == {"module.a", "b"}


@pytest.mark.parametrize(
    "attack",
    [
        call(named("os", "system"), "touch {}"),
        call(named("posix", "system"), "touch {}"),
        call(named("builtins", "eval"), "open('{}', 'w')"),
        call(named("builtins", "getattr"), named("torch", "FloatStorage"), "dtype"),
        call(named("torch", "load"), "{}"),
        call(named("torch.storage", "_load_from_bytes"), "{}"),
        call(named("edd.models.imports.pytorch", "write"), "{}"),
        call(named("collections", "OrderedDict.fromkeys.__self__.__init__"), "{}"),
        Code(b"(Vtouch {}\nios\nsystem\n"),  # the opcode INST, which finds and calls at once
        Code(b"Vos\nVsystem\n\x93" + code(("touch {}",)) + b"R"),  # the opcode STACK_GLOBAL
    ],
)
def test_calls_are_refused_before_they_happen(tmp_path, attack):
    mark = tmp_path / "pwned"
    attack = Code(attack.replace(b"{}", str(mark).encode()))
    path = write(tmp_path / "attack.pth", {"weights": tensor(), "attack": attack})
    with pytest.raises(ValueError, match="is not opened: it needs .* may be code"):
        pytorch.read(path)
    assert not mark.exists()


def test_the_attack_is_a_real_one(tmp_path):
    mark = tmp_path / "pwned"
    pickle.loads(call(named("os", "system"), f"touch {mark}") + b".")
    assert mark.exists(), "else the test above would prove nothing"


class Reduced:
    def __reduce__(self):
        return os.system, ("exit 1",)


def test_what_pickle_itself_writes_is_refused(tmp_path):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = write(tmp_path / "attack.pth", Code(pickle.dumps({"a": Reduced()}, protocol).removesuffix(b".")))
        with pytest.raises(ValueError, match=f"it needs {os.system.__module__}.system"):
            pytorch.read(path)


def test_what_stands_for_torch_cannot_be_changed(tmp_path):
    """The opcode BUILD sets attributes: of our stand-ins it must set none, of a state dict it may drop the metadata."""
    build = lambda target, state: Code(target + code(state) + b"b")  # noqa: E731
    before = dict(pytorch.ALLOWED)
    for module, name in pytorch.ALLOWED:
        for state in ({"name": "x", "dtype": "x", "evil": "x"}, (code({}), code({"name": "x", "dtype": "x", "evil": "x"}))):
            path = write(tmp_path / "build.pth", {"w": tensor(), "x": build(named(module, name), state)})
            with pytest.raises(ValueError, match="cannot be read"):
                pytorch.read(path)
    assert pytorch.ALLOWED == before and not any(hasattr(each, "evil") for each in pytorch.ALLOWED.values())
    metadata = build(call(named("collections", "OrderedDict")), {"_metadata": code({"version": 1})})
    found = pytorch.read(write(tmp_path / "metadata.pth", {"state_dict": code({"w": tensor()}), "x": metadata}))
    assert set(found) == {"w"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": tensor((7,))}, r"size \(7,\) and strides \(1,\) reaches beyond its storage of 6"),
        ({"a": tensor((2, 2), (3, 3), 0)}, "reaches beyond"),
        ({"a": tensor((1,), (1,), 6)}, "reaches beyond"),
        ({"a": tensor((2,), (-1,), 3)}, "no numbers that fit"),
        ({"a": tensor((2,), (1,), -1)}, "no numbers that fit"),
        ({"a": tensor((2,), (1, 1))}, "no numbers that fit"),
        ({"a": tensor((10**12,), (0,))}, "repeats entries"),
        ({"a": tensor(count=7)}, "storage 0 holds 6 of float32, not 7 of float32"),
        ({"a": tensor(), "b": tensor((2,), (1,), kind="HalfStorage")}, "holds 6 of float32, not 6 of float16"),
        ({"a": tensor(kind="ComplexFloatStorage")}, "it needs torch.ComplexFloatStorage"),
        ({"a": tensor(key="9")}, "cannot be read as a file of torch.save: .*archive/data/9"),
        ({"a": tensor(key="../0")}, "cannot be read"),
        ({"a": Code(code(("module", "x", "y", "z", 1)) + b"Q")}, "which is no storage"),
        ({"a": call(named("torch._utils", "_rebuild_tensor_v2"), "x", 0, (1,), (1,))}, "no numbers that fit"),
        ({"a": 1}, "no tensors by name, neither at its top nor in state_dict or model"),
        (tensor(), "no tensors by name"),
        (Code(b"}(VaI1"), "cannot be read"),
    ],
)
def test_what_does_not_fit_its_storage_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        pytorch.read(write(tmp_path / "odd.pth", content))


def test_other_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        pytorch.read(tmp_path / "nothing.pth")
    legacy = tmp_path / "legacy.pth"
    legacy.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2))
    with pytest.raises(ValueError, match="before torch 1.6 is not opened"):
        pytorch.read(legacy)
    np.savez(tmp_path / "arrays.npz", a=NUMBERS)
    with pytest.raises(ValueError, match="it must hold one data.pkl"):
        pytorch.read(tmp_path / "arrays.npz")
    with pytest.raises(ValueError, match="TorchScript"):
        pytorch.read(write(tmp_path / "script.pt", {"a": tensor()}, **{"constants.pkl": b""}))
    with pytest.raises(ValueError, match="is compressed"):
        pytorch.read(write(tmp_path / "bomb.pth", {"a": tensor()}, compression=zipfile.ZIP_DEFLATED))
