// Expectation propagation: one factor update without a look from the host. Formulas: engines/ptycho_ep.py and
// kernels/reference.py. Scalars of a visit live in cavities (B, 2) = (g_c, g_j before) and changes (B,) = change of g_j.
#include "common.cuh"

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
    const float variance = (float)(parts_sum(parts + b * gridDim.x, gridDim.x) / n);
    const float g_b = 1.0f / variance, g_j = g[f.j], g_c = fmaxf(g_b - g_j, CAVITY_FLOOR * g_b);
    const float keep = g_b / g_c, drop = g_j / g_c;
    for PIXELS(i, n) {
        const size_t at = on_object(f, i, Q, W);
        const float2 psi = scale(1.0f / precision[at], mul(p[i], natural[at]));
        psi_c[(size_t)b * n + i] = sub(scale(keep, psi), scale(drop, phi[i]));
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        cavities[2 * b] = g_c;
        cavities[2 * b + 1] = g_j;
    }
}

__device__ inline float4 rician_pixel(float r0, float y, float v0, float v, float inverse)
{
    // rational fits of I1(k)/I0(k)/k and of 1 - (I1/I0)^2, as in kernels/reference.py
    const float t = y * inverse, kappa = 2.0f * t * r0, k = fminf(kappa, KAPPA_MAX), beyond = KAPPA_MAX / fmaxf(kappa, KAPPA_MAX);
    const float ratio = beyond * (0.49993662f + k * (0.23901914f + k * (0.08853111f + k * 0.03700171f))) /
                        (1.0f + k * (0.47430503f + k * (0.31906998f + k * (0.10621296f + k * 0.03700631f))));
    const float rest = beyond * (0.99932833f + k * (0.24235761f + k * (0.03239556f + k * 0.09187582f))) /
                       (1.0f + k * (0.2235314f + k * (0.36507308f + k * (0.02509676f + k * 0.09193639f))));
    const float base = 2.0f * v0 * v * inverse, share = 2.0f * v * inverse, q = v0 * t, d = y - r0;
    const float less = rest / (1.0f + fminf(ratio * kappa, 1.0f));
    float4 found;  // factor of the mean, variance, noise
    found.x = 2.0f * v0 * y * t * ratio * inverse + share;
    found.y = base + q * q * rest;
    found.z = 0.5f * (share * share * (d * d + 2.0f * y * r0 * less) + base);
    found.w = 0.0f;
    return found;
}

__device__ inline float4 laplace_pixel(float modulus, float y, float v0, float v, float inverse)
{
    const float r0 = fmaxf(modulus, 1e-6f * sqrtf(v0)), rho = (v0 * y + 2.0f * v * r0) * inverse, d = y - rho;
    const float base = v0 * v * inverse;
    float4 found;
    found.x = rho / r0;
    found.y = base + v0 * rho / (2.0f * r0);
    found.z = d * d + base;
    found.w = 0.0f;
    return found;
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
        if (!valid[i]) {
            variance += v0;
            w[i] = scale(both, w[i]);
            continue;
        }
        const float y = sqrtf(fmaxf(a[i], 0.0f) * fmaxf(a[i], 0.0f) + offset), r0 = in_scale * sqrtf(abs2(w[i]));
        const float4 found = laplace ? laplace_pixel(r0, y, v0, v, inverse) : rician_pixel(r0, y, v0, v, inverse);
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
    const float g_c = cavities[2 * b], g_old = cavities[2 * b + 1], d = damping[0], keep = 1.0f - d;
    const float v_hat = (float)(parts_sum(variances + b * gridDim.x, gridDim.x) / n);
    const float g_hat = 1.0f / fmaxf(v_hat, VARIANCE_FLOOR / g_c);
    const bool learned = g_hat > (1.0f + EXTRINSIC_GAIN) * g_c, single = blockIdx.x == 0 && threadIdx.x == 0;
    if (single) skips[first + b] = learned ? 0.0 : 1.0;
    if (!learned) {
        if (together) {
            for PIXELS(i, n) w[i] = complex(0.0f, 0.0f);
            if (single) changes[b] = 0.0f;
        }
        return;
    }
    const float g_n = g_hat - g_c, root = d / sqrtf(g_n) + keep / sqrtf(g_old), g_new = 1.0f / (root * root);
    const float of_back = d * g_hat / g_n, of_cavity = d * g_c / g_n, change = g_new - g_old;
    for PIXELS(i, n) {
        const float2 old = phi[i], next = add(sub(scale(of_back, w[i]), scale(of_cavity, s[i])), scale(keep, old));
        const float2 pull = sub(scale(g_new, next), scale(g_old, old));
        phi[i] = next;
        if (together) {
            w[i] = pull;
        } else {
            const size_t at = on_object(f, i, Q, W);
            natural[at] = add(natural[at], conj_mul(p[i], pull));
            precision[at] += change * abs2(p[i]);
        }
    }
    if (single) {
        g[f.j] = g_new;
        changes[b] = change;
    }
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
    for (int t = threadIdx.x; t < TILE_Y * TILE_X; t += blockDim.x) {
        const int y = y0 + t / TILE_X, x = x0 + t % TILE_X;
        if (y >= H || x >= W) continue;
        const size_t at = (size_t)y * W + x;
        float L = precision[at];
        float2 eta = natural[at];
        for (int m = begin; m < end; m++) {
            const int b = members[m];
            const Frame f = frame_at(order, first + b, corners, index);
            const int r = y - f.y, c = x - f.x;
            if (r < 0 || r >= P || c < 0 || c >= Q) continue;
            const size_t slot = by_slot ? b : f.j, pixel = (size_t)r * Q + c;
            const float2 p = probes[(size_t)f.u * n + pixel], w = conj_mul(p, messages[slot * n + pixel]);
            L += h[slot] * abs2(p);
            eta = add(eta, weigh ? scale(h[slot], w) : w);
        }
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
