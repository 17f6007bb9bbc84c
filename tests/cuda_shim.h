// The words of CUDA that the kernels use, for a host compiler: one block after another, its threads as coroutines that
// change places at barriers. Slow and exact: what a formula computes here it computes on a device, up to rounding.
#pragma once
#include <csetjmp>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <ucontext.h>

#define __global__
#define __device__
#define __shared__ static
// numbers of shared memory whose size is said at the launch: 48 KB
#define MOST_CELLS 6144

struct float2 {
    float x, y;
};
struct float4 {
    float x, y, z, w;
};
struct Place {
    unsigned x, y, z;
};
static Place blockIdx, threadIdx, blockDim, gridDim;

namespace shim {

enum { STACK = 64 * 1024, MOST = 1024 };

static std::function<void()> body;
// coroutines live as long as the process and run one body after another: making one costs two calls of the kernel
static char* stacks = nullptr;
static jmp_buf scheduler, threads[MOST];
static bool started[MOST], done[MOST];
static bool reversed_order = false, divergent = false;

static void entry()
{
    for (;;) {
        body();
        done[threadIdx.x] = true;
        if (!_setjmp(threads[threadIdx.x])) _longjmp(scheduler, 1);
    }
}

__attribute__((noinline)) static void resume(unsigned t)
{
    threadIdx.x = t;
    if (_setjmp(scheduler)) return;
    if (started[t]) _longjmp(threads[t], 1);
    started[t] = true;
    static ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = stacks + (size_t)t * STACK;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
    setcontext(&context);
}

__attribute__((noinline)) static void barrier()
{
    if (!_setjmp(threads[threadIdx.x])) _longjmp(scheduler, 1);
}

static void run_block()
{
    const unsigned n = blockDim.x;
    for (unsigned t = 0; t < n; t++) done[t] = false;
    for (unsigned left = n; left > 0;) {
        for (unsigned i = 0; i < n; i++) {
            const unsigned t = reversed_order ? n - 1 - i : i;
            if (!done[t]) resume(t);
        }
        const unsigned before = left;
        left = 0;
        for (unsigned t = 0; t < n; t++) left += !done[t];
        // some threads at a barrier that others never reach: undefined on a device
        if (left != 0 && left != before) divergent = true;
    }
}

// Returns whether a barrier was not reached by all threads of a block.
static int launch(unsigned gx, unsigned gy, unsigned bx, std::function<void()> kernel)
{
    body = kernel;
    divergent = false;
    if (bx > MOST) return true;
    if (!stacks) stacks = (char*)std::malloc((size_t)MOST * STACK);
    gridDim = {gx, gy, 1};
    blockDim = {bx, 1, 1};
    for (unsigned i = 0; i < gx * gy; i++) {
        const unsigned b = reversed_order ? gx * gy - 1 - i : i;
        blockIdx = {b % gx, b / gx, 0};
        run_block();
    }
    return divergent;
}

}  // namespace shim

static inline void sincospif(float x, float* sine, float* cosine)
{
    *sine = (float)std::sin(M_PI * (double)x);
    *cosine = (float)std::cos(M_PI * (double)x);
}

static inline void __syncthreads() { shim::barrier(); }

template <class T> static T __shfl_xor_sync(unsigned, T value, int lane)
{
    static T slots[shim::MOST];
    slots[threadIdx.x] = value;
    shim::barrier();
    const T other = slots[threadIdx.x ^ lane];
    shim::barrier();
    return other;
}

extern "C" void shim_order(int reversed) { shim::reversed_order = reversed; }
