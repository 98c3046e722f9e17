"""Photographs: ImageNet's relatives from small directories in TFDS's layout, folders of images, and how images get their size."""

import io
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from edd.data import augment, corruptions, image_sets, photographs, sources
from edd.data.stored import Stored

SIZES = [(40, 30), (30, 50), (24, 24)]  # width, height
RELATIVES = [
    "imagenet2012", "imagenet_v2", "imagenet_v2/topimages", "imagenet_a", "imagenet_r", "imagenet_o", "imagenet2012_corrupted/fog_3",
]  # fmt: skip


def pictures(seed=0):
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8)) for width, height in SIZES]


def png(image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write(name, folder, images, labels):
    """A TFDS directory of the published features, version and layout."""
    base, config = name.split("/")[0], None
    image = tfds.features.Image(shape=(224, 224, 3) if base == "imagenet2012_corrupted" else (None, None, 3))
    features = {"image": image, "label": tfds.features.ClassLabel(num_classes=1000)}
    version = tfds.core.Version("1.0.0")
    if base != "imagenet_o":
        published = tfds.builder(name, data_dir=str(folder))
        features, version, config = published.info.features, published.version, published.builder_config

    class Fake(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = version
        BUILDER_CONFIGS = [config] if config else []

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(dict(features)))

        def _split_generators(self, _):
            return {photographs.SETS[base][-1]: self._generate_examples()}

        def _generate_examples(self):
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield i, {"image": png(image), "label": int(label), **({"file_name": f"{i}.JPEG"} if "file_name" in features else {})}

    Fake.name = base
    builder = Fake(data_dir=str(folder), config=config.name if config else None, file_format="array_record")
    builder.download_and_prepare(file_format="array_record")
    return pathlib.Path(builder.data_dir)


@pytest.mark.parametrize("name", RELATIVES)
def test_relatives_of_imagenet_are_read_by_their_names(name, tmp_path):
    size, options = 8, {"resize": 10}
    images, labels = pictures(), [0, 999, 7]
    if name.startswith("imagenet2012_corrupted"):
        images, size, options = [image.resize((224, 224)) for image in images], 224, {"resize": 0}
    write(name, tmp_path, images, labels)
    split = photographs.SETS[name.split("/")[0]][-1]
    found = sources.load(name, split, data_dir=str(tmp_path), image_size=size, **options)
    assert found.inputs.shape == (3, size, size, 3) and found.inputs.dtype == np.uint8
    fit = photographs.fitter(size, options["resize"], False, "bilinear")
    expected = {label: fit(image).tobytes() for image, label in zip(images, labels)}
    assert {int(label): image.tobytes() for image, label in zip(*found)} == expected
    assert len(sources.load(name, f"{split}[:1]", data_dir=str(tmp_path), image_size=size, **options).labels) == 1


def test_streamed_photographs_are_those_in_memory(tmp_path, monkeypatch):
    folder = write("imagenet2012", tmp_path, pictures(), [0, 999, 7])
    options = {"data_dir": str(tmp_path), "image_size": 8, "resize": 10, "squash": True}
    whole, streamed = (sources.load("imagenet2012", "validation", **options, stream=each) for each in (False, True))
    assert isinstance(streamed.inputs, Stored) and isinstance(whole.inputs, np.ndarray)
    np.testing.assert_array_equal(streamed.inputs, whole.inputs)
    np.testing.assert_array_equal(streamed.labels, whole.labels)
    assert [file.name for file in folder.glob("*.npy")] == ["labels_validation.npy"]
    monkeypatch.setattr(image_sets, "_records", lambda *_: pytest.fail("the labels are known"))
    again = sources.load("imagenet2012", "validation[1:]", **options, stream=True)
    np.testing.assert_array_equal(again.labels, whole.labels[1:])
    np.testing.assert_array_equal(again.inputs, whole.inputs[1:])
    monkeypatch.undo()
    np.save(folder / "labels_validation.npy", np.zeros(2, np.int32))  # of another set
    np.testing.assert_array_equal(sources.load("imagenet2012", "validation", **options, stream=True).labels, whole.labels)


def test_labels_are_read_where_nothing_can_be_kept(tmp_path, monkeypatch):
    write("imagenet_v2", tmp_path, pictures(), [0, 999, 7])

    def refuse(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setattr(np, "save", refuse)
    found = sources.load("imagenet_v2", "test", data_dir=str(tmp_path), image_size=8, resize=8, stream=True)
    assert sorted(found.labels.tolist()) == [0, 7, 999]


def test_what_a_network_sees_of_a_photograph():
    info = sources.info("imagenet2012", image_size=12, standardise="symmetric", crop=8, stream=True)
    assert info.splits == ("train", "validation") and info.input_shape == (12, 12, 3)
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3)).astype(np.uint8)
    np.testing.assert_allclose(augment.preprocess(info)(images), images[:, 2:10, 2:10] / 127.5 - 1, atol=1e-6)


def test_a_crop_is_the_centre_of_the_resized_image():
    image = pictures()[0]  # 40 x 30
    whole = np.asarray(image.resize((26, 20), Image.Resampling.BILINEAR))  # the shorter side 20, the other's fraction dropped
    np.testing.assert_array_equal(photographs.fitter(16, 20, False, "bilinear")(image), whole[2:18, 5:21])
    squashed = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(photographs.fitter(16, 16, True, "bicubic")(image), squashed)
    np.testing.assert_array_equal(photographs.fitter(30, 0, False, "bilinear")(image), np.asarray(image)[:, 5:35])
    assert photographs.fitter(4, 4, False, "bilinear")(image.convert("L")).shape == (4, 4, 3)
    with pytest.raises(ValueError, match="too small for a crop of 32"):
        photographs.fitter(32, 0, False, "bilinear")(image)


def folder_of_images(folder, table=None):
    for name, image in zip(("b", "a"), pictures()):
        (folder / name).mkdir(parents=True)
        image.save(folder / name / "0.png")
        (folder / name / "notes.txt").write_text("no image")
    if table is not None:
        (folder / "classes.tsv").write_text(table)
    return folder


def test_a_folder_of_images_is_labelled_by_its_table_or_its_order(tmp_path):
    options = {"image_size": 8, "resize": 8}
    folder_of_images(tmp_path / "mine")
    found = sources.load("image_folder", "test", data_dir=str(tmp_path), folder="mine", **options)
    assert found.labels.tolist() == [0, 1]
    (tmp_path / "mine" / "classes.tsv").write_text("a\t7\ttench\nb\t3\tshark\n")
    by_table = sources.load("image_folder", "test", folder=str(tmp_path / "mine"), **options)
    assert by_table.labels.tolist() == [7, 3]
    np.testing.assert_array_equal(by_table.inputs, found.inputs)
    assert sources.load("image_folder", "test[1:]", folder=str(tmp_path / "mine"), **options).labels.tolist() == [3]
    (tmp_path / "mine" / "classes.tsv").write_text("a tench\n")
    with pytest.raises(ValueError, match="a folder's name and a label"):
        sources.load("image_folder", "test", folder=str(tmp_path / "mine"), **options)


def test_corrupted_images_are_the_corruption_of_the_same_images(tmp_path):
    folder = str(folder_of_images(tmp_path / "mine"))
    options = {"folder": folder, "image_size": 16, "resize": 16}
    plain = sources.load("image_folder", "test", **options)
    bright = sources.load("image_folder", "test", corruption="brightness", severity=5, **options)
    expected = corruptions.make("brightness", 5)(np.zeros(2), plain.inputs)
    np.testing.assert_allclose(bright.inputs.astype(int), np.asarray(expected, int), atol=1)  # a half may be rounded either way
    noisy = [sources.load("image_folder", "test", corruption="gaussian_noise", **options).inputs for _ in range(2)]
    np.testing.assert_array_equal(*noisy)
    assert (noisy[0] != plain.inputs).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": 200}, "resize 0 or at least image_size"),
        ({"interpolation": "nearest"}, "interpolation must be one of"),
        ({"corruption": "fog"}, "unknown corruption"),
        ({"standardise": "image"}, "standardise must be one of channels, symmetric"),
        ({"crop": 300}, r"crop must lie in \[0, 224\]"),
        ({"corruption": "contrast", "stream": True}, "corruption needs the images in memory"),
        ({"image_size": 8, "resize": 8, "num_classes": 1}, "num_classes must be above the largest label 1"),
    ],
)
def test_mistakes(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        sources.load("image_folder", "test", folder=str(folder_of_images(tmp_path / "mine")), **options)


def test_what_is_absent_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no folders of images"):
        sources.load("image_folder", "test", data_dir=str(tmp_path), folder="none")
    with pytest.raises(FileNotFoundError, match="imagenet_o is not in TFDS's catalogue"):
        sources.load("imagenet_o", "test", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="did you mean imagenet2012_corrupted/fog_3"):
        sources.load("imagenet2012_corrupted/fogg_3", "validation", data_dir=str(tmp_path))
