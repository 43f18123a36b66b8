"""Hostile and damaged pickles: refused by name, at once, and nothing in them runs."""

import io
import pickle
import struct
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from network_files import module, official_names, write

from oneprior.core import InputError
from oneprior.data import network_pickle, pickled
from oneprior.data.decoded import BadFileError
from oneprior.data.network_pickle import PickledModule, read_network_pickle
from oneprior.data.pickled import RefusedPickleError

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "stylegan2"


def text(value):
    """BINUNICODE."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def raw(value):
    """BINBYTES."""
    return b"B" + struct.pack("<I", len(value)) + value


def stack_global(room, name):
    return text(room) + text(name) + b"\x93"


def call(room, name, *arguments):
    """A pickle that calls a name with arguments that are pickled already."""
    return b"\x80\x04" + stack_global(room, name) + b"(" + b"".join(arguments) + b"tR."


def read(tmp_path, data):
    (tmp_path / "a.pkl").write_bytes(data)
    return read_network_pickle(tmp_path / "a.pkl")


def storage(values, **changes):
    """A storage as torch writes it, with some of its parts changed."""
    own = {"magic": 0x1950A86A20F9469CFC6C, "version": 1001, "system": {"little_endian": True}, "count": len(values)}
    own |= {"stated": len(values), "keys": ["0"], "kind": "FloatStorage", "named": None} | changes
    named = own["named"] or (
        b"\x80\x02(" + text("storage") + b"ctorch\n" + own["kind"].encode() + b"\n" + text("0") + text("cuda:0")
        + pickle.dumps(own["count"], 2)[2:-1] + b"NtQ."
    )  # fmt: skip
    parts = [pickle.dumps(own[name], 2) for name in ("magic", "version", "system")]
    body = np.asarray(values, "<f4").tobytes()
    return b"".join([*parts, named, pickle.dumps(own["keys"], 2), struct.pack("<q", own["stated"]), body])


def tensor(data, offset=0, size=(4,), stride=(1,)):
    """The call that rebuilds a tensor of a storage."""
    numbers = b"".join(pickle.dumps(part, 2)[2:-1].replace(b"q\x00", b"") for part in (offset, size, stride))
    return call(
        "torch._utils", "_rebuild_tensor_v2", call("torch.storage", "_load_from_bytes", raw(data))[2:-1], numbers
    )


@pytest.fixture
def marker(tmp_path):
    """A file that must never appear, and the command that would make it."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists(), "the file was executed"


def shell(marker):
    return f"touch {marker}".encode()


HOSTILE = {
    "GLOBAL": (lambda m: b"cos\nsystem\n(S'" + shell(m) + b"'\ntR.", "os.system"),
    "posix": (lambda m: b"cposix\nsystem\n(S'" + shell(m) + b"'\ntR.", "posix.system"),
    "STACK_GLOBAL": (lambda m: call("os", "system", text(f"touch {m}")), "os.system"),
    "eval": (lambda m: call("builtins", "eval", text(f"open({str(m)!r}, 'w')")), "builtins.eval"),
    "old eval": (lambda m: b"c__builtin__\neval\n(S'1'\ntR.", "__builtin__.eval"),
    "getattr": (lambda m: call("builtins", "getattr", b"N", text("x")), "builtins.getattr"),
    "INST": (lambda m: b"(S'" + shell(m) + b"'\nios\nsystem\n.", "os.system"),
    "OBJ": (lambda m: b"(cos\nsystem\nS'" + shell(m) + b"'\no.", "os.system"),
    "OBJ of a known name": (lambda m: b"(ccollections\nOrderedDict\no.", "opcode OBJ"),
    "NEWOBJ": (lambda m: b"\x80\x02csubprocess\nPopen\n(S'" + shell(m) + b"'\nt\x81.", "subprocess.Popen"),
    "NEWOBJ of a function": (lambda m: b"\x80\x02ctorch.storage\n_load_from_bytes\n)\x81.", "makes an instance"),
    "NEWOBJ_EX": (lambda m: b"\x80\x04" + stack_global("collections", "OrderedDict") + b")}\x92.", "NEWOBJ_EX"),
    "EXT1": (lambda m: b"\x80\x02\x82\x01.", "opcode EXT1"),
    "EXT2": (lambda m: b"\x80\x02\x83\x01\x00.", "opcode EXT2"),
    "EXT4": (lambda m: b"\x80\x02\x84\x01\x00\x00\x00.", "opcode EXT4"),
    "NEXT_BUFFER": (lambda m: b"\x80\x05\x97.", "opcode NEXT_BUFFER"),
    "PERSID": (lambda m: b"P0\n.", "object outside of it"),
    "BINPERSID": (lambda m: b"K\x00Q.", "object outside of it"),
    "BUILD of a name": (lambda m: b"ccollections\nOrderedDict\n}S'__setstate__'\ncos\nsystem\nsb.", "os.system"),
    "BUILD of a stand-in": (lambda m: b"ccollections\nOrderedDict\n}S'call'\nNsb.", "gives a state"),
    "SETITEM of a stand-in": (lambda m: b"ccollections\nOrderedDict\nS'call'\nNs.", "what is no dictionary"),
    "APPEND to a stand-in": (lambda m: b"ccollections\nOrderedDict\nNa.", "what is no list"),
    "call of a value": (lambda m: b"S'os.system'\n(S'" + shell(m) + b"'\ntR.", "what is no name"),
    "call of a type": (lambda m: call("numpy", "ndarray", b"K\x01"), "calls numpy.ndarray"),
    "dotted name": (lambda m: call("collections", "OrderedDict.fromkeys", b"]"), "OrderedDict.fromkeys"),
    "globals": (lambda m: call("torch.storage", "_load_from_bytes.__globals__.get", b"N"), "__globals__"),
    "torch.load": (lambda m: call("torch", "load", text("x")), "torch.load"),
    "torch.hub": (lambda m: call("torch.hub", "load", text("x"), text("y")), "torch.hub.load"),
    "own package": (lambda m: call("oneprior.data.pickled", "unpickle"), "oneprior.data.pickled.unpickle"),
    "own copyreg": (lambda m: call("copyreg", "_reconstructor"), "copyreg._reconstructor"),
    "numpy load": (lambda m: call("numpy", "load", text("x")), "numpy.load"),
    "in a storage": (lambda m: tensor(b"cos\nsystem\n(S'" + shell(m) + b"'\ntR."), "os.system"),
    "behind the magic": (
        lambda m: tensor(storage([1.0] * 4, named=b"cos\nsystem\n(S'" + shell(m) + b"'\ntR.")),
        "os.system",
    ),
    "as a type of storage": (lambda m: tensor(storage([1.0] * 4, kind="hub\nload\n(N")), "torch.hub"),
    "TensorFlow": (lambda m: call("dnnlib.tflib.network", "Network"), "dnnlib.tflib.network.Network"),
    "line breaks": (lambda m: call("a\nb" * 99, "c"), r"a\\nb"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_outside_the_table_is_found(tmp_path, marker, kind):
    build, said = HOSTILE[kind]
    with pytest.raises(RefusedPickleError, match=said) as error:
        read(tmp_path, build(marker))
    assert "nothing in the file was executed" in str(error.value)
    assert str(tmp_path / "a.pkl") in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_object_of_pythons_own_pickle(tmp_path, marker, protocol):
    class Evil:
        def __reduce__(self):
            return __import__("os").system, (f"touch {marker}",)

    with pytest.raises(RefusedPickleError, match=r"\.system, which"):
        read(tmp_path, pickle.dumps({"G_ema": [Evil()]}, protocol=protocol))


def test_extension_codes_are_refused_even_where_they_are_registered(tmp_path, marker):
    import copyreg
    import os

    copyreg.add_extension("os", "system", 200)
    try:
        body = b"\x80\x02\x82\xc8(S'" + shell(marker) + b"'\ntR."
        copyreg._extension_cache[200] = os.system  # the door that Unpickler.find_class does not guard
        with pytest.raises(RefusedPickleError, match="EXT1"):
            read(tmp_path, body)
    finally:
        copyreg.remove_extension("os", "system", 200)
        copyreg._extension_cache.pop(200, None)


OBJECTS = {
    "objects": np.array([print, None], dtype=object),
    "fields": np.zeros(2, [("a", "f4")]),
    "text": np.array(["a"]),
    "dates": np.array(["2020-01-01"], "M8[D]"),
    "complex": np.zeros(2, complex),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_arrays_of_anything_but_numbers_are_refused(tmp_path, kind):
    with pytest.raises(BadFileError, match=r"no plain numbers|asks for"):
        read(tmp_path, pickle.dumps(OBJECTS[kind], protocol=2 if kind == "objects" else 4))


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<f4", ">f8", "|b1", "<i2"])
def test_arrays_and_scalars_of_numbers_are_read(tmp_path, kind, order, protocol):
    array = np.asarray(np.arange(6).reshape(2, 3), dtype=kind, order=order)
    held = read(tmp_path, pickle.dumps([array, array[1, 2]], protocol=protocol))
    np.testing.assert_array_equal(held[0].array, array)
    assert held[1] == array[1, 2]


LIES = {
    "elements": (lambda: tensor(storage([1.0] * 4, count=10**9, stated=10**9)), "claims 1000000000 elements"),
    "elements, twice told": (lambda: tensor(storage([1.0] * 4, stated=5)), "claims 4 elements"),
    "too many": (lambda: tensor(storage([1.0] * 5, count=4, stated=4)), "claims 4 elements"),
    "negative": (lambda: tensor(storage([1.0] * 4, count=-4, stated=-4)), "damaged"),
    "magic": (lambda: tensor(storage([1.0] * 4, magic=7)), "magic number"),
    "version": (lambda: tensor(storage([1.0] * 4, version=1002)), "unknown version"),
    "order of bytes": (lambda: tensor(storage([1.0] * 4, system={"little_endian": False})), "order of bytes"),
    "keys": (lambda: tensor(storage([1.0] * 4, keys=["0", "1"])), "one storage"),
    "no end": (lambda: tensor(storage([1.0] * 4)[:-17]), "damaged"),
    "zip in it": (lambda: tensor(b"PK\x03\x04" + bytes(100)), "magic number"),
    "size": (lambda: tensor(storage([1.0] * 4), 0, (5,), (1,)), "claims"),
    "offset": (lambda: tensor(storage([1.0] * 4), 1, (4,), (1,)), "claims"),
    "stride": (lambda: tensor(storage([1.0] * 4), 0, (2,), (4,)), "claims"),
    "stride of 0": (lambda: tensor(storage([1.0] * 4), 0, (10**6, 10**6), (0, 0)), "claims"),
    "stride below 0": (lambda: tensor(storage([1.0] * 4), 3, (4,), (-1,)), "damaged"),
    "huge size": (lambda: tensor(storage([1.0] * 4), 0, (2**70,), (1,)), "damaged"),
    "axes": (lambda: tensor(storage([1.0] * 4), 0, (1,) * 40, (1,) * 40), "damaged"),
    "array": (
        lambda: pickle.dumps(np.zeros(4, "<f4"), 2).replace(b"K\x04\x85", b"K\x7f\x85"),
        "another size",
    ),
    "text of 2^62 bytes": (lambda: b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc.", "damaged"),
    "bytes of 2^62 bytes": (lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.", "damaged"),
    "integer of 2 GB": (lambda: b"\x80\x02\x8b\xff\xff\xff\x7f1.", "damaged"),
    "integer in digits": (lambda: b"I" + b"9" * 100_000 + b"\n.", "damaged"),
    "key of a tuple": (lambda: b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns.", "damaged"),
    "member of a tuple": (lambda: b"\x80\x04\x8f()" + b"\x85" * 1_000_000 + b"\x90.", "damaged"),
    "stop too soon": (lambda: b"\x80\x02.", "damaged"),
    "no mark": (lambda: b"\x80\x02t.", "damaged"),
    "no memo": (lambda: b"\x80\x02h\x05.", "damaged"),
    "too few for a tuple": (lambda: b"\x80\x02N\x87.", "damaged"),
    "empty": (lambda: b"", "damaged"),
    "words": (lambda: b"this is a letter to a friend", "damaged"),
    "picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(64), "refused"),
    "zip": (lambda: b"PK\x03\x04" + bytes(64), "zip archive"),
}


@pytest.mark.parametrize("kind", LIES)
def test_lies_and_damage_are_told_at_once(tmp_path, kind):
    build, said = LIES[kind]
    data = build()
    start = time.process_time()
    with pytest.raises(BadFileError, match=said):
        read(tmp_path, data)
    assert time.process_time() - start < 20  # a million opcodes; nothing is allocated that the file does not hold


def test_a_tensor_of_torchs_layout_is_read(tmp_path):
    held = read(tmp_path, tensor(storage([1.0, 2.0, 3.0, 4.0]), 1, (3,), (1,)))
    assert held.tensor().tolist() == [2.0, 3.0, 4.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_of_torchs_own_pickle_are_read(tmp_path, dtype, protocol):
    x = torch.arange(12).reshape(3, 4).to(dtype)
    for value in (x, x.T, x[1:, ::2], torch.nn.Parameter(x, requires_grad=False), x[:0], x[0, 0]):
        held = read(tmp_path, pickle.dumps(value, protocol=protocol))
        assert torch.equal(held.tensor(), value.detach())
        assert held.tensor().dtype is dtype


def test_a_memo_index_costs_nothing(tmp_path):
    assert read(tmp_path, b"\x80\x02Nr\xff\xff\xff\x7f0j\xff\xff\xff\x7f.") is None


def test_nests_neither_crash_nor_run_away(tmp_path):
    assert isinstance(read(tmp_path, b"\x80\x02)" + b"\x85" * 300_000 + b"."), tuple)
    with pytest.raises(BadFileError, match="damaged"):
        read(tmp_path, b"(" * 300_000 + b".")


def test_opcodes_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(pickled, "MOST_OPCODES", 1000)
    assert read(tmp_path, b"\x80\x02" + b"N0" * 400 + b"N.") is None
    with pytest.raises(RefusedPickleError, match="more than 1,000 opcodes"):
        read(tmp_path, b"\x80\x02" + b"N0" * 600 + b"N.")
    nested = tensor(b"\x80\x02" + b"N0" * 600 + b"N.")
    with pytest.raises(RefusedPickleError, match="more than 1,000 opcodes"):
        read(tmp_path, nested)
    copies = b"\x80\x04" + stack_global("builtins", "set") + b"](" + b"K\x01" * 100 + b"e\x85q\x00" + b"0"
    with pytest.raises(RefusedPickleError, match="more than 1,000 opcodes"):
        read(tmp_path, copies + (stack_global("builtins", "set") + b"h\x00R0") * 50 + b"N.")


def test_the_same_bytes_are_not_read_again_and_again(tmp_path):
    once = stack_global("torch.storage", "_load_from_bytes")
    body = b"\x80\x04" + raw(storage([1.0] * 1000)) + b"\x85q\x000" + (once + b"h\x00R0") * 5 + b"N."
    with pytest.raises(RefusedPickleError, match="several times over"):
        read(tmp_path, body)


def _valid(tmp_path):
    inner = module("FullyConnectedLayer", {"weight": torch.randn(2, 3)}, weight_gain=np.float64(0.5))
    return write(tmp_path / "v.pkl", {"G_ema": module("Generator", modules={"fc": inner})}).read_bytes()


def test_a_file_that_is_cut_off_anywhere_is_told(tmp_path):
    data = _valid(tmp_path)
    assert isinstance(read(tmp_path, data)["G_ema"], PickledModule)
    for end in range(0, len(data), 7):
        with pytest.raises(BadFileError):
            read(tmp_path, data[:end])


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=3)), max_size=6))
def test_a_damaged_file_is_read_or_told_and_nothing_else(tmp_path, changes):
    data = bytearray(_valid(tmp_path))
    for place, new in changes:
        start = int(place * len(data))
        data[start : start + len(new)] = new
    with suppress(InputError):
        read(tmp_path, bytes(data))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_told(tmp_path, data):
    with suppress(InputError):
        read(tmp_path, b"\x80\x04" + data)


def test_the_readers_import_no_pickle_machine():
    """The tokeniser is all that is used of the standard library's pickle."""
    for room in (pickled, network_pickle):
        assert not {"pickle", "_pickle", "copyreg", "importlib"} & set(vars(room))
        assert "eval(" not in Path(room.__file__).read_text()


@pytest.mark.skipif(not REFERENCE.exists(), reason="the official generator's files are not at hand")
def test_the_official_file_holds_the_official_weights():
    from safetensors.torch import load_file

    held = read_network_pickle(REFERENCE / "unconditional.pkl")["G_ema"]
    fc0 = held.modules()["mapping"].modules()["fc0"].tensors()
    weights = load_file(REFERENCE / "unconditional_weights.safetensors")
    assert torch.equal(fc0["weight"], weights["mapping.fc0.weight"])


def test_writing_under_official_names_asks_for_them():
    with official_names():
        stream = io.BytesIO(pickle.dumps(module("Generator")))
    assert b"_reconstruct_persistent_obj" in stream.getvalue()
