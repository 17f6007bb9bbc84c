// Transforms of lines by the threads of a block: a thread has eight points of a line, N/8 threads one line, a block as many lines
// as it has threads for. Lines of 32 to 512 points, powers of two; (9 N/8 + 4) numbers of shared memory each.
#ifndef PTYCHON_FFT
#define PTYCHON_FFT
#include "common.cuh"

#define E 8

__device__ inline float2 times_i(float2 z, float sign) { return complex(-sign * z.y, sign * z.x); }

// exp(2 pi i turns)
__device__ inline float2 cis(float turns)
{
    float2 z;
    sincospif(2.0f * turns, &z.y, &z.x);
    return z;
}

// X_r = sum_q x_q exp(sign 2 pi i q r/4), in place and in order.
__device__ inline void radix4(float2& a, float2& b, float2& c, float2& d, float sign)
{
    const float2 s = add(a, c), t = sub(a, c), u = add(b, d), v = times_i(sub(b, d), sign);
    a = add(s, u);
    b = add(t, v);
    c = sub(s, u);
    d = sub(t, v);
}

__device__ inline void radix8(float2* v, float sign)
{
    const float h = 0.70710678f;
    radix4(v[0], v[2], v[4], v[6], sign);
    radix4(v[1], v[3], v[5], v[7], sign);
    const float2 o[4] = {
        v[1], mul(complex(h, sign * h), v[3]), times_i(v[5], sign), mul(complex(-h, sign * h), v[7])};
    const float2 e[4] = {v[0], v[2], v[4], v[6]};
    UNROLL
    for (int r = 0; r < 4; r++) {
        v[r] = add(e[r], o[r]);
        v[r + 4] = sub(e[r], o[r]);
    }
}

// v[r] *= w^r
__device__ inline void twist(float2* v, float2 w)
{
    const float2 w2 = mul(w, w), w3 = mul(w2, w), w4 = mul(w2, w2);
    v[1] = mul(v[1], w);
    v[2] = mul(v[2], w2);
    v[3] = mul(v[3], w3);
    v[4] = mul(v[4], w4);
    v[5] = mul(v[5], mul(w4, w));
    v[6] = mul(v[6], mul(w3, w3));
    v[7] = mul(v[7], mul(w4, w3));
}

// The transform of one line of N points, without a factor: point t + m N/8 is v[m] of thread t, before and after (Stockham's order
// of passes with radix 8; the last has what is left of N). sign -1 is forward. All threads of the block come here together.
__device__ inline void transform(float2* v, float2* cells, int t, int N, float sign)
{
    const int T = N / E;
    int done = 1;
    for (; done * E <= N; done *= E) {
        const int j = t & (done - 1);
        if (done > 1) twist(v, cis(sign * (float)j / (float)(done * E)));
        radix8(v, sign);
        if (done * E == N) return;  // they are where they belong
        const int to = (t - j) * E + j;
        __syncthreads();
        UNROLL
        for (int r = 0; r < E; r++) {
            const int i = to + r * done;
            cells[i + i / E] = v[r];
        }
        __syncthreads();
        UNROLL
        for (int m = 0; m < E; m++) {
            const int i = t + m * T;
            v[m] = cells[i + i / E];
        }
    }
    // what is left has radix 2 or 4; neighbours in a thread are an eighth of a turn apart
    float2 turn = cis(sign * (float)t / (float)N);
    const float2 eighth = complex(0.70710678f, sign * 0.70710678f);
    if (done * 2 == N) {
        UNROLL
        for (int q = 0; q < 4; q++) {
            const float2 a = v[q], b = mul(turn, v[q + 4]);
            v[q] = add(a, b);
            v[q + 4] = sub(a, b);
            turn = mul(turn, eighth);
        }
    } else {
        UNROLL
        for (int q = 0; q < 2; q++) {
            const float2 turn2 = mul(turn, turn);
            v[q + 2] = mul(turn, v[q + 2]);
            v[q + 4] = mul(turn2, v[q + 4]);
            v[q + 6] = mul(mul(turn2, turn), v[q + 6]);
            radix4(v[q], v[q + 2], v[q + 4], v[q + 6], sign);
            turn = mul(turn, eighth);
        }
    }
}

// Which line and which of its points a thread has. Threads of a row are neighbours along it, threads of a column across columns:
// both ask for memory that lies together.
struct Place8 {
    int T, lines, line, t;
};

__device__ inline Place8 in_rows(int Q)
{
    Place8 at;
    at.T = Q / E;
    at.lines = blockDim.x / at.T;
    at.line = threadIdx.x / at.T;
    at.t = threadIdx.x % at.T;
    return at;
}

__device__ inline Place8 in_columns(int P)
{
    Place8 at;
    at.T = P / E;
    at.lines = blockDim.x / at.T;
    at.line = threadIdx.x % at.lines;
    at.t = threadIdx.x / at.lines;
    return at;
}

#define LINE_CELLS(N) ((N) + (N) / E + 4)
// for (blocks of lines): `line` is this thread's, `real` whether it exists.
#define LINES(at, first, count) \
    (int first = blockIdx.x * at.lines; first < (count); first += gridDim.x * at.lines)
#define POINTS(m) (int m = 0; m < E; m++)

__device__ inline void load8(float2* v, const float2* from, int step, bool real)
{
    UNROLL
    for POINTS(m) v[m] = real ? from[m * step] : complex(0.0f, 0.0f);
}

__device__ inline void store8(const float2* v, float2* to, int step, bool real)
{
    if (!real) return;
    UNROLL
    for POINTS(m) to[m * step] = v[m];
}

#endif
