// Exit waves, shifts, the modulus constraint, and sums: what all engines share. See engines/pie.py for the formulas.
#include "pixels.cuh"

// x[i] = value.
KERNEL fill(float* x, long long count, float value)
{
    for ELEMENTS(i, count) x[i] = value;
}

// out[i] += factor x[i].
KERNEL add_scaled(const float* x, long long count, float factor, float* out)
{
    for ELEMENTS(i, count) out[i] += factor * x[i];
}

// One number a block: the sum of its share of x. Two launches, the second of one block, give the sum of any array.
KERNEL sum_parts(const double* x, long long count, double* parts)
{
    double total = 0.0;
    for ELEMENTS(i, count) total += x[i];
    total = block_sum(total);
    if (threadIdx.x == 0) parts[blockIdx.x] = total;
}

// One number a block: the largest of its share of x >= 0.
KERNEL max_parts(const float* x, long long count, float* parts)
{
    float top = 0.0f;
    for ELEMENTS(i, count) top = fmaxf(top, x[i]);
    top = block_max(top);
    if (threadIdx.x == 0) parts[blockIdx.x] = top;
}

// out[i] = sum_s x[s, i], added to what is there if `more`.
KERNEL segment_sum(const float* x, int segments, long long count, int more, float* out)
{
    for ELEMENTS(i, count) {
        float total = more ? out[i] : 0.0f;
        for (int s = 0; s < segments; s++) total += x[s * count + i];
        out[i] = total;
    }
}

// peaks[u] = max over pixels of sum_k |P_k|^2; one block a probe.
KERNEL probe_peaks(const float2* probes, int K, int n, float* peaks)
{
    const float2* P = probes + (size_t)blockIdx.y * K * n;
    float top = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float power = 0.0f;
        for (int k = 0; k < K; k++) power += abs2(P[(size_t)k * n + i]);
        top = fmaxf(top, power);
    }
    top = block_max(top);
    if (threadIdx.x == 0) peaks[blockIdx.y] = top;
}

// out (B, K, n) = factor spectrum (K, n) times the ramp of the shift of each frame.
KERNEL ramp(
    const float2* spectrum, const float2* ramps_y, const float2* ramps_x, const int* order, int first, const int* index, int K,
    int P, int Q, float factor, float2* out)
{
    const int n = P * Q, u = index[order[first + blockIdx.y]];
    float2* o = out + (size_t)blockIdx.y * K * n;
    for PIXELS(i, n) {
        const float2 r = scale(factor, mul(ramps_y[(size_t)u * P + i / Q], ramps_x[(size_t)u * Q + i % Q]));
        for (int k = 0; k < K; k++) o[(size_t)k * n + i] = mul(r, spectrum[(size_t)k * n + i]);
    }
}

// spectrum (K, n) += factor sum_s waves (count, K, n) times the conjugate ramp of wave s.
KERNEL unramp_add(
    const float2* waves, int count, const float2* ramps_y, const float2* ramps_x, const int* order, int first, const int* index,
    int K, int P, int Q, float factor, float2* spectrum)
{
    const int n = P * Q;
    for PIXELS(i, n) {
        for (int k = 0; k < K; k++) {
            float2 total = complex(0.0f, 0.0f);
            for (int s = 0; s < count; s++) {
                const int u = index[order[first + s]];
                const float2 r = mul(ramps_y[(size_t)u * P + i / Q], ramps_x[(size_t)u * Q + i % Q]);
                total = add(total, conj_mul(r, waves[((size_t)s * K + k) * n + i]));
            }
            spectrum[(size_t)k * n + i] = add(spectrum[(size_t)k * n + i], scale(factor, total));
        }
    }
}

// wave (B K, n) *= transfer (U, n) at the shift of each frame, or its conjugate: the middle of near-field propagation.
// blockIdx.y: wave.
KERNEL multiply(
    float2* wave, const float2* transfer, const int* order, int first, const int* index, int K, int n, int conjugate)
{
    float2* w = wave + (size_t)blockIdx.y * n;
    const float2* h = transfer + (size_t)index[order[first + blockIdx.y / K]] * n;
    for PIXELS(i, n) w[i] = conjugate ? conj_mul(h[i], w[i]) : mul(h[i], w[i]);
}

// psi = P O; parts of max |O|^2 and of max sum_k |P_k|^2 over each window, where arrays for them are given.
KERNEL exit_wave(
    const float2* O, int W, const float2* probes, int select, const int* order, int first, const int* corners, const int* index,
    int K, int P, int Q, float2* psi, float* o_peaks, float* p_peaks)
{
    const int n = P * Q, b = blockIdx.y;
    const Frame f = frame_at(order, first + b, corners, index);
    const float2* p = probes + pick(select, f.u, b) * K * n;
    float2* out = psi + (size_t)b * K * n;
    float o_top = 0.0f, p_top = 0.0f;
    for PIXELS(i, n) {
        const float2 o = O[on_object(f, i, Q, W)];
        float power = 0.0f;
        for (int k = 0; k < K; k++) {
            const float2 z = p[(size_t)k * n + i];
            out[(size_t)k * n + i] = mul(z, o);
            power += abs2(z);
        }
        o_top = fmaxf(o_top, abs2(o));
        p_top = fmaxf(p_top, power);
    }
    if (o_peaks) {
        o_top = block_max(o_top);
        p_top = block_max(p_top);
        if (threadIdx.x == 0) {
            o_peaks[b * gridDim.x + blockIdx.x] = o_top;
            p_peaks[b * gridDim.x + blockIdx.x] = p_top;
        }
    }
}

// wave (B, K, n) <- out_scale (Pi_F z - z), z = in_scale wave: the scales are those of the FFTs before and after.
// Amplitudes by position j, or by slot where only some frames are on the device. Parts of the sum over valid pixels of (|z| - y)^2 go to misfit[first + b, block].
KERNEL modulus_change(
    float2* wave, const float* amplitude, int by_slot, const unsigned char* mask, int masks, const int* order, int first, int K,
    int n, float in_scale, float out_scale, double* misfit)
{
    const int b = blockIdx.y, j = order[first + b];
    float2* w = wave + (size_t)b * K * n;
    const float* y = amplitude + (size_t)(by_slot ? b : j) * n;
    const unsigned char* valid = mask + (masks == 1 ? 0 : (size_t)j * n);
    double total = 0.0;
    for PIXELS(i, n) {
        float power = 0.0f;
        for (int k = 0; k < K; k++) power += abs2(w[(size_t)k * n + i]);
        const float factor = out_scale * modulus_factor(power, y[i], valid[i], in_scale, &total);
        for (int k = 0; k < K; k++) w[(size_t)k * n + i] = scale(factor, w[(size_t)k * n + i]);
    }
    total = block_sum(total);
    if (threadIdx.x == 0) misfit[(size_t)(first + b) * gridDim.x + blockIdx.x] = total;
}

// Parts of the sums over valid pixels of (|z| - a)^2 and of (|z| - sqrt(a^2 + offset))^2, z = in_scale wave.
KERNEL misfits(
    const float2* wave, const float* amplitude, float offset, const unsigned char* mask, int masks, const int* order, int first,
    int K, int n, float in_scale, double* plain, double* stabilised)
{
    const int b = blockIdx.y, j = order[first + b];
    const float2* w = wave + (size_t)b * K * n;
    const float* y = amplitude + (size_t)j * n;
    const unsigned char* valid = mask + (masks == 1 ? 0 : (size_t)j * n);
    double total = 0.0, other = 0.0;
    for PIXELS(i, n) {
        if (!valid[i]) continue;
        float power = 0.0f;
        for (int k = 0; k < K; k++) power += abs2(w[(size_t)k * n + i]);
        const float m = in_scale * sqrtf(power), d = m - y[i], e = m - sqrtf(y[i] * y[i] + offset);
        total += d * d;
        other += e * e;
    }
    total = block_sum(total);
    other = block_sum(other);
    if (threadIdx.x == 0) {
        plain[(size_t)(first + b) * gridDim.x + blockIdx.x] = total;
        stabilised[(size_t)(first + b) * gridDim.x + blockIdx.x] = other;
    }
}
