// The kernels of the table that are not part of a sweep: windows cut and added, the modulus projection.
#include "common.cuh"

// out (B, P, Q) = windows of field (., W); numbers of `words` floats each. blockIdx.y: window.
KERNEL gather(const float* field, int W, int words, const int* corners, int P, int Q, float* out)
{
    const int y0 = corners[2 * blockIdx.y], x0 = corners[2 * blockIdx.y + 1], row = Q * words;
    float* o = out + (size_t)blockIdx.y * P * row;
    for PIXELS(i, P * row) o[i] = field[((size_t)(y0 + i / row) * W + x0) * words + i % row];
}

// field[window b] += patches[b], for all b in their order at every pixel. One block a tile.
KERNEL scatter_add(
    float* field, int H, int W, int words, const int* starts, const int* members, const int* corners, int P, int Q,
    const float* patches)
{
    const int across = (W + TILE_X - 1) / TILE_X;
    const int y0 = blockIdx.x / across * TILE_Y, x0 = blockIdx.x % across * TILE_X;
    const int begin = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    if (begin == end) return;
    for (int t = threadIdx.x; t < TILE_Y * TILE_X; t += blockDim.x) {
        const int y = y0 + t / TILE_X, x = x0 + t % TILE_X;
        if (y >= H || x >= W) continue;
        for (int word = 0; word < words; word++) {
            float* at = field + ((size_t)y * W + x) * words + word;
            float total = *at;
            for (int m = begin; m < end; m++) {
                const int b = members[m], r = y - corners[2 * b], c = x - corners[2 * b + 1];
                if (r < 0 || r >= P || c < 0 || c >= Q) continue;
                total += patches[(((size_t)b * P + r) * Q + c) * words + word];
            }
            *at = total;
        }
    }
}

// reference.modulus_projection: out = z y/|z|, zero and masked pixels as they are; parts of the misfit a frame.
KERNEL project(
    const float2* wave, const float* amplitude, const unsigned char* mask, int masks, int K, int n, float2* out, double* misfit)
{
    const int b = blockIdx.y;
    const float2* w = wave + (size_t)b * K * n;
    float2* o = out + (size_t)b * K * n;
    const float* y = amplitude + (size_t)b * n;
    const unsigned char* valid = mask + (masks == 1 ? 0 : (size_t)b * n);
    double total = 0.0;
    for PIXELS(i, n) {
        float power = 0.0f;
        for (int k = 0; k < K; k++) power += abs2(w[(size_t)k * n + i]);
        const float m = sqrtf(power), d = valid[i] ? m - y[i] : 0.0f;
        const float factor = valid[i] && m > TINY ? y[i] / m : 1.0f;
        for (int k = 0; k < K; k++) o[(size_t)k * n + i] = scale(factor, w[(size_t)k * n + i]);
        total += d * d;
    }
    total = block_sum(total);
    if (threadIdx.x == 0) misfit[b * gridDim.x + blockIdx.x] = total;
}
