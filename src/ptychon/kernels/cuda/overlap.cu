// Sums over overlapping frames, on the object and on the probe, and the difference map (engines/difference_map.py).
#include "pixels.cuh"

// num += sum_b P_b* waves_b and den += sum_b |P_b|^2 on the object (sums over modes within); without `num` only the latter.
// Waves by position j, or by slot. One block a tile.
KERNEL object_sums(
    const float2* waves, int by_slot, const float2* probes, const int* starts, const int* members,
    const int* order, int first, const int* corners, const int* index, int K, int P, int Q, int H, int W, float2* num, float* den)
{
    const int n = P * Q, across = (W + TILE_X - 1) / TILE_X;
    const int y0 = blockIdx.x / across * TILE_Y, x0 = blockIdx.x % across * TILE_X;
    const int begin = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    if (begin == end) return;
    for (int base = 0; base < TILE_Y * TILE_X; base += blockDim.x) {
        const int t = base + threadIdx.x, y = y0 + t / TILE_X, x = x0 + t % TILE_X;
        const bool real = t < TILE_Y * TILE_X && y < H && x < W;
        const size_t at = real ? (size_t)y * W + x : 0;
        float2 total = num ? num[at] : complex(0.0f, 0.0f);
        float light = den[at];
        const auto one = [&](Frame f, int b, int pixel, bool inside, int modes) {
            const float2* p = probes + (size_t)f.u * K * n + pixel;
            const float2* w = waves + (size_t)(by_slot ? b : f.j) * K * n + pixel;
            float power = 0.0f;
            float2 pull = complex(0.0f, 0.0f);
            for (int k = 0; k < modes; k++) {
                const float2 z = only(inside, p[(size_t)k * n]);
                power += abs2(z);
                if (num) pull = add(pull, conj_mul(z, only(inside, w[(size_t)k * n])));
            }
            total = add(total, pull);
            light += power;
        };
        over_members(K, members, begin, end, order, first, corners, index, y, x, P, Q, one);
        if (!real) continue;
        if (num) num[at] = total;
        den[at] = light;
    }
}

// For each segment s of frames: force[s] += sum_b O_b* (waves_b - P_b O_b if `subtract`), weight[s] += sum_b |O_b|^2.
// blockIdx.y: segment, its frames members[starts[s] .. starts[s + 1]) as slots. All frames of a segment have one shift.
KERNEL probe_sums(
    const float2* waves, int by_slot, const float2* O, int W, const float2* probes, int subtract, const int* starts,
    const int* members, const int* order, int first, const int* corners, const int* index, int K, int P, int Q, float2* force,
    float* weight)
{
    const int n = P * Q, s = blockIdx.y, begin = starts[s], end = starts[s + 1];
    if (begin == end) return;
    for PIXELS(i, n) {
        float light = weight[(size_t)s * n + i];
        for (int k = 0; k < K; k++) {
            const size_t e = ((size_t)s * K + k) * n + i;
            float2 total = force[e];
            for (int m = begin; m < end; m++) {
                const int b = members[m];
                const Frame f = frame_at(order, first + b, corners, index);
                const float2 o = O[on_object(f, i, Q, W)];
                float2 w = waves[((size_t)(by_slot ? b : f.j) * K + k) * n + i];
                if (subtract) w = sub(w, mul(probes[((size_t)f.u * K + k) * n + i], o));
                total = add(total, conj_mul(o, w));
                if (k == 0) light += abs2(o);
            }
            force[e] = total;
        }
        weight[(size_t)s * n + i] = light;
    }
}

// ---------------------------------------------------------------- difference map; settings = (object inertia, probe inertia, bound,
// beta), share = max(0, 1 - sqrt(B/misfit)), B = bound times the valid pixels of the frame

// O = (num + e O)/(den + e), e = inertia max(den); O stays where den is nothing.
KERNEL settle(
    const float2* num, const float* den, const float* peaks, int parts, const float* settings, long long count, float2* O)
{
    const float peak = parts_max(peaks, parts), extra = settings[0] * peak, floor = peak * 1e-10f;
    for ELEMENTS(i, count) {
        if (den[i] > floor) O[i] = scale(1.0f / fmaxf(den[i] + extra, floor), add(num[i], scale(extra, O[i])));
    }
}

// P (K, n) += force/((1 - inertia) weight + inertia max(weight)), or += force where there is no weight.
KERNEL probe_settle(
    float2* probe, const float2* force, const float* weight, const float* peaks, int parts, const float* settings, int K, int n)
{
    const float peak = weight ? parts_max(peaks, parts) : 0.0f, share = weight ? settings[1] : 0.0f;
    for PIXELS(i, n) {
        const float w = weight ? 1.0f / ((1.0f - share) * weight[i] + share * peak) : 1.0f;
        for (int k = 0; k < K; k++) {
            const size_t e = (size_t)k * n + i;
            probe[e] = add(probe[e], scale(w, force[e]));
        }
    }
}

// out_j = (1 - 1/beta) Pi_F psi_j + psi_j/beta = psi_j + (1 - 1/beta) share change_b.
KERNEL reflect_modulus(
    const float2* waves, const float2* change, const double* misfit, const float* valid_pixels, int masks, const int* order,
    int first, int K, int n, const float* settings, float2* out)
{
    const int b = blockIdx.y, j = order[first + b];
    const float share = share_of(misfit, first + b, valid_pixels, masks == 1 ? 0 : j, settings);
    const float weight = (1.0f - 1.0f / settings[3]) * share;
    for PIXELS(i, n) {
        for (int k = 0; k < K; k++) {
            const size_t e = ((size_t)j * K + k) * n + i;
            out[e] = add(waves[e], scale(weight, change[((size_t)b * K + k) * n + i]));
        }
    }
}

// out_b = (1 + 1/beta) P O_j - psi_j/beta.
KERNEL reflect_open(
    const float2* waves, const float2* O, int W, const float2* probes, const int* order, int first, const int* corners,
    const int* index, int K, int P, int Q, const float* settings, float2* out)
{
    const int n = P * Q, b = blockIdx.y;
    const float turn = 1.0f / settings[3];
    const Frame f = frame_at(order, first + b, corners, index);
    for PIXELS(i, n) {
        const float2 o = O[on_object(f, i, Q, W)];
        for (int k = 0; k < K; k++) {
            const float2 e = mul(probes[((size_t)f.u * K + k) * n + i], o);
            out[((size_t)b * K + k) * n + i] = sub(scale(1.0f + turn, e), scale(turn, waves[((size_t)f.j * K + k) * n + i]));
        }
    }
}

// psi_j = (1 + beta) P O_j + beta (share change_b - back_j); without a back object back_j = P O_j, and beta is 1.
KERNEL reflect_close(
    float2* waves, const float2* O, int W, const float2* probes, const float2* back_O, const float2* back_probes,
    const float2* change, const double* misfit, const float* valid_pixels, int masks, const int* order, int first, const int* corners, const int* index, int K, int P, int Q,
    const float* settings)
{
    const int n = P * Q, b = blockIdx.y;
    const Frame f = frame_at(order, first + b, corners, index);
    const float share = share_of(misfit, first + b, valid_pixels, masks == 1 ? 0 : f.j, settings), beta = settings[3];
    for PIXELS(i, n) {
        const size_t at = on_object(f, i, Q, W);
        for (int k = 0; k < K; k++) {
            const size_t p = ((size_t)f.u * K + k) * n + i;
            const float2 c = scale(share, change[((size_t)b * K + k) * n + i]), e = mul(probes[p], O[at]);
            const float2 back = back_O ? mul(back_probes[p], back_O[at]) : e;
            waves[((size_t)f.j * K + k) * n + i] = reflected(e, back, back_O != nullptr, c, beta);
        }
    }
}
