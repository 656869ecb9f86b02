// The vocabulary of the kernels in CUDA C++. Line by line the same as opencl.h.
// A bare NVRTC has no cuda_fp16.h, so f16 is converted by PTX instructions.

#define KERNEL(items) extern "C" __global__ void __launch_bounds__(items)
// For kernels with much in registers: 128 of them for each of 512 threads. NVRTC would give them
// fewer, so that more threads fit, and spill the rest to memory.
#define BUSY_KERNEL(items) extern "C" __global__ void __launch_bounds__(items, 512 / (items))
#define FUNCTION static __device__ __forceinline__
#define GLOBAL
#define LOCAL __shared__
#define RESTRICT __restrict__
#define CONSTANT static __device__ const

#define GROUP_X ((int)blockIdx.x)
#define GROUP_Y ((int)blockIdx.y)
#define ITEM ((int)threadIdx.x)
#define BARRIER() __syncthreads()

#define UNROLLED _Pragma("unroll")
#define VECTORISED _Pragma("unroll")

#define LONG long long
#define ULONG unsigned long long
#define UINT unsigned int
#define UINT4 uint4 // 16 bytes at once, at a multiple of 16
#define USHORT unsigned short
#define UCHAR unsigned char
#define HALF unsigned short // storage only: it is loaded and stored by the macros below

FUNCTION float half_to_float(unsigned short bits)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
FUNCTION unsigned short half_bits(float value)
{
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
FUNCTION unsigned short half_bits(double value)
{
    unsigned short bits;
    asm("cvt.rn.f16.f64 %0, %1;" : "=h"(bits) : "d"(value));
    return bits;
}

// Of four signed bytes each, by dp4a, which compute capability 6.1 brought.
FUNCTION int dot4(unsigned int a, unsigned int b, int sum)
{
    int total;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(total) : "r"(a), "r"(b), "r"(sum));
    return total;
}
#define DOT4(a, b, sum) dot4((unsigned int)(a), (unsigned int)(b), sum)

#define LOAD_HALF(p, i) half_to_float(((const unsigned short *)(p))[i])
#define STORE_HALF(p, i, v) (((unsigned short *)(p))[i] = half_bits(v))
#define AS_FLOAT(bits) __uint_as_float((unsigned int)(bits))
#define AS_UINT(x) __float_as_uint((float)(x))
#define NOT_A_NUMBER __int_as_float(0x7fffffff)

// A product that is rounded before it is added to something.
#define PRODUCT(a, b) __fmul_rn(a, b)
