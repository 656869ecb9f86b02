// The vocabulary of the kernels in OpenCL C 1.2. Line by line the same as cuda.h.
#ifdef HAS_F64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif

#define KERNEL(items) __attribute__((reqd_work_group_size(items, 1, 1))) __kernel void
#define BUSY_KERNEL(items) KERNEL(items)
#define FUNCTION static inline
#define GLOBAL __global
#define LOCAL __local
#define RESTRICT restrict
#define CONSTANT __constant

#define GROUP_X ((int)get_group_id(0))
#define GROUP_Y ((int)get_group_id(1))
#define ITEM ((int)get_local_id(0))
#define BARRIER() barrier(CLK_LOCAL_MEM_FENCE)

#define UNROLLED _Pragma("unroll")
#define VECTORISED _Pragma("clang loop vectorize(enable) vectorize_width(16) unroll(disable)")

#define LONG long
#define ULONG ulong
#define UINT uint
#define UINT4 uint4 // 16 bytes at once, at a multiple of 16
#define USHORT ushort
#define UCHAR uchar
#define HALF half // storage only: it is loaded and stored by the macros below, never computed with

FUNCTION float half_to_float(ushort bits) { return vload_half(0, (const half *)&bits); }

#define LOAD_HALF(p, i) vload_half((size_t)(i), (GLOBAL const half *)(p))
#define STORE_HALF(p, i, v) vstore_half_rte((v), (size_t)(i), (GLOBAL half *)(p))

// Of four signed bytes each; cl_khr_integer_dot_product where the device has it. The extension's name
// alone is not enough: OpenCL C before 3.0 lacks the functions on Intel's runtime.
#ifdef __opencl_c_integer_dot_product_input_4x8bit_packed
#define DOT4(a, b, sum) ((sum) + dot_4x8packed_ss_int((uint)(a), (uint)(b)))
#else
FUNCTION int dot4(char4 a, char4 b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }
#define DOT4(a, b, sum) ((sum) + dot4(as_char4((uint)(a)), as_char4((uint)(b))))
#endif

#define AS_FLOAT(bits) as_float((uint)(bits))
#define AS_UINT(x) as_uint((float)(x))
#define NOT_A_NUMBER NAN

// A product that is rounded before it is added to something.
FUNCTION float rounded_product(float a, float b)
{
    _Pragma("OPENCL FP_CONTRACT OFF")
    return a * b;
}
#define PRODUCT(a, b) rounded_product(a, b)
