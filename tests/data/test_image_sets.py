"""TFDS image sets: small fakes in the published layout, real directories where they are, and every kind of broken one."""

import gzip
import io
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

tfds = pytest.importorskip("tensorflow_datasets")
from PIL import Image  # noqa: E402

from edd.data import image_preparation, image_sets, sources  # noqa: E402


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def examples(name, count, seed=0):
    described = sources.info(name)
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *described.input_shape)).astype(np.uint8), rng.integers(0, described.num_classes, count)


def write(name, folder, splits, file_format="array_record"):
    """A TFDS directory of the published features, version and layout, with the given (images, labels) per split."""
    published = tfds.builder(name, data_dir=str(folder)) if name not in image_sets.OWN else own(name)
    extra = {key: lambda i: f"row_{i}" for key in ("id",) if key in published.info.features}

    class Fake(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = published.version
        BUILDER_CONFIGS = [published.builder_config] if published.builder_config else []

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=published.info.features)

        def _split_generators(self, _):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            for i, (image, label) in enumerate(zip(*splits[split], strict=True)):
                yield i, {"image": png(image), "label": int(label), **{key: make(i) for key, make in extra.items()}}

    Fake.name = name.split("/")[0]
    config = published.builder_config.name if published.builder_config else None
    builder = Fake(data_dir=str(folder), config=config, file_format=file_format)
    builder.download_and_prepare(file_format=file_format)
    return pathlib.Path(builder.data_dir)


def own(name):
    """What a user who builds a set outside TFDS's catalogue declares."""
    described = sources.info(name)
    image = tfds.features.Image(shape=described.input_shape)
    features = tfds.features.FeaturesDict({"image": image, "label": tfds.features.ClassLabel(num_classes=described.num_classes)})
    return types.SimpleNamespace(version=tfds.core.Version("1.0.0"), builder_config=None, info=types.SimpleNamespace(features=features))


def rows(inputs, labels):
    return sorted((image.tobytes(), int(label)) for image, label in zip(inputs, labels, strict=True))


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar10_1", "cifar10_1/v6", "cifar10_corrupted/gaussian_noise_3"])
def test_reads_every_image_and_label(name, tmp_path, monkeypatch):
    monkeypatch.setattr(image_sets, "BLOCK", 3)
    expected = examples(name, 7)
    folder = write(name, tmp_path, {"test": expected})
    assert folder.is_relative_to(tmp_path / name.split("/")[0])
    split = sources.load(name, "test", data_dir=str(tmp_path))
    assert split.inputs.dtype == np.uint8 and split.labels.dtype == np.int32
    assert split.inputs.shape == (7, *sources.info(name).input_shape)
    assert rows(*split) == rows(*expected)


def test_a_set_outside_the_catalogue_is_read_from_its_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match="not in TFDS's catalogue"):
        sources.load("tiny_imagenet", "train", data_dir=str(tmp_path))
    expected = examples("tiny_imagenet", 5)
    write("tiny_imagenet", tmp_path, {"train": expected})
    assert rows(*sources.load("tiny_imagenet", "train", data_dir=str(tmp_path))) == rows(*expected)


def test_slices_follow_the_files_order(tmp_path):
    write("mnist", tmp_path, {"train": examples("mnist", 10), "test": examples("mnist", 4, seed=1)})
    whole = sources.load("mnist", "train", data_dir=str(tmp_path))
    first, rest = (sources.load("mnist", part, data_dir=str(tmp_path)) for part in ("train[:30%]", "train[30%:]"))
    assert len(first.labels) == 3
    np.testing.assert_array_equal(np.concatenate([first.inputs, rest.inputs]), whole.inputs)
    np.testing.assert_array_equal(np.concatenate([first.labels, rest.labels]), whole.labels)
    assert len(sources.load("mnist", "test", data_dir=str(tmp_path)).labels) == 4


def test_environment_names_the_folder(tmp_path):
    write("mnist", tmp_path, {"test": examples("mnist", 3)})
    code = "from edd.data import sources; import sys; print(sources.load('mnist', 'test').inputs.shape, 'tensorflow' in sys.modules)"
    environment = {**os.environ, "TFDS_DATA_DIR": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(3, 28, 28, 1) False"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_real_directories(name):
    folder = os.environ.get("TFDS_DATA_DIR")
    if not folder or not pathlib.Path(folder, name).is_dir():
        pytest.skip(f"TFDS_DATA_DIR has no {name}: prepare it once and set TFDS_DATA_DIR to the folder")
    split = sources.load(name, "test", data_dir=folder)
    described = sources.info(name)
    assert split.inputs.shape == (10_000, 28, 28, 1)
    np.testing.assert_array_equal(np.unique(split.labels), np.arange(10))
    scaled = split.inputs / 255
    np.testing.assert_allclose([scaled.mean(), scaled.std()], [described.mean[0], described.std[0]], atol=0.02)


def test_absent_set_says_where_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(image_preparation.urllib.request, "getproxies", dict)

    def offline(host, port):
        raise OSError("Name or service not known")

    monkeypatch.setattr(image_preparation.socket, "getaddrinfo", offline)
    with pytest.raises(
        FileNotFoundError, match="mnist is not in .* cannot be downloaded .*Name or service.* give data_dir .*TFDS_DATA_DIR"
    ):
        sources.load("mnist", "train", data_dir=str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError, match="download is off"):
        sources.load("mnist", "train", data_dir=str(tmp_path), download=False)
    assert not any(tmp_path.iterdir()), "a failed load must leave nothing behind"


def damage_no_info(folder):
    (folder / "dataset_info.json").unlink()


def damage_missing_shard(folder):
    next(folder.glob("*test*")).unlink()


def damage_truncated_shard(folder):
    shard = next(folder.glob("*test*"))
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


def damage_empty_shard(folder):
    next(folder.glob("*test*")).write_bytes(b"")


def damage_wrong_count(folder):
    path = folder / "dataset_info.json"
    path.write_text(path.read_text().replace('"5"', '"6"'))


def damage_truncated_info(folder):
    path = folder / "dataset_info.json"
    path.write_text(path.read_text()[:50])


def damage_interrupted(folder):
    folder.rename(folder.parent / f"incomplete.ABCDEF_{folder.name}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_no_info, "half-written: it has no dataset_info.json; delete it"),
        (damage_missing_shard, "half-written: 1 record file.* missing, first .*mnist-test.* delete it"),
        (damage_truncated_shard, "is damaged: split 'test' of mnist cannot be read .*delete it"),
        (damage_empty_shard, "is damaged: .*delete it"),
        (damage_wrong_count, "is damaged: .*delete it"),
        (damage_truncated_info, "mnist in .* is damaged: .*delete it"),
        (damage_interrupted, "incomplete.ABCDEF_.* was left by an unfinished preparation of mnist; delete it"),
    ],
)
def test_half_written_directories_are_named(damage, message, tmp_path):
    damage(write("mnist", tmp_path, {"test": examples("mnist", 5)}))
    with pytest.raises(FileNotFoundError, match=message):
        sources.load("mnist", "test", data_dir=str(tmp_path))


def test_a_split_the_copy_lacks_is_named(tmp_path):
    write("mnist", tmp_path, {"test": examples("mnist", 3)})
    with pytest.raises(FileNotFoundError, match="holds only the splits test of mnist, not 'train'"):
        sources.load("mnist", "train", data_dir=str(tmp_path))


def test_another_file_format_is_named(tmp_path, monkeypatch):
    write("mnist", tmp_path, {"test": examples("mnist", 3)})
    monkeypatch.setattr(tfds.core.DatasetBuilder, "as_data_source", lambda *a, **k: (_ for _ in ()).throw(NotImplementedError("tfrecord")))
    with pytest.raises(FileNotFoundError, match='cannot be read without TensorFlow; prepare it again .*"array_record"'):
        sources.load("mnist", "test", data_dir=str(tmp_path))


def test_unknown_configuration_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean cifar10_corrupted/gaussian_noise_3"):
        sources.load("cifar10_corrupted/gausian_noise_3", "test")
    with pytest.raises(ValueError, match="mnist has no configuration 'big'"):
        sources.load("mnist/big", "test")


def connected(monkeypatch, raw):
    """A machine whose downloads are the files of `raw`, URL ending -> path."""
    find = lambda url: next(str(path) for ending, path in raw.items() if url.endswith(ending))  # noqa: E731

    def download(self, urls):
        if isinstance(urls, dict):
            return {key: find(url) for key, url in urls.items()}
        return [find(url) for url in urls]

    monkeypatch.setattr(image_preparation.socket, "getaddrinfo", lambda *args: [])
    for method in ("download", "download_and_extract"):
        monkeypatch.setattr(tfds.download.DownloadManager, method, download)


def test_preparing_reads_raw_arrays_without_tensorflow(tmp_path, monkeypatch):
    images, labels = examples("cifar10_1", 6)
    for name, array in (("images.npy", images), ("labels.npy", labels)):
        np.save(tmp_path / name, array)
    connected(monkeypatch, {"v4_data.npy?raw=true": tmp_path / "images.npy", "v4_labels.npy?raw=true": tmp_path / "labels.npy"})
    split = sources.load("cifar10_1", "test", data_dir=str(tmp_path / "data"))
    assert rows(*split) == rows(images, labels)
    again = sources.load("cifar10_1", "test", data_dir=str(tmp_path / "data"), download=False)
    np.testing.assert_array_equal(again.inputs, split.inputs)
    module = sys.modules[tfds.builder_cls("cifar10_1").__module__]
    assert not isinstance(module.tf, types.SimpleNamespace) and "tensorflow" not in sys.modules


def test_preparing_reads_mnists_own_format(tmp_path, monkeypatch):
    module = sys.modules[tfds.builder_cls("mnist").__module__]
    raw = {}
    sets = {"train": examples("mnist", 6), "t10k": examples("mnist", 4, seed=1)}
    for part, (images, labels) in sets.items():
        for kind, header, data in (("images-idx3", 16, images), ("labels-idx1", 8, labels.astype(np.uint8))):
            path = tmp_path / f"{part}-{kind}-ubyte"
            path.write_bytes(bytes(header) + data.tobytes())
            raw[f"{part}-{kind}-ubyte.gz"] = path
    monkeypatch.setattr(module, "_TRAIN_EXAMPLES", 6)
    monkeypatch.setattr(module, "_TEST_EXAMPLES", 4)
    connected(monkeypatch, raw)
    for split, part in (("train", "train"), ("test", "t10k")):
        assert rows(*sources.load("mnist", split, data_dir=str(tmp_path / "data"))) == rows(*sets[part])


def test_a_failed_preparation_gives_its_reason(tmp_path, monkeypatch):
    bad = tmp_path / "bad.npy"
    bad.write_bytes(gzip.compress(b"not an array"))
    connected(monkeypatch, {"raw=true": bad})
    with pytest.raises(FileNotFoundError, match="preparing it failed .*: .*; give data_dir"):
        sources.load("cifar10_1", "test", data_dir=str(tmp_path / "data"))
