// Expectation propagation: one factor update without a look from the host. Formulas: engines/ptycho_ep.py and
// kernels/reference.py. Scalars of a visit live in cavities (B, 2) = (g_c, g_j before) and changes (B,) = change of g_j.
#include "pixels.cuh"

// Parts of sum_r |P|^2/Lambda over each window.
KERNEL belief_variance(
    const float* precision, int W, const float2* probes, const int* order, int first, const int* corners, const int* index, int P,
    int Q, double* parts)
{
    const int n = P * Q, b = blockIdx.y;
    const Frame f = frame_at(order, first + b, corners, index);
    const float2* p = probes + (size_t)f.u * n;
    double total = 0.0;
    for PIXELS(i, n) total += abs2(p[i]) / precision[on_object(f, i, Q, W)];
    total = block_sum(total);
    if (threadIdx.x == 0) parts[b * gridDim.x + blockIdx.x] = total;
}

// psi = P eta/Lambda.
KERNEL belief_wave(
    const float* precision, const float2* natural, int W, const float2* probes, const int* order, int first, const int* corners,
    const int* index, int P, int Q, float2* psi)
{
    const int n = P * Q, b = blockIdx.y;
    const Frame f = frame_at(order, first + b, corners, index);
    const float2* p = probes + (size_t)f.u * n;
    for PIXELS(i, n) {
        const size_t at = on_object(f, i, Q, W);
        psi[(size_t)b * n + i] = scale(1.0f / precision[at], mul(p[i], natural[at]));
    }
}

// psi_c, g_c = CN(psi, V)/CN(phi_j, 1/g_j), with V from the parts that belief_variance left (same grid).
KERNEL cavity_wave(
    const float* precision, const float2* natural, int W, const float2* probes, const float2* messages, const float* g,
    const int* order, int first, const int* corners, const int* index, int P, int Q, const double* parts, float* cavities,
    float2* psi_c)
{
    const int n = P * Q, b = blockIdx.y;
    const Frame f = frame_at(order, first + b, corners, index);
    const float2* p = probes + (size_t)f.u * n;
    const float2* phi = messages + (size_t)f.j * n;
    const Cavity c = cavity_of(parts, b, n, g[f.j], cavities);
    for PIXELS(i, n) {
        const size_t at = on_object(f, i, Q, W);
        const float2 psi = scale(1.0f / precision[at], mul(p[i], natural[at]));
        psi_c[(size_t)b * n + i] = sub(scale(c.keep, psi), scale(c.drop, phi[i]));
    }
}

// Posterior of the detector wave z = in_scale wave, z ~ CN(z_c, 1/g_c), y = sqrt(amplitude^2 + offset): its mean, times
// out_scale, in place; noise_variance by position; parts of the sum of its variance to variances[b, block], of the noise to
// noise[first + b, block].
KERNEL posterior(
    float2* wave, const float* amplitude, float offset, const unsigned char* mask, int masks, const int* order, int first, int n,
    const float* cavities, const float* noise_variance, int laplace, float in_scale, float out_scale, double* variances,
    double* noise)
{
    const int b = blockIdx.y, j = order[first + b];
    float2* w = wave + (size_t)b * n;
    const float* a = amplitude + (size_t)j * n;
    const unsigned char* valid = mask + (masks == 1 ? 0 : (size_t)j * n);
    const float v0 = 1.0f / cavities[2 * b], v = noise_variance[j], inverse = 1.0f / (v0 + 2.0f * v), both = in_scale * out_scale;
    double variance = 0.0, moment = 0.0;
    for PIXELS(i, n) {
        const float r0 = in_scale * sqrtf(abs2(w[i]));
        const float4 found = posterior_pixel(r0, a[i], offset, valid[i], laplace, v0, v, inverse);
        w[i] = scale(found.x * both, w[i]);
        variance += found.y;
        moment += found.z;
    }
    variance = block_sum(variance);
    moment = block_sum(moment);
    if (threadIdx.x == 0) {
        variances[b * gridDim.x + blockIdx.x] = variance;
        noise[(size_t)(first + b) * gridDim.x + blockIdx.x] = moment;
    }
}

// The cavity divided out of the posterior, damping, and the change of Lambda and eta. A frame that learned nothing keeps its
// message and counts in skips[first + b]. With `together` windows overlap: then the changes of g phi and of g are only
// written, to `back` and `changes`, and belief_sums adds them.
KERNEL message_step(
    float* precision, float2* natural, int W, const float2* probes, float2* messages, float* g, float2* back, const float2* psi_c,
    const int* order, int first, const int* corners, const int* index, int P, int Q, const float* cavities,
    const double* variances, const float* damping, int together, float* changes, double* skips)
{
    const int n = P * Q, b = blockIdx.y;
    const Frame f = frame_at(order, first + b, corners, index);
    const float2* p = probes + (size_t)f.u * n;
    float2* phi = messages + (size_t)f.j * n;
    const float2* s = psi_c + (size_t)b * n;
    float2* w = back + (size_t)b * n;
    const Message m = message_of(variances, cavities, b, n, damping, first + b, skips);
    for PIXELS(i, n) {
        const size_t at = on_object(f, i, Q, W);
        if (m.learned) message_pixel(m, w[i], s[i], phi + i, p[i], together ? w + i : nullptr, natural + at, precision + at);
        else if (together) w[i] = complex(0.0f, 0.0f);
    }
    message_scalars(m, f.j, b, together, g, changes);
}

// Lambda += sum_b h_b |P_b|^2 and eta += sum_b P_b* (h_b m_b if `weigh`, else m_b) on the object, one block a tile.
// h and m by position j, or by slot.
KERNEL belief_sums(
    float* precision, float2* natural, const float2* probes, const float* h, int weigh, const float2* messages, int by_slot,
    const int* starts, const int* members, const int* order, int first, const int* corners, const int* index, int P, int Q, int H,
    int W)
{
    const int n = P * Q, across = (W + TILE_X - 1) / TILE_X;
    const int y0 = blockIdx.x / across * TILE_Y, x0 = blockIdx.x % across * TILE_X;
    const int begin = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    if (begin == end) return;
    for (int base = 0; base < TILE_Y * TILE_X; base += blockDim.x) {
        const int t = base + threadIdx.x, y = y0 + t / TILE_X, x = x0 + t % TILE_X;
        const bool real = t < TILE_Y * TILE_X && y < H && x < W;
        const size_t at = real ? (size_t)y * W + x : 0;
        float L = precision[at];
        float2 eta = natural[at];
        const auto one = [&](Frame f, int b, int pixel, bool inside, int) {
            const size_t slot = by_slot ? b : f.j;
            const float2 p = only(inside, probes[(size_t)f.u * n + pixel]);
            const float2 w = conj_mul(p, only(inside, messages[slot * n + pixel]));
            L += h[slot] * abs2(p);
            eta = add(eta, weigh ? scale(h[slot], w) : w);
        };
        over_members(1, members, begin, end, order, first, corners, index, y, x, P, Q, one);
        if (!real) continue;
        precision[at] = L;
        natural[at] = eta;
    }
}

// For each segment of frames with one shift, with mu = eta/Lambda: force[s] = sum_j g_j [mu* (phi_j - mu P) - P/Lambda] and
// weight[s] = sum_j g_j (|mu|^2 + 1/Lambda). Members are positions.
KERNEL probe_pull(
    const float* precision, const float2* natural, int W, const float2* probes, const float* g, const float2* messages,
    const int* starts, const int* members, const int* order, const int* corners, const int* index, int P, int Q, float2* force,
    float* weight)
{
    const int n = P * Q, s = blockIdx.y, begin = starts[s], end = starts[s + 1];
    for PIXELS(i, n) {
        float2 total = complex(0.0f, 0.0f);
        float sum = 0.0f;
        for (int m = begin; m < end; m++) {
            const Frame f = frame_at(order, members[m], corners, index);
            const size_t at = on_object(f, i, Q, W);
            const float variance = 1.0f / precision[at], gain = g[f.j];
            const float2 mu = scale(variance, natural[at]), p = probes[(size_t)f.u * n + i];
            const float2 rest = sub(messages[(size_t)f.j * n + i], mul(mu, p));
            total = add(total, scale(gain, sub(conj_mul(mu, rest), scale(variance, p))));
            sum += gain * (abs2(mu) + variance);
        }
        force[(size_t)s * n + i] = total;
        weight[(size_t)s * n + i] = sum;
    }
}

// reference.bernoulli_gauss; log_prior = log(density/(1 - density)).
KERNEL bernoulli_gauss(
    const float2* mean, const float* variance, long long count, float log_prior, float slab, float2* out, float* out_variance,
    float* probability)
{
    for ELEMENTS(i, count) {
        const float2 m = mean[i];
        const float V = variance[i], gain = slab / (slab + V), power = abs2(m);
        const float odds = log_prior + logf(V / (V + slab)) + power * gain / V, pi = 0.5f * (1.0f + tanhf(0.5f * odds));
        out[i] = scale(pi * gain, m);
        out_variance[i] = pi * V * gain + pi * (1.0f - pi) * power * gain * gain;
        probability[i] = pi;
    }
}
