// What all kernels share. Conventions:
//   complex numbers are float2; a frame has n = P Q pixels; probes (U, K, n), waves (B, K, n), object (H, W), all C-ordered;
//   blockIdx.y is the slot b of a frame in its batch, its position in the scan is j = order[first + b]; corners (N, 2) = (y, x);
//   index (N,) says which of the U shifted probes a frame has; masks (1 or N, n) are bytes, not 0 where a pixel is valid;
//   blockIdx.x and threads run over pixels in strides, so any grid and any block of a multiple of 32 threads will do.
// Sums are deterministic: each block leaves its part in an array, whoever needs the total adds the parts in one fixed order.
#ifndef PTYCHON_COMMON
#define PTYCHON_COMMON

#define KERNEL extern "C" __global__ void
#define PIXELS(i, n) (int i = blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += gridDim.x * blockDim.x)
#define ELEMENTS(i, n) \
    (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (long long)gridDim.x * blockDim.x)

// Memory that the threads of a block share, of the size that the launch asks for; and loops to be unrolled.
#ifdef __CUDACC__
#define SHARED_CELLS(name) extern __shared__ float2 name[]
#define UNROLL_8 _Pragma("unroll 8")
#define UNROLL _Pragma("unroll")
#else
#define SHARED_CELLS(name) static float2 name[MOST_CELLS]
#define UNROLL_8
#define UNROLL
#endif

// Same meaning and value as in kernels/reference.py.
#define TINY 1e-18f
#define CAVITY_FLOOR 1e-3f
#define EXTRINSIC_GAIN 1e-4f
#define VARIANCE_FLOOR 1e-6f
#define KAPPA_MAX 1e7f

__device__ inline float2 complex(float re, float im)
{
    float2 z;
    z.x = re;
    z.y = im;
    return z;
}
__device__ inline float abs2(float2 z) { return z.x * z.x + z.y * z.y; }
__device__ inline float2 add(float2 a, float2 b) { return complex(a.x + b.x, a.y + b.y); }
__device__ inline float2 sub(float2 a, float2 b) { return complex(a.x - b.x, a.y - b.y); }
__device__ inline float2 scale(float s, float2 a) { return complex(s * a.x, s * a.y); }
__device__ inline float2 mul(float2 a, float2 b) { return complex(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x); }
// a* b
__device__ inline float2 conj_mul(float2 a, float2 b) { return complex(a.x * b.x + a.y * b.y, a.x * b.y - a.y * b.x); }

// ---------------------------------------------------------------- reductions: every thread gets the result

__device__ inline double warp_sum(double v)
{
    // a butterfly: all lanes add the same numbers in the same order, up to a + b = b + a
    for (int lane = 16; lane > 0; lane >>= 1) v += __shfl_xor_sync(0xffffffffu, v, lane);
    return v;
}

__device__ inline float warp_max(float v)
{
    for (int lane = 16; lane > 0; lane >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, lane));
    return v;
}

__device__ inline double block_sum(double v)
{
    __shared__ double cells[32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    v = warp_sum(v);
    __syncthreads();  // the cells may still be read from the call before
    if (lane == 0) cells[warp] = v;
    __syncthreads();
    return warp_sum(lane < warps ? cells[lane] : 0.0);
}

__device__ inline float block_max(float v)
{
    __shared__ float cells[32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    v = warp_max(v);
    __syncthreads();
    if (lane == 0) cells[warp] = v;
    __syncthreads();
    return warp_max(lane < warps ? cells[lane] : 0.0f);
}

// Totals of what blocks left behind. Each warp does this for itself: no barrier.
__device__ inline double parts_sum(const double* parts, int count)
{
    double v = 0.0;
    for (int i = threadIdx.x % 32; i < count; i += 32) v += parts[i];
    return warp_sum(v);
}

__device__ inline float parts_max(const float* parts, int count)
{
    float v = 0.0f;
    for (int i = threadIdx.x % 32; i < count; i += 32) v = fmaxf(v, parts[i]);
    return warp_max(v);
}

// ---------------------------------------------------------------- frames and tiles

struct Frame {
    int j, y, x, u;
};

__device__ inline Frame frame_at(const int* order, int i, const int* corners, const int* index)
{
    Frame f;
    f.j = order[i];
    f.y = corners[2 * f.j];
    f.x = corners[2 * f.j + 1];
    f.u = index[f.j];
    return f;
}

// Where pixel i of a frame lies on the object.
__device__ inline size_t on_object(Frame f, int i, int Q, int W) { return (size_t)(f.y + i / Q) * W + f.x + i % Q; }

// Which probe of an array a frame means: that of its shift, that in its slot, or the only one.
#define BY_SHIFT 0
#define BY_SLOT 1
#define ONLY_ONE 2
__device__ inline size_t pick(int select, int u, int b) { return select == BY_SHIFT ? u : select == BY_SLOT ? b : 0; }

// The object in tiles, so that each pixel is summed by one thread over the frames that reach its tile, in their order:
// block t has the frames members[starts[t] .. starts[t + 1]), given as slots of the batch.
#define TILE_Y 8
#define TILE_X 32

// one(frame, slot, pixel, inside, modes) for all members of a tile, in their order: `pixel` is where their windows hold the object
// pixel (y, x), and nothing may be taken from it where `inside` is false. The frames are looked up once for the block, and the
// pixels of several are asked for at a time. All threads of a block must come here, and equally often.
template <class One>
__device__ inline void over_members(
    int K, const int* members, int begin, int end, const int* order, int first, const int* corners, const int* index, int y, int x,
    int P, int Q, const One& one)
{
    __shared__ Frame frames[256];
    __shared__ int slots[256];
    for (int start = begin; start < end; start += 256) {
        const int count = end - start < 256 ? end - start : 256;
        __syncthreads();
        for (int m = threadIdx.x; m < count; m += blockDim.x) {
            slots[m] = members[start + m];
            frames[m] = frame_at(order, first + slots[m], corners, index);
        }
        __syncthreads();
        const auto visit = [&](int m, int modes) {
            const Frame f = frames[m];
            const int r = y - f.y, c = x - f.x;
            const bool inside = r >= 0 && r < P && c >= 0 && c < Q;
            one(f, slots[m], inside ? r * Q + c : 0, inside, modes);
        };
        if (K == 1) {
            // the loop over modes is gone, so that the loads of eight frames can be under way together
            UNROLL_8
            for (int m = 0; m < count; m++) visit(m, 1);
        } else {
            for (int m = 0; m < count; m++) visit(m, K);
        }
    }
}
__device__ inline float2 only(bool inside, float2 z) { return inside ? z : complex(0.0f, 0.0f); }

#endif
