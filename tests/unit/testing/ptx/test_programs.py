"""Small CUDA C++ programs, compiled by NVRTC for old and new devices, against NumPy and Python.

They bring what compilers make of functions and language that the kernels of the GPU floor do not
use yet, in the forms of both of NVRTC's compilers.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from hotplug.errors import BackendLoadError
from hotplug.testing.ptx import Machine, Module
from hotplug_cuda import nvrtc

pytestmark = pytest.mark.parametrize("architecture", [75, 80, 90, 100, 120])


@functools.cache
def compiled(source, architecture, options=()):
    try:
        compiler = nvrtc.open_compiler()
    except BackendLoadError as error:
        pytest.skip(f"NVRTC has no build for this platform: {error}")
    made = compiler.compile("k", source, f"compute_{architecture}", options)
    return Module.parse(made.image.decode())


def run(source, architecture, *arrays, grid=1, block=64, options=()):
    """What is in the arrays after a kernel that takes pointers to them."""
    machine = Machine(1 << 24)
    addresses = []
    for array in arrays:
        addresses.append(machine.allocate(array.nbytes))
        machine.write(addresses[-1], array)
    module = compiled(source, architecture, options)
    machine.launch(
        module, "k", (grid, 1, 1), (block, 1, 1), [at.to_bytes(8, "little") for at in addresses]
    )
    return [
        np.frombuffer(machine.read(address, array.nbytes), array.dtype).reshape(array.shape)
        for address, array in zip(addresses, arrays, strict=True)
    ]


def mapped(type_, expression, result=None):
    """A kernel that computes an expression of x and y, elements of its first two arrays."""
    return f"""
        extern "C" __global__ void k(const {type_} *a, const {type_} *b, {result or type_} *out)
        {{
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            {type_} x = a[i], y = b[i];
            out[i] = {expression};
        }}
    """


SINGLES = {
    "expf(x)": np.exp, "logf(fabsf(x))": lambda x: np.log(np.abs(x)), "sinf(x)": np.sin,
    "cosf(x * 1024)": lambda x: np.cos(x * 1024), "tanf(x)": np.tan, "tanhf(x)": np.tanh,
    "sqrtf(fabsf(x))": lambda x: np.sqrt(np.abs(x)),
    "rsqrtf(x * x + 1)": lambda x: 1 / np.sqrt(x * x + 1),
    "log1pf(fabsf(x))": lambda x: np.log1p(np.abs(x)), "expm1f(x)": np.expm1, "exp2f(x)": np.exp2,
    "cbrtf(x)": np.cbrt, "atanf(x)": np.arctan, "floorf(x)": np.floor, "ceilf(x)": np.ceil,
    "rintf(x)": np.rint, "truncf(x)": np.trunc, "x / 3.7f": lambda x: x / np.float32(3.7),
    "erff(x)": np.vectorize(math.erf, otypes="d"),
    "lgammaf(fabsf(x) + 1)": lambda x: np.vectorize(math.lgamma)(abs(x) + 1),
    "fmodf(x, 0.75f)": lambda x: np.fmod(x, 0.75), "powf(fabsf(x), y)": lambda x, y: np.abs(x) ** y,
}  # fmt: skip


DOUBLES = {
    "exp(x)": np.exp, "log(fabs(x))": lambda x: np.log(np.abs(x)), "sin(x)": np.sin,
    "cos(x * 1e6)": lambda x: np.cos(x * 1e6), "tanh(x)": np.tanh,
    "pow(fabs(x), y)": lambda x, y: np.abs(x) ** y, "sqrt(fabs(x))": lambda x: np.sqrt(np.abs(x)),
    "x / y": lambda x, y: x / y, "cbrt(x)": np.cbrt, "fma(x, y, x)": lambda x, y: x * y + x,
    "floor(x)": np.floor, "rint(x)": np.rint, "1 / x": lambda x: 1 / x,
    "fmax(x, y)": np.fmax, "atan2(x, y)": np.arctan2,
}  # fmt: skip


@pytest.fixture(scope="module")
def numbers():
    random = np.random.default_rng(0)
    return (random.standard_normal((2, 256)) * np.exp2(random.integers(-6, 4, (2, 256)))).astype(
        "f4"
    )


def all_of(type_, functions):
    """A kernel whose block n computes the n-th function: a switch over all of them."""
    cases = "\n".join(f"case {n}: r = {text}; break;" for n, text in enumerate(functions))
    return f"""
        extern "C" __global__ void k(const {type_} *a, const {type_} *b, {type_} *out)
        {{
            int i = threadIdx.x;
            {type_} x = a[i], y = b[i], r = 0;
            switch (blockIdx.x) {{ {cases} }}
            out[blockIdx.x * blockDim.x + i] = r;
        }}
    """


def compare(architecture, type_, functions, x, y, rtol, options=()):
    out = np.zeros((len(functions), x.size), x.dtype)
    source = all_of(type_, functions)
    _, _, got = run(
        source, architecture, x, y, out, grid=len(functions), block=x.size, options=options
    )
    for (name, function), row in zip(functions.items(), got, strict=True):
        with np.errstate(all="ignore"):
            want = function(*(column.astype("f8") for column in (x, y)[: function_arity(function)]))
        np.testing.assert_allclose(row, want, rtol=rtol, atol=rtol, err_msg=name)


def function_arity(function):
    if isinstance(function, np.vectorize):
        return 1
    return function.nin if isinstance(function, np.ufunc) else function.__code__.co_argcount


def test_functions_of_floats(architecture, numbers):
    compare(architecture, "float", SINGLES, *numbers, rtol=4e-6)


def test_functions_of_doubles(architecture, numbers):
    x, y = numbers.astype("f8")
    compare(architecture, "double", DOUBLES, x, y, rtol=1e-13)


def test_functions_of_fast_math(architecture, numbers):
    """Approximations and flushing of subnormals."""
    x, y = numbers
    names = ("expf(x)", "logf(fabsf(x))", "sinf(x)", "tanhf(x)", "sqrtf(fabsf(x))", "x / 3.7f",
             "rsqrtf(x * x + 1)")  # fmt: skip
    few = {name: SINGLES[name] for name in names}
    compare(architecture, "float", few, x, y, rtol=3e-5, options=("--use_fast_math",))


INTEGERS = {
    "__popc(x)": lambda x, y: (x & M).bit_count(),
    "__clz(x)": lambda x, y: 32 - (x & M).bit_length(),
    "__ffs(x)": lambda x, y: (x & -x).bit_length(),
    "__brev(x)": lambda x, y: int(f"{x & M:032b}"[::-1], 2),
    "__mulhi(x, y)": lambda x, y: x * y >> 32,
    "(int)__umulhi(x, y)": lambda x, y: (x & M) * (y & M) >> 32,
    "__byte_perm(x, y, 0x5410)": lambda x, y: x & 0xFFFF | y << 16,
    "__funnelshift_l(x, y, 7)": lambda x, y: ((y & M) << 32 | x & M) << 7 >> 32,
    "__funnelshift_r(x, y, y)": lambda x, y: ((y & M) << 32 | x & M) >> (y & 31),
    "__sad(x, y, 3)": lambda x, y: abs(x - y) + 3, "__dp4a(x, y, 7)": lambda x, y: dot(x, y) + 7,
    "x / 7": lambda x, y: quotient(x, 7), "x % 7": lambda x, y: x - 7 * quotient(x, 7),
    "y / x": lambda x, y: quotient(y, x) if x else -1,
    "(unsigned)x / 13u": lambda x, y: (x & M) // 13,
    "x >> (y & 31)": lambda x, y: x >> (y & 31), "min(x, y)": min, "max(x, y)": max,
    "abs(x) + y": lambda x, y: abs(x) + y,
    "(int)((long long)x * y >> 16)": lambda x, y: x * y >> 16,
    "(int)((long long)x * 1000003 / y)": lambda x, y: quotient(x * 1000003, y),
    "(x & y) | (~x & 0x55aa)": lambda x, y: x & y | ~x & 0x55AA,
    "(signed char)x + (short)y": lambda x, y: wrapped(x, 8) + wrapped(y, 16),
}  # fmt: skip
M = 0xFFFFFFFF


def wrapped(value, bits=32):
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def quotient(x, y):
    return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)


def dot(x, y):
    parts = [[wrapped(value >> 8 * byte, 8) for byte in range(4)] for value in (x, y)]
    return sum(a * b for a, b in zip(*parts, strict=True))


def test_integers(architecture):
    random = np.random.default_rng(0)
    x, y = random.integers(-(2**31), 2**31, (2, 256), dtype="i4")
    x[:4] = [0, 1, -1, 2**31 - 1]
    out = np.zeros((len(INTEGERS), 256), "i4")
    source = all_of("int", INTEGERS)
    _, _, got = run(source, architecture, x, y, out, grid=len(INTEGERS), block=256)
    for (name, function), row in zip(INTEGERS.items(), got.tolist(), strict=True):
        want = [wrapped(function(a, b)) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
        assert row == want, name


def test_a_reduction_of_blocks_by_shuffles_and_atomics(architecture):
    source = """
        extern "C" __global__ void k(const int *a, int *sum, int *most, unsigned int *votes)
        {
            __shared__ int part[32];
            __shared__ int largest;
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            if (threadIdx.x == 0) largest = -1000000;
            int value = a[i];
            for (int step = 16; step > 0; step /= 2)
                value += __shfl_xor_sync(0xffffffff, value, step);
            if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = value;
            int negative = __syncthreads_count(a[i] < 0);
            atomicMax(&largest, a[i]);
            unsigned int odd = __ballot_sync(0xffffffff, a[i] & 1);
            if (threadIdx.x < blockDim.x / 32) {
                int total = part[threadIdx.x];
                unsigned int mask = (1u << blockDim.x / 32) - 1;
                for (int step = blockDim.x / 64; step > 0; step /= 2)
                    total += __shfl_down_sync(mask, total, step);
                if (threadIdx.x == 0) atomicAdd(sum, total);
            }
            __syncthreads();
            if (threadIdx.x == 0) { atomicMax(most, largest); atomicAdd(votes, negative); }
            if (threadIdx.x % 32 == 0) atomicAdd(votes + 1, __popc(odd));
        }
    """
    a = np.random.default_rng(0).integers(-500, 500, 1024, dtype="i4")
    _, total, most, votes = run(
        source, architecture, a, np.zeros(1, "i4"), np.full(1, -(10**6), "i4"), np.zeros(2, "u4"),
        grid=4, block=256,
    )  # fmt: skip
    assert (total[0], most[0]) == (a.sum(), a.max())
    assert votes.tolist() == [(a < 0).sum(), (a & 1).sum()]


def test_calls_and_arrays_of_a_thread(architecture):
    """A function that is not inlined, a table with a varying index, structs by value."""
    source = """
        struct Pair { long long first; int second[3]; };
        static __device__ const int table[] = {3, 1, 4, 1, 5, 9, 2, 6};
        __device__ __noinline__ int digits(int n, int base)
        {
            int stack[32], depth = 0, result = 0;
            do { stack[depth++] = n % base; n /= base; } while (n > 0);
            while (depth > 0) result = result * 3 + stack[--depth] % 3;
            return result;
        }
        __device__ __noinline__ Pair both(Pair p, int n)
        {
            p.first += digits(n, 7);
            p.second[n % 3] += table[n % 8];
            return p;
        }
        extern "C" __global__ void k(long long *out)
        {
            int i = threadIdx.x;
            Pair p = {i, {10, 20, 30}};
            p = both(p, i);
            if (i & 1) p = both(p, i + 5);
            out[i] = p.first * 1000000 + p.second[0] * 10000 + p.second[1] * 100 + p.second[2];
        }
    """

    def digits(n, base):
        stack = [n % base]
        while n >= base:
            n //= base
            stack.append(n % base)
        return functools.reduce(lambda result, digit: result * 3 + digit % 3, stack[::-1], 0)

    table = [3, 1, 4, 1, 5, 9, 2, 6]
    want = []
    for i in range(64):
        first, second = i, [10, 20, 30]
        for n in [i, i + 5] if i & 1 else [i]:
            first += digits(n, 7)
            second[n % 3] += table[n % 8]
        want.append(first * 1000000 + second[0] * 10000 + second[1] * 100 + second[2])
    (got,) = run(source, architecture, np.zeros(64, "i8"))
    assert got.tolist() == want


def test_halves_and_vectors(architecture):
    source = """
        extern "C" __global__ void k(const uint4 *a, float4 *out)
        {
            uint4 v = a[threadIdx.x];
            unsigned int parts[4] = {v.x, v.y, v.z, v.w};
            float sums[4];
            for (int n = 0; n < 4; ++n) {
                float low, high;
                asm("{.reg .f16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h;}"
                    : "=f"(low), "=f"(high) : "r"(parts[n]));
                sums[n] = low * 2 + high;
            }
            out[threadIdx.x] = make_float4(sums[0], sums[1], sums[2], sums[3]);
        }
    """
    halves = np.random.default_rng(0).standard_normal((64, 4, 2)).astype("f2")
    _, got = run(source, architecture, halves, np.zeros((64, 4), "f4"))
    want = halves[..., 0].astype("f4") * 2 + halves[..., 1].astype("f4")
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
