// Updates of PIE, ePIE and rPIE for frames whose windows do not overlap. With the weights of engines/pie.py,
//   O += step (|P|/max|P| if root) P* change/(a |P|^2 + reg max|P|^2),  P += p_step O* change/(p_a |O|^2 + p_reg max|O|^2).
// steps = (step, a, reg, p_step, p_a, p_reg), in device memory so that a captured graph outlives a change of them.
#include "pixels.cuh"

// Fixed probe: peaks (U,) from probe_peaks.
KERNEL object_step(
    float2* O, int W, const float2* probes, const float* peaks, const float2* change, const int* order, int first,
    const int* corners, const int* index, int K, int P, int Q, int root, const float* steps)
{
    const int n = P * Q, b = blockIdx.y;
    const Frame f = frame_at(order, first + b, corners, index);
    const float2* p = probes + (size_t)f.u * K * n;
    const float2* d = change + (size_t)b * K * n;
    const float peak = peaks[f.u], step = root ? steps[0] / sqrtf(peak) : steps[0], a = steps[1], floor = steps[2] * peak;
    for PIXELS(i, n) {
        float power = 0.0f;
        float2 total = complex(0.0f, 0.0f);
        for (int k = 0; k < K; k++) {
            const float2 z = p[(size_t)k * n + i];
            power += abs2(z);
            total = add(total, conj_mul(z, d[(size_t)k * n + i]));
        }
        float2* o = O + on_object(f, i, Q, W);
        *o = add(*o, scale(object_weight(power, step, a, floor, root), total));
    }
}

// One frame moves object and probe (K, n), both from their old values. The probe's update is added to it, or, where that
// must first be shifted back, left in `change`. Peaks: the parts that exit_wave left, from the same grid.
KERNEL both_step(
    float2* O, int W, float2* probe, float2* change, const int* order, int first, const int* corners, const int* index, int K,
    int P, int Q, const float* o_peaks, const float* p_peaks, const float* steps, int keep)
{
    const int n = P * Q;
    const Frame f = frame_at(order, first, corners, index);
    const float o_floor = steps[5] * parts_max(o_peaks, gridDim.x), p_floor = steps[2] * parts_max(p_peaks, gridDim.x);
    const float step = steps[0], a = steps[1], p_step = steps[3], p_a = steps[4];
    for PIXELS(i, n) {
        float2* at = O + on_object(f, i, Q, W);
        const float2 o = *at;
        const float v = p_step / (p_a * abs2(o) + o_floor);
        float power = 0.0f;
        float2 total = complex(0.0f, 0.0f);
        for (int k = 0; k < K; k++) {
            const size_t e = (size_t)k * n + i;
            const float2 z = probe[e], d = change[e], update = scale(v, conj_mul(o, d));
            power += abs2(z);
            total = add(total, conj_mul(z, d));
            if (keep) change[e] = update;
            else probe[e] = add(z, update);
        }
        *at = add(o, scale(object_weight(power, step, a, p_floor, 0), total));
    }
}

// ---------------------------------------------------------------- batches of overlapping frames

// peaks[first + b] = the largest value of `light` (H, W) in window b: one block a frame.
KERNEL window_peaks(
    const float* light, int W, const int* order, int first, const int* corners, const int* index, int P, int Q, float* peaks)
{
    const Frame f = frame_at(order, first + blockIdx.y, corners, index);
    float top = 0.0f;
    for (int i = threadIdx.x; i < P * Q; i += blockDim.x) top = fmaxf(top, light[on_object(f, i, Q, W)]);
    top = block_max(top);
    if (threadIdx.x == 0) peaks[first + blockIdx.y] = top;
}

// update (H, W) += sum_b step (|P_b|/max|P_b| if root) P_b* change_b/(a light + reg max light in window b), with light =
// sum_b |P_b|^2 on the object. One block a tile.
KERNEL object_pull(
    const float2* change, const float2* probes, const float* peaks, const float* light, const float* window_peaks, int root,
    const int* starts, const int* members, const int* order, int first, const int* corners, const int* index, int K, int P, int Q,
    int H, int W, const float* steps, float2* update)
{
    const int n = P * Q, across = (W + TILE_X - 1) / TILE_X;
    const int y0 = blockIdx.x / across * TILE_Y, x0 = blockIdx.x % across * TILE_X;
    const int begin = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    const float step = steps[0], a = steps[1], reg = steps[2];
    if (begin == end) return;
    for (int base = 0; base < TILE_Y * TILE_X; base += blockDim.x) {
        const int t = base + threadIdx.x, y = y0 + t / TILE_X, x = x0 + t % TILE_X;
        const bool real = t < TILE_Y * TILE_X && y < H && x < W;
        const size_t at = real ? (size_t)y * W + x : 0;
        const float here = a * light[at];
        float2 total = update[at];
        const auto one = [&](Frame f, int b, int pixel, bool inside, int modes) {
            const float2* p = probes + (size_t)f.u * K * n + pixel;
            const float2* d = change + (size_t)b * K * n + pixel;
            float power = 0.0f;
            float2 pull = complex(0.0f, 0.0f);
            for (int k = 0; k < modes; k++) {
                const float2 z = only(inside, p[(size_t)k * n]);
                power += abs2(z);
                pull = add(pull, conj_mul(z, only(inside, d[(size_t)k * n])));
            }
            float w = inside ? step / (here + reg * window_peaks[first + b]) : 0.0f;
            if (root) w *= sqrtf(power / peaks[f.u]);
            total = add(total, scale(w, pull));
        };
        over_members(K, members, begin, end, order, first, corners, index, y, x, P, Q, one);
        if (real) update[at] = total;
    }
}

// force (S, K, n) *= p_step/(p_a weight + p_reg max weight), weight (n): blockIdx.y is one of the S K images.
KERNEL force_weight(float2* force, const float* weight, const float* peaks, int parts, int n, const float* steps)
{
    const float p_step = steps[3], p_a = steps[4], floor = steps[5] * parts_max(peaks, parts);
    float2* f = force + (size_t)blockIdx.y * n;
    for PIXELS(i, n) f[i] = scale(p_step / (p_a * weight[i] + floor), f[i]);
}
