"""What a text may hold, and what is told of one that is not known."""

from __future__ import annotations

import gc
import pickle

import numpy as np
import pytest

from hotplug.errors import UsageError
from hotplug.testing.ptx import Machine, Module, PTXError

UNKNOWN = {
    "wmma.load.a.sync.aligned.row.m16n16k16.global.f16 {%r1}, [%rd1];": "unknown instruction",
    "frobnicate.u32 %r1, %r2;": "unknown instruction",
    "add.cc.sat.u32 %r1, %r2, %r3;": "unknown modifier .sat",
    "add.f32.relu %f1, %f2, %f3;": "unknown",
    "add.ftz.f64 %fd1, %fd2, %fd3;": "a modifier that the type does not have",
    "mul.u32 %r1, %r2, %r3;": "none of lo, hi, wide",
    "ld.global.nc.funny.u32 %r1, [%rd1];": "unknown modifier .funny",
    "ld.global.v2.u32 %r1, [%rd1];": "elements for a vector of 2",
    "cvt.u32.f32 %r1, %f1;": "no rounding to an integer",
    "cvt.f32.s32 %f1, %r1;": "no rounding to a floating point number",
    "cvt.f16.f32 %rs1, %f1;": "no rounding to a narrower type",
    "cvt.rn.e4m3x2.f32 %rs1, %f1, %f2;": "no known type",
    "bar.sync 0, 64;": "a barrier of a part of the block",
    "bar.arrive 0, 64;": "none of sync, red",
    "mov.u32 %r1, %r999;": "no register %r999",
    "mov.u32 %r1, nothing;": "no variable nothing",
    "mov.u32 %r1, %clock_of_the_tower;": "no register",
    "bra NOWHERE;": "no such label",
    "call nobody;": "a call of what is not defined",
    "add.u32 %r1, %r2;": "operands",
    "min.s32 %r1, %r2, %r2, %r2;": "3 source operands",
    "fma.rn.f32x2 %rd1, %rd2, %rd2, %rd2;": "no known type",
    "fma.rm.f64 %fd1, %fd2, %fd3, %fd3;": "rounding",
}


@pytest.mark.parametrize("line", UNKNOWN)
def test_what_is_not_known_is_an_error(program, line):
    text = program(f"mov.u32 %r2, 1;\n    {line}")
    with pytest.raises(PTXError) as caught:
        Module.parse(text)
    error = caught.value
    assert UNKNOWN[line] in str(error)
    assert error.instruction == line.rstrip(";")
    assert text.splitlines()[error.line - 1].strip() == line
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no entry"),
        (".visible .entry k() { ret; ", "ends within"),
        (".visible .entry k() { # }", "unexpected character"),
        (".entry k(.param .u128 x) { ret; }", "unknown type"),
        (".entry k() { .reg .b128 %q; ret; }", "unknown type of registers"),
        (".entry k() { .frobnicate 3; ret; }", "unknown directive"),
        ("nonsense", "unexpected 'nonsense'"),
        (".entry k() { add.u32 %r1 %r2; }", "expected ';'"),
        (".global .u64 pointers[1] = {other};", "an address of"),
    ],
)
def test_text_that_is_no_ptx(text, message):
    with pytest.raises(PTXError, match=message):
        Module.parse(text)


def test_kernels_and_their_parameters():
    module = Module.parse("""
        .version 8.0
        .target sm_90
        .address_size 64
        .entry first(.param .u64 .ptr .global .align 4 a, .param .align 8 .b8 b[56], .param .f32 c)
        .maxntid 128, 1, 1
        .minnctapersm 2
        { .pragma "nounroll"; ret; }
        .weak .entry second() { ret; }
    """)
    assert module.kernels == ("first", "second")
    assert module.parameters("first") == ((8, 8), (56, 8), (4, 4))
    assert module.parameters("second") == ()
    with pytest.raises(UsageError, match="first, second"):
        module.parameters("third")


def test_scopes_have_their_own_registers(compute):
    text = """
        { .reg .b32 %t; mov.u32 %t, %x0;
          { .reg .b32 %t, other; add.u32 %t, %x0, 1; mov.u32 other, %t; add.u32 %d, other, %t; }
          add.u32 %d, %d, %t; }
    """
    values = np.arange(5, dtype="u4")
    assert compute(text, values, result="u4").tolist() == (3 * values + 2).tolist()


def test_registers_may_have_names_of_python(launch):
    text = """
        .reg .b64 %m, %lanes, %np, %divide, %if, %_i8, %m_1;
        ld.param.u64 %m, [p0];
        mov.u64 %lanes, 7;
        mov.u64 %np, 5;
        mov.u64 %_i8, 100;
        mov.u64 %m_1, 3;
        div.s64 %divide, %lanes, 2;
        add.s64 %if, %divide, %np;
        add.s64 %if, %if, %_i8;
        add.s64 %if, %if, %m_1;
        st.global.u64 [%m], %if;
    """
    (got,) = launch(text, np.zeros(1, "i8"), block=(1, 1, 1))
    assert got.tolist() == [111]


def test_registers_that_a_path_does_not_write_are_zero(launch):
    text = """
        mov.u32 %r0, %tid.x;
        setp.gt.u32 %p0, %r0, 1;
        @%p0 mov.u32 %r1, 8;
        mul.wide.u32 %rd0, %r0, 4;
        ld.param.u64 %rd1, [p0];
        add.s64 %rd1, %rd1, %rd0;
        st.global.u32 [%rd1], %r1;
    """
    (got,) = launch(text, np.ones(4, "u4"), block=(4, 1, 1))
    assert got.tolist() == [0, 0, 8, 8]


def test_arguments_and_geometry_must_fit(program):
    machine, module = Machine(1 << 20), Module.parse(program("", 2))
    good = [bytes(8), bytes(8)]
    machine.launch(module, "k", (1, 1, 1), (1, 1, 1), good)
    for wrong in ([], [bytes(8)], [bytes(8), bytes(4)]):
        with pytest.raises(UsageError, match="takes arguments of"):
            machine.launch(module, "k", (1, 1, 1), (1, 1, 1), wrong)
    for grid, block in (((0, 1, 1), (1, 1, 1)), ((1, 1, 1), (1, -1, 1)), ((1, 1, 1), (33, 32, 1))):
        with pytest.raises(UsageError):
            machine.launch(module, "k", grid, block, good)
    with pytest.raises(UsageError, match="no kernel"):
        machine.launch(module, "other", (1, 1, 1), (1, 1, 1), good)


def test_a_module_s_variables_go_with_it(program):
    text = program("st.global.u32 [counter], 5;", before=".global .u32 counter;")
    one, two = Machine(1000), Machine(1000)
    module = Module.parse(text)
    for machine in (one, two, one):
        machine.launch(module, "k", (1, 1, 1), (1, 1, 1), [])
    assert one.free_bytes == two.free_bytes == 996
    del module
    gc.collect()
    assert one.free_bytes == two.free_bytes == 1000


def test_devices_do_not_know_each_other_s_addresses(program):
    from hotplug.testing.ptx import MemoryFault

    one, two = Machine(1000), Machine(1000)
    address = one.allocate(8)
    two.allocate(8)
    module = Module.parse(program("ld.param.u64 %rd0, [p0]; st.global.u64 [%rd0], 1;", 1))
    for _ in range(2):
        one.launch(module, "k", (1, 1, 1), (1, 1, 1), [address.to_bytes(8, "little")])
        with pytest.raises(MemoryFault):
            two.launch(module, "k", (1, 1, 1), (1, 1, 1), [address.to_bytes(8, "little")])
