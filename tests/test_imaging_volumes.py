"""NIfTI in and out: values, places in the scanner, and what is said about files that cannot be used."""

from __future__ import annotations

import gzip
import itertools
import logging
import time

import nibabel
import numpy as np
import pytest

from srkit.errors import DataError, StorageError
from srkit.imaging.geometry import corners, orientation, permuted_affine, scaled_affine, thick_axis, world
from srkit.imaging.volumes import find_volumes, is_nifti, read_header, read_volume, volume_stem, write_volume

SHAPE = (5, 6, 7)
INTEGERS = ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, logger="srkit")
    return caplog


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 100, shape or SHAPE).astype(np.float32)


def right_angled(seed=0, spacing=(0.15, 0.2, 0.9), mirrored=False):
    """A turned affine whose origin lies within 60 mm."""
    draw = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(draw.normal(size=(3, 3)))
    turn[:, 0] *= np.linalg.det(turn) * (-1 if mirrored else 1)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * spacing, draw.uniform(-60, 60, 3)
    return affine


def foreign(path, data=None, affine=None, units="mm", kind=nibabel.Nifti1Image, **fields):
    """A file by nibabel; `fields` are put into its header as they are, afterwards."""
    data = noise() if data is None else data
    image = kind(data, np.diag([0.2, 0.2, 0.6, 1.0]) if affine is None else affine, dtype=data.dtype)
    image.header.set_xyzt_units(units)
    nibabel.save(image, path)
    if fields:
        packed = str(path).endswith(".gz")
        content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        header = type(image.header)(content[: image.header.sizeof_hdr])
        for name, value in fields.items():
            header[name] = value
        content = header.binaryblock + content[image.header.sizeof_hdr :]
        path.write_bytes(gzip.compress(content) if packed else content)
    return path


def refusal(path, **options):
    """What is said about a file, by the header alone where that suffices."""
    with pytest.raises(DataError) as found:
        read_volume(path, **options)
    assert str(path) in str(found.value)
    return str(found.value)


# Values


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_values_of_a_foreign_file_come_in_its_own_axes(tmp_path, suffix, kind):
    data = noise()
    volume, header = read_volume(foreign(tmp_path / f"a{suffix}", data, kind=kind))
    assert volume.dtype == np.float32
    assert volume.flags.c_contiguous
    assert (volume == data).all()
    assert header.shape == SHAPE
    assert header.n_volumes == 1


def test_a_packed_file_is_known_by_content_not_by_name(tmp_path):
    foreign(tmp_path / "a.nii.gz").rename(tmp_path / "a.nii")
    assert read_header(tmp_path / "a.nii").shape == SHAPE


def test_a_big_endian_file_reads_the_same(tmp_path):
    data = np.arange(210, dtype=np.int16).reshape(SHAPE)
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4), header), tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == b"\0\0\x01\x5c"  # 348, big end first
    volume, header = read_volume(tmp_path / "a.nii")
    assert (volume == data).all()
    assert header.dtype == np.int16


def test_slope_and_inter_are_applied(tmp_path):
    data = np.arange(210, dtype=np.int16).reshape(SHAPE)
    volume, header = read_volume(foreign(tmp_path / "a.nii", data, scl_slope=0.5, scl_inter=-10))
    assert (volume == data * 0.5 - 10).all()
    assert (header.slope, header.inter, header.dtype) == (0.5, -10, np.int16)


def test_scaling_is_computed_in_double_precision(tmp_path):
    # Neither 2**24 + 1 nor (1 + t)**2 has a float32 (t = 2**-23): rounded before the subtraction they would leave 0.
    whole, t = np.full(SHAPE, 2**24 + 1, np.int32), 2.0**-23
    whole[0] = 0
    volume, _ = read_volume(foreign(tmp_path / "a.nii", whole, scl_slope=1, scl_inter=-(2**24)))
    assert volume[1, 0, 0] == 1
    real = (1 + t * (whole > 0)).astype(np.float32)
    volume, _ = read_volume(foreign(tmp_path / "b.nii", real, scl_slope=1 + t, scl_inter=-(1 + 2 * t)))
    assert volume[1, 0, 0] == t * t


@pytest.mark.parametrize("slope", [0.0, float("nan")])
def test_a_slope_of_0_or_nan_means_unscaled(tmp_path, slope):
    data = np.arange(210, dtype=np.uint8).reshape(SHAPE)
    volume, header = read_volume(foreign(tmp_path / "a.nii", data, scl_slope=slope, scl_inter=7))
    assert (volume == data).all()
    assert (header.slope, header.inter) == (1, 0)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_one_volume_of_a_series_is_read(tmp_path, suffix):
    data = noise(*SHAPE, 4)
    volume, header = read_volume(foreign(tmp_path / f"a{suffix}", data), volume=2)
    assert (volume == data[..., 2]).all()
    assert (header.shape, header.n_volumes) == (SHAPE, 4)


def test_a_series_of_one_volume_is_3d(tmp_path):
    data = noise(*SHAPE, 1)
    volume, header = read_volume(foreign(tmp_path / "a.nii", data))
    assert (volume == data[..., 0]).all()
    assert (header.shape, header.n_volumes) == (SHAPE, 1)


def test_reading_by_pieces_gives_the_same_values(tmp_path, monkeypatch):
    monkeypatch.setattr("srkit.imaging.volumes._PIECE", 13)
    data = noise()
    assert (read_volume(foreign(tmp_path / "a.nii.gz", data))[0] == data).all()


# Places in the scanner


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("seed", range(20))
def test_corners_and_centre_of_an_enlarged_grid_lie_where_the_input_says(tmp_path, seed, suffix):
    shape, scale = np.array([20, 24, 9]), [(1, 1, 3), (1, 6, 1), (2, 2, 2)][seed % 3]
    axes = list(itertools.permutations(range(3)))[seed % 6]
    affine = permuted_affine(right_angled(seed, (0.15, 0.3, 0.6), mirrored=seed % 2 == 1), axes)
    nibabel.save(nibabel.Nifti1Image(noise(*shape), affine), tmp_path / f"in{suffix}")
    header = read_header(tmp_path / f"in{suffix}")
    write_volume(tmp_path / f"out{suffix}", noise(*shape * scale), scaled_affine(header.affine, scale), like=header)
    output = read_header(tmp_path / f"out{suffix}")
    assert output.shape == tuple(shape * scale)
    assert np.abs(world(output.affine, corners(output.shape)) - world(affine, corners(shape))).max() < 1e-3
    assert np.abs(world(output.affine, (shape * scale - 1) / 2) - world(affine, (shape - 1) / 2)).max() < 1e-3
    theirs = nibabel.load(tmp_path / f"out{suffix}")
    assert np.abs(world(theirs.affine, corners(output.shape)) - world(affine, corners(shape))).max() < 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_nibabel_and_torchio_read_the_spacing_that_was_written(tmp_path, seed):
    torchio = pytest.importorskip("torchio")
    affine = right_angled(seed, (0.15, 0.05, 0.9), mirrored=seed % 2 == 1)
    write_volume(tmp_path / "a.nii.gz", noise(), affine)
    assert nibabel.load(tmp_path / "a.nii.gz").header.get_zooms() == pytest.approx((0.15, 0.05, 0.9))
    image = torchio.ScalarImage(tmp_path / "a.nii.gz")
    assert image.spacing == pytest.approx((0.15, 0.05, 0.9))
    assert np.abs(world(image.affine, corners(SHAPE)) - world(affine, corners(SHAPE))).max() < 1e-3
    assert image.data[0].numpy() == pytest.approx(noise())


@pytest.mark.parametrize("mirrored", [False, True])
def test_qform_and_sform_say_the_same(tmp_path, mirrored):
    affine = right_angled(1, mirrored=mirrored)
    write_volume(tmp_path / "a.nii", noise(), affine)
    header = nibabel.load(tmp_path / "a.nii").header
    assert header.get_qform() == pytest.approx(affine, abs=1e-5)
    assert header.get_sform() == pytest.approx(affine, abs=1e-5)
    assert header.get_xyzt_units()[0] == "mm"


def test_a_sheared_affine_is_written_as_sform_only(tmp_path, log):
    affine = right_angled(1)
    affine[:3, 1] += 0.2 * affine[:3, 0]
    write_volume(tmp_path / "a.nii", noise(), affine)
    header = nibabel.load(tmp_path / "a.nii").header
    assert (header["qform_code"], header["sform_code"]) == (0, 1)
    assert read_header(tmp_path / "a.nii").affine == pytest.approx(affine, abs=1e-5)
    assert "not at right angles" in log.text


@pytest.mark.parametrize(("codes", "kept"), [((1, 4), (1, 4)), ((0, 4), (4, 4)), ((2, 0), (2, 2)), ((0, 0), (1, 1))])
def test_coordinate_codes_are_kept_and_never_0(tmp_path, codes, kept):
    image = nibabel.Nifti1Image(noise(), right_angled(1))
    image.set_qform(right_angled(1), codes[0])
    image.set_sform(right_angled(1), codes[1])
    nibabel.save(image, tmp_path / "in.nii")
    header = read_header(tmp_path / "in.nii")
    write_volume(tmp_path / "out.nii", noise(), header.affine, like=header)
    written = nibabel.load(tmp_path / "out.nii").header
    assert (written["qform_code"], written["sform_code"]) == kept


def test_where_the_forms_disagree_the_sform_is_read_and_names_both_on_writing(tmp_path, log):
    image = nibabel.Nifti1Image(noise(), right_angled(1))
    image.set_qform(right_angled(2), 1)
    image.set_sform(right_angled(1), 4)
    nibabel.save(image, tmp_path / "in.nii")
    header = read_header(tmp_path / "in.nii")
    assert header.affine == pytest.approx(right_angled(1), abs=1e-5)
    assert (header.qform_code, header.sform_code) == (4, 4)
    assert log.text.count("qform and sform disagree") == 1


def test_the_qform_is_read_where_there_is_no_sform(tmp_path):
    image = nibabel.Nifti1Image(noise(), None)
    image.set_qform(right_angled(3, mirrored=True), 1)
    image.set_sform(None, 0)
    nibabel.save(image, tmp_path / "a.nii")
    assert read_header(tmp_path / "a.nii").affine == pytest.approx(right_angled(3, mirrored=True), abs=1e-5)


def test_without_qform_and_sform_the_fallback_of_nibabel_is_said_once(tmp_path, log):
    path = foreign(tmp_path / "a.nii", qform_code=0, sform_code=0)
    header = read_header(path)
    read_volume(path)
    assert header.affine == pytest.approx(nibabel.load(path).affine)
    assert orientation(header.affine) == "LAS"
    assert log.text.count("neither qform nor sform is set; taken as centred, with the axes left, front, top") == 1


@pytest.mark.parametrize(("units", "factor"), [("meter", 1000), ("micron", 0.001), ("mm", 1)])
def test_other_units_of_length_become_millimetres(tmp_path, units, factor):
    affine = right_angled(1)
    stated = np.diag([1 / factor, 1 / factor, 1 / factor, 1]) @ affine
    header = read_header(foreign(tmp_path / "a.nii", affine=stated, units=units))
    assert header.affine == pytest.approx(affine, rel=1e-5)
    assert ("converted into mm" in header.units) == (factor != 1)


def test_an_unknown_unit_is_taken_as_mm_and_said(tmp_path, log):
    header = read_header(foreign(tmp_path / "a.nii", units=0))
    assert header.spacing_mm == pytest.approx((0.2, 0.2, 0.6))
    assert "names no unit of length; taken as mm" in log.text


def test_stated_spacing_replaces_the_headers_around_the_same_centre(tmp_path, log):
    path = foreign(tmp_path / "a.nii", affine=right_angled(1, (2.0, 2.0, 6.0)))
    middle = (np.array(SHAPE) - 1) / 2
    header = read_header(path, spacing_mm=(0.2, 0.2, 0.6))
    assert header.spacing_mm == pytest.approx((0.2, 0.2, 0.6))
    assert world(header.affine, middle) == pytest.approx(world(right_angled(1, (2.0, 2.0, 6.0)), middle), abs=1e-5)
    assert "spacing 2 x 2 x 6 mm replaced by 0.2 x 0.2 x 0.6 mm" in log.text


def test_spacing_that_differs_between_pixdim_and_sform_is_said(tmp_path, log):
    read_header(foreign(tmp_path / "a.nii", pixdim=[1, 2, 2, 6, 0, 0, 0, 0]))
    assert "pixdim says 2 x 2 x 6, the sform 0.2 x 0.2 x 0.6; the sform is used" in log.text


# Writing


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [*INTEGERS, "float32", "float64"])
def test_every_stored_type_returns_what_was_written(tmp_path, dtype, suffix):
    data = noise().round()
    write_volume(tmp_path / f"deep/a{suffix}", data, np.eye(4), dtype=dtype)
    assert nibabel.load(tmp_path / f"deep/a{suffix}").get_data_dtype() == dtype
    assert (nibabel.load(tmp_path / f"deep/a{suffix}").get_fdata() == data).all()
    assert (read_volume(tmp_path / f"deep/a{suffix}")[0] == data).all()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_whole_numbers_are_clipped_to_their_type(tmp_path, dtype, log):
    data = noise()
    data[0, 0, 0], data[0, 0, 1] = 1e20, -1e20
    write_volume(tmp_path / "a.nii", data, np.eye(4), dtype=dtype)
    stored = np.asarray(nibabel.load(tmp_path / "a.nii").dataobj)
    limits = np.iinfo(dtype)
    assert stored[0, 0, 0] == pytest.approx(limits.max, rel=1e-15)
    assert stored[0, 0, 1] == limits.min
    assert (stored[1:] == np.rint(data[1:])).all()
    assert f"2 of 210 voxels do not fit in {dtype} and are clipped" in log.text


@pytest.mark.parametrize(("dtype", "stored_as"), [("input", "uint8"), ("int16", "int16")])
def test_the_scaling_of_the_input_is_kept_for_whole_numbers(tmp_path, dtype, stored_as):
    stored = np.arange(210, dtype=np.uint8).reshape(SHAPE)
    values, header = read_volume(foreign(tmp_path / "in.nii", stored, scl_slope=6.5, scl_inter=-3))
    write_volume(tmp_path / "out.nii", values + 1, header.affine, like=header, dtype=dtype)  # 1 is below half a step
    written = nibabel.load(tmp_path / "out.nii")
    assert written.get_data_dtype() == stored_as
    assert (written.dataobj.get_unscaled() == stored).all()
    assert (read_volume(tmp_path / "out.nii")[0] == values).all()


def test_float_output_of_a_scaled_input_holds_the_values_themselves(tmp_path):
    _, header = read_volume(foreign(tmp_path / "in.nii", np.arange(210, dtype=np.uint8).reshape(SHAPE), scl_slope=6.5))
    write_volume(tmp_path / "out.nii", noise(), header.affine, like=header)
    assert (nibabel.load(tmp_path / "out.nii").dataobj.get_unscaled() == noise()).all()
    assert (read_volume(tmp_path / "out.nii")[0] == noise()).all()


def test_equal_volumes_make_equal_files(tmp_path, monkeypatch):
    write_volume(tmp_path / "a.nii.gz", noise(), np.eye(4))
    monkeypatch.setattr(time, "time", lambda: 1e9)
    write_volume(tmp_path / "b.nii.gz", noise(), np.eye(4))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_an_axis_beyond_nifti_1_is_written_as_nifti_2(tmp_path):
    write_volume(tmp_path / "a.nii", noise(2, 2, 40_000), np.diag([1, 1, 0.001, 1]))
    assert isinstance(nibabel.load(tmp_path / "a.nii"), nibabel.Nifti2Image)
    assert read_header(tmp_path / "a.nii").shape == (2, 2, 40_000)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"path": "a.mgz"}, "volumes are written as .nii or .nii.gz"),
        ({"data": noise(1, 5, 6, 7)}, r"an array of shape \(1, 5, 6, 7\) cannot be written"),
        ({"data": np.full(SHAPE, np.nan)}, "values that are not finite"),
        ({"affine": np.zeros((4, 4))}, "its affine gives voxels 0 x 0 x 0 apart"),
        ({"affine": np.full((4, 4), np.nan)}, "its affine holds numbers that are not finite"),
        ({"affine": np.eye(3)}, r"its affine has shape \(3, 3\), expected \(4, 4\)"),
        ({"dtype": "input"}, "dtype 'input' needs the header of an input"),
        ({"dtype": "float16"}, "dtype 'float16' is not written; known: input, uint8"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_no_file(tmp_path, change, text):
    wanted = {"path": "a.nii", "data": noise(), "affine": np.eye(4), **change}
    with pytest.raises(DataError, match=text):
        write_volume(tmp_path / wanted.pop("path"), **wanted)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    write_volume(tmp_path / "a.nii.gz", noise(), np.eye(4))
    before = (tmp_path / "a.nii.gz").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"a.nii.gz: cannot be written \(No space left on device\)"):
        write_volume(tmp_path / "a.nii.gz", noise(seed=1), np.eye(4))
    assert (tmp_path / "a.nii.gz").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


# Names


def test_only_the_suffix_is_taken_from_a_name():
    assert volume_stem("scans/rat.01.nii.gz") == "rat.01"
    assert volume_stem("rat.01.NII") == "rat.01"
    assert [is_nifti(n) for n in ("a.nii", "a.nii.gz", "a.NII.GZ", "a.gz", "a.nii.tmp", "a.hdr")] == [1, 1, 1, 0, 0, 0]


def test_volumes_of_a_folder_are_listed_in_order_without_hidden_ones(tmp_path):
    for name in ("b.nii", "a.nii.gz", "._a.nii.gz", "a.txt", "below/c.nii", ".hidden/d.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "below/again").symlink_to(tmp_path)
    assert find_volumes(tmp_path) == [tmp_path / "a.nii.gz", tmp_path / "b.nii"]
    assert find_volumes(tmp_path, recursive=True) == [tmp_path / n for n in ("a.nii.gz", "b.nii", "below/c.nii")]


def test_a_missing_folder_and_a_file_in_its_place_are_told_apart(tmp_path):
    (tmp_path / "a.nii").touch()
    with pytest.raises(DataError, match="no such folder"):
        find_volumes(tmp_path / "gone")
    with pytest.raises(DataError, match=r"a\.nii: is a file, not a folder"):
        find_volumes(tmp_path / "a.nii")


# Refusals


def test_what_is_no_file_of_voxels_is_named(tmp_path):
    (tmp_path / "empty.nii").touch()
    (tmp_path / "empty.nii.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "text.nii").write_text("no volume at all, " * 50)
    (tmp_path / "short.nii").write_bytes(foreign(tmp_path / "whole.nii").read_bytes()[:346])
    (tmp_path / "folder.nii").mkdir()
    assert "no such file" in refusal(tmp_path / "gone.nii")
    assert "is a folder, not a volume" in refusal(tmp_path / "folder.nii")
    assert "the file is empty (0 bytes)" in refusal(tmp_path / "empty.nii")
    assert "the file is empty (0 bytes)" in refusal(tmp_path / "empty.nii.gz")
    assert "not a NIfTI file (its first bytes are b'no volume" in refusal(tmp_path / "text.nii")
    assert "not a NIfTI file (magic b'n+'" in refusal(tmp_path / "short.nii")


@pytest.mark.parametrize("kind", [nibabel.AnalyzeImage, nibabel.Nifti1Pair])
def test_a_pair_of_files_is_refused_by_name_and_by_content(tmp_path, kind):
    nibabel.save(kind(noise(), np.eye(4)), tmp_path / "a.img")
    assert "two-file NIfTI are not read; save the pair as one .nii" in refusal(tmp_path / "a.img")
    assert "two-file NIfTI are not read" in refusal(tmp_path / "a.hdr")
    (tmp_path / "a.hdr").rename(tmp_path / "a.nii")
    assert "header of an Analyze or two-file NIfTI" in refusal(tmp_path / "a.nii")


def test_a_plain_file_cut_short_is_refused_by_its_header(tmp_path):
    whole = foreign(tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii").write_bytes(whole[:-1])
    with pytest.raises(DataError, match="is cut short: the header promises 1,192 bytes, at most 1,191 are there"):
        read_header(tmp_path / "a.nii")


@pytest.mark.parametrize("length", [40, 300, -9, -1])
def test_a_packed_file_cut_short_is_refused(tmp_path, length):
    whole = foreign(tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(whole[:length])
    assert "damaged or cut short" in refusal(tmp_path / "a.nii.gz")


def test_a_whole_packing_of_too_few_voxels_is_refused(tmp_path):
    whole = foreign(tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(whole[:-8]))
    assert "is cut short: 210 voxels promised, 208 found" in refusal(tmp_path / "b.nii.gz")


def test_a_damaged_voxel_in_a_packed_file_is_noticed(tmp_path):
    content = bytearray(gzip.compress(foreign(tmp_path / "a.nii").read_bytes(), 0))  # stored, so any byte unpacks
    content[600] ^= 1
    (tmp_path / "b.nii.gz").write_bytes(content)
    assert "CRC check failed" in refusal(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_huge_dimensions_are_refused_before_a_voxel_is_read(tmp_path, suffix):
    path = foreign(tmp_path / f"a{suffix}", dim=[3, 32000, 32000, 32000, 1, 1, 1, 1])
    start = time.perf_counter()
    assert "is 32000 x 32000 x 32000 = 32,768,000,000,000 voxels, above the limit of 500,000,000" in refusal(path)
    assert "at most" in refusal(path, max_voxels=10**15)  # 131 TB cannot come out of a kilobyte
    assert time.perf_counter() - start < 1


def test_the_limit_of_voxels_is_an_option(tmp_path):
    path = foreign(tmp_path / "a.nii")
    assert "5 x 6 x 7 = 210 voxels, above the limit of 209 (max_voxels)" in refusal(path, max_voxels=209)
    assert read_header(path, max_voxels=210).shape == SHAPE


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        ([3, 5, 0, 7, 1, 1, 1, 1], r"its dimensions are 3 (5, 0, 7, 1, 1, 1, 1): damaged header"),
        ([3, 5, -6, 7, 1, 1, 1, 1], "damaged header"),
        ([0, 5, 6, 7, 1, 1, 1, 1], "damaged header"),
        ([8, 5, 6, 7, 1, 1, 1, 1], "damaged header"),
        ([2, 5, 6, 7, 1, 1, 1, 1], "is 5 x 6: a single slice, expected a 3D scan"),
        ([3, 5, 6, 1, 1, 1, 1, 1], "is 5 x 6 x 1: a single slice"),
        ([5, 5, 6, 7, 1, 3, 1, 1], "is 5D (5 x 6 x 7 x 1 x 3), expected a 3D scan"),
        ([4, 5, 6, 7, 9, 1, 1, 1], "is 4D (5 x 6 x 7 x 9) and holds 9 volumes; choose one with volume: 0 to 8"),
    ],
)
def test_what_is_not_one_3d_volume_is_refused(tmp_path, dim, text):
    assert text in refusal(foreign(tmp_path / "a.nii", dim=dim))


@pytest.mark.parametrize("volume", [4, -1])
def test_a_volume_that_is_not_there_is_refused(tmp_path, volume):
    path = foreign(tmp_path / "a.nii", noise(*SHAPE, 4))
    assert f"has no volume {volume}: it holds 4, numbered from 0" in refusal(path, volume=volume)


@pytest.mark.parametrize(
    ("code", "name"),
    [(32, "complex64"), (128, "RGB"), (2304, "RGBA"), (1536, "float128"), (1, "bits"), (77, "unknown")],
)
def test_values_that_are_no_plain_numbers_are_refused(tmp_path, code, name):
    text = refusal(foreign(tmp_path / "a.nii", datatype=code))
    assert name in text
    assert f"(datatype {code})" in text


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_counted_and_the_first_is_named(tmp_path, bad, log):
    data = noise()
    data[3, 2, 1] = data[4, 5, 6] = bad
    path = foreign(tmp_path / "a.nii", data)
    text = refusal(path)
    assert "2 of 210 voxels, the first at (3, 2, 1)" in text
    assert "repair_nan" in text
    repaired, _ = read_volume(path, repair_nan=True)
    assert (repaired == np.where(np.isfinite(data), data, 0)).all()
    assert "2 of 210 voxels, the first at (3, 2, 1); 0 is put there" in log.text


def test_a_value_beyond_float32_is_no_finite_value(tmp_path):
    data = noise().astype(np.float64)
    data[0, 0, 0] = 1e300
    assert "NaN or infinite values (in float32): 1 of 210" in refusal(foreign(tmp_path / "a.nii", data))


def test_a_constant_volume_is_refused_also_after_repair(tmp_path):
    assert "every voxel is 5;" in refusal(foreign(tmp_path / "a.nii", np.full(SHAPE, 5, np.int16)))
    nothing = foreign(tmp_path / "b.nii", np.full(SHAPE, np.nan, np.float32))
    assert "every voxel is 0;" in refusal(nothing, repair_nan=True)


def test_an_affine_that_is_none_is_refused(tmp_path):
    path = tmp_path / "a.nii"
    flat = {"srow_x": [1, 0, 1, 0], "srow_y": [0, 1, 0, 0], "srow_z": [0, 0, 0, 0]}
    assert "its sform is singular, two voxel axes point the same way" in refusal(foreign(path, **flat))
    assert "its sform gives voxels 0 x 0.2 x 0.6 apart" in refusal(foreign(path, srow_x=[0, 0, 0, 0]))
    assert "its sform holds numbers that are not finite" in refusal(foreign(path, srow_y=[0, np.nan, 0, 0]))
    assert "its qform is no rotation" in refusal(foreign(path, sform_code=0, qform_code=1, quatern_b=2))


@pytest.mark.parametrize("first", [0, -0.2, np.nan, np.inf])
def test_a_spacing_that_is_not_above_0_is_refused(tmp_path, first):
    pixdim = [1, first, 0.2, 0.6, 0, 0, 0, 0]
    assert "three spacings above 0" in refusal(foreign(tmp_path / "a.nii", sform_code=0, qform_code=1, pixdim=pixdim))
    text = refusal(foreign(tmp_path / "b.nii", sform_code=0, qform_code=0, pixdim=pixdim))
    assert f"its pixdim gives voxels {first:g} x 0.2 x 0.6 apart" in text


@pytest.mark.parametrize("factor", [1e-6, 1000])
def test_a_spacing_no_scanner_has_is_taken_for_a_wrong_unit(tmp_path, factor):
    path = foreign(tmp_path / "a.nii", affine=np.diag([0.2 * factor, 0.2 * factor, 0.6 * factor, 1]))
    text = refusal(path)
    assert "expected 0.001 to 100 mm; the unit may be wrong (the header says mm)" in text
    assert "spacing_mm" in text
    assert read_header(path, spacing_mm=(0.2, 0.2, 0.6)).spacing_mm == pytest.approx((0.2, 0.2, 0.6))


def test_a_stated_spacing_must_be_three_numbers_above_0(tmp_path):
    path = foreign(tmp_path / "a.nii")
    assert "spacing_mm (0.2, 0.2): expected one number above 0" in refusal(path, spacing_mm=(0.2, 0.2))
    assert "spacing_mm (0, 1, 1): expected one number above 0" in refusal(path, spacing_mm=(0, 1, 1))


def test_scaling_and_offset_that_make_no_sense_are_refused(tmp_path):
    assert "scl_slope is inf" in refusal(foreign(tmp_path / "a.nii", scl_slope=np.inf))
    assert "scl_inter nan" in refusal(foreign(tmp_path / "b.nii", scl_slope=2, scl_inter=np.nan))
    assert "voxels begin at byte 100 (vox_offset)" in refusal(foreign(tmp_path / "c.nii", vox_offset=100))
    assert "voxels begin at byte 1e+30" in refusal(foreign(tmp_path / "d.nii.gz", vox_offset=1e30))


def outcome(path):
    """A volume and its header, or what is said; anything else is a fault, and so is a wait."""
    start = time.perf_counter()
    try:
        result = read_volume(path)
    except DataError as error:
        result = str(error)
    assert time.perf_counter() - start < 1
    return result


def damages(content, end, seed=0):
    """300 copies with one byte before `end` replaced."""
    draw = np.random.default_rng(seed)
    for place, value in zip(draw.integers(0, end, 300).tolist(), draw.integers(0, 256, 300).tolist()):
        yield content[:place] + bytes([value]) + content[place + 1 :]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.filterwarnings("error")
def test_a_damaged_header_reads_or_is_refused_by_name(tmp_path, packed, kind):
    path = foreign(tmp_path / "a.nii", kind=kind)
    content = path.read_bytes()
    outcomes = []
    for damaged in damages(content, 348 if kind is nibabel.Nifti1Image else 540):
        path.write_bytes(gzip.compress(damaged, 1) if packed else damaged)
        outcomes.append(outcome(path))
    said = [o for o in outcomes if isinstance(o, str)]
    assert all(text.startswith(f"{path}: ") for text in said)
    assert all(np.isfinite(o[0]).all() and np.isfinite(o[1].affine).all() for o in outcomes if not isinstance(o, str))
    assert 0 < len(said) < 300


def test_a_damaged_packing_is_refused_or_gives_the_voxels_that_were_packed(tmp_path):
    path = foreign(tmp_path / "a.nii.gz")
    content = path.read_bytes()
    outcomes = []
    for damaged in damages(content, len(content)):
        path.write_bytes(damaged)
        outcomes.append(outcome(path))
    said = [o for o in outcomes if isinstance(o, str)]
    assert all(text.startswith(f"{path}: ") for text in said)
    assert all((o[0] == noise()).all() for o in outcomes if not isinstance(o, str))
    assert 0 < len(said) < 300


# Real scans


@pytest.fixture
def scans(test_data):
    if not (test_data / "mri").is_dir():
        pytest.skip(f"no folder mri in {test_data}")
    return test_data / "mri"


def test_scaled_bytes_of_a_real_scan_read_as_nibabel_reads_them_and_return(scans, tmp_path):
    path = scans / "human/MR_Gd_skullstripped.nii.gz"
    values, header = read_volume(path)
    assert (values == nibabel.load(path).get_fdata().astype(np.float32)).all()
    assert (header.dtype, values.max()) == (np.uint8, 1653)
    write_volume(tmp_path / "a.nii.gz", values, header.affine, like=header, dtype="input")
    theirs, ours = nibabel.load(path), nibabel.load(tmp_path / "a.nii.gz")
    assert (ours.dataobj.get_unscaled() == theirs.dataobj.get_unscaled()).all()
    assert (ours.affine == theirs.affine).all()


def test_the_rat_atlas_with_wrong_units_is_corrected_by_spacing_mm(scans):
    path = scans / "other/rat_T2w_wmotte.nii.gz"
    assert read_header(path).spacing_mm == (2, 2, 2)
    header = read_header(path, spacing_mm=(0.2, 0.2, 0.2))
    assert header.spacing_mm == pytest.approx((0.2, 0.2, 0.2))
    middle = (np.array(header.shape) - 1) / 2
    assert world(header.affine, middle) == pytest.approx(world(nibabel.load(path).affine, middle))


def test_the_oblique_cerebellum_keeps_its_place_when_enlarged(scans, tmp_path):
    values, header = read_volume(scans / "other/mouse_Tc1_cerebellum_40um.nii.gz")
    assert orientation(header.affine) == "ALS"
    fine = np.repeat(values[60:70, 120:130, 80:90], 3, axis=1)
    inner = header.affine.copy()
    inner[:3, 3] = world(header.affine, (60, 120, 80))
    write_volume(tmp_path / "a.nii.gz", fine, scaled_affine(inner, (1, 3, 1)), like=header)
    output = read_header(tmp_path / "a.nii.gz")
    assert orientation(output.affine) == "ALS"
    corner = (69.5, 129.5, 89.5)
    assert world(output.affine, np.array(output.shape) - 0.5) == pytest.approx(world(header.affine, corner), abs=1e-3)


def test_the_plain_thick_slice_scan_names_its_thick_axis(scans):
    values, header = read_volume(scans / "other/mouse_T1_aniso_sherm.nii")
    assert header.spacing_mm == (0.125, 0.125, 0.75)
    assert thick_axis(header.spacing_mm) == 2
    assert values.shape == (128, 128, 20)


def test_every_real_scan_reads_as_nibabel_reads_it(scans):
    paths = find_volumes(scans, recursive=True)
    assert paths
    for path in paths[::5]:
        values, header = read_volume(path)
        theirs = nibabel.load(path)
        assert (values == theirs.get_fdata().astype(np.float32)).all()
        assert header.affine == pytest.approx(theirs.affine)
