// What one pixel or one frame has done to it, for kernels that do it to arrays and for those that have the transforms inside.
#ifndef PTYCHON_PIXELS
#define PTYCHON_PIXELS
#include "common.cuh"

// What w, with z = in_scale w of modulus |z| = in_scale sqrt(power), is multiplied by for Pi_F z - z; (|z| - y)^2 to total.
__device__ inline float modulus_factor(float power, float y, bool valid, float in_scale, double* total)
{
    const float m = in_scale * sqrtf(power), d = valid ? y - m : 0.0f;
    *total += d * d;
    return d / fmaxf(m, TINY) * in_scale;
}

// How much one pixel of the object moves for each conj(P) change, with `power` = sum_k |P_k|^2 there.
__device__ inline float object_weight(float power, float step, float a, float floor, int root)
{
    const float w = step / (a * power + floor);
    return root ? w * sqrtf(power) : w;
}

// Of the modulus constraint, how much the difference map takes: see overlap.cu.
__device__ inline float share_of(const double* misfit, int visit, const float* valid_pixels, int j, const float* settings)
{
    const double found = parts_sum(misfit + (size_t)visit * gridDim.x, gridDim.x);
    return (float)fmax(0.0, 1.0 - sqrt((double)settings[2] * valid_pixels[j] / fmax(found, 1e-30)));
}

// One pixel of psi_j = (1 + beta) P O_j + beta (change - back_j): e = P O_j; without a back object beta is 1 and back_j is e.
__device__ inline float2 reflected(float2 e, float2 back, bool has_back, float2 change, float beta)
{
    return has_back ? add(scale(1.0f + beta, e), scale(beta, sub(change, back))) : add(e, change);
}

struct Cavity {
    float g, keep, drop;
};

// CN(psi, V)/CN(phi_j, 1/g_j) = CN(keep psi - drop phi_j, 1/g), with V from the parts that belief_variance left (same grid);
// g and g_j go to cavities[b].
__device__ inline Cavity cavity_of(const double* parts, int b, int n, float g_j, float* cavities)
{
    const float variance = (float)(parts_sum(parts + b * gridDim.x, gridDim.x) / n), g_b = 1.0f / variance;
    Cavity c;
    c.g = fmaxf(g_b - g_j, CAVITY_FLOOR * g_b);
    c.keep = g_b / c.g;
    c.drop = g_j / c.g;
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        cavities[2 * b] = c.g;
        cavities[2 * b + 1] = g_j;
    }
    return c;
}

// Moments of the detector wave after its amplitude y was seen: factor of the mean, variance, noise.
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

// The same for any pixel, of amplitude `a`: on one without a measurement nothing is learned.
__device__ inline float4 posterior_pixel(float r0, float a, float offset, bool valid, int laplace, float v0, float v, float inverse)
{
    if (!valid) {
        float4 nothing;
        nothing.x = 1.0f;
        nothing.y = v0;
        nothing.z = nothing.w = 0.0f;
        return nothing;
    }
    const float y = sqrtf(fmaxf(a, 0.0f) * fmaxf(a, 0.0f) + offset);
    return laplace ? laplace_pixel(r0, y, v0, v, inverse) : rician_pixel(r0, y, v0, v, inverse);
}

struct Message {
    bool learned;
    float g_old, g_new, of_back, of_cavity, keep;
};

// How the message of frame j is made from the posterior and the cavity, with damping d; the parts of the posterior's variance
// come from the same grid. Where nothing was learned the message stays: skips[visit] counts it.
__device__ inline Message message_of(
    const double* variances, const float* cavities, int b, int n, const float* damping, int visit, double* skips)
{
    const float g_c = cavities[2 * b], d = damping[0];
    const float v_hat = (float)(parts_sum(variances + b * gridDim.x, gridDim.x) / n);
    const float g_hat = 1.0f / fmaxf(v_hat, VARIANCE_FLOOR / g_c), g_n = g_hat - g_c;
    Message m;
    m.learned = g_hat > (1.0f + EXTRINSIC_GAIN) * g_c;
    m.g_old = cavities[2 * b + 1];
    m.keep = 1.0f - d;
    const float root = d / sqrtf(g_n) + m.keep / sqrtf(m.g_old);
    m.g_new = 1.0f / (root * root);
    m.of_back = d * g_hat / g_n;
    m.of_cavity = d * g_c / g_n;
    if (blockIdx.x == 0 && threadIdx.x == 0) skips[visit] = m.learned ? 0.0 : 1.0;
    return m;
}

// One pixel: `back` is the mean of the posterior, `cavity` that of the cavity. The change of g phi is left in *out, or, without
// one, added to the belief, and that of Lambda too.
__device__ inline void message_pixel(
    Message m, float2 back, float2 cavity, float2* phi, float2 p, float2* out, float2* natural, float* precision)
{
    const float2 old = *phi, next = add(sub(scale(m.of_back, back), scale(m.of_cavity, cavity)), scale(m.keep, old));
    const float2 pull = sub(scale(m.g_new, next), scale(m.g_old, old));
    *phi = next;
    if (out) {
        *out = pull;
    } else {
        *natural = add(*natural, conj_mul(p, pull));
        *precision += (m.g_new - m.g_old) * abs2(p);
    }
}

__device__ inline void message_scalars(Message m, int j, int b, int together, float* g, float* changes)
{
    if (blockIdx.x != 0 || threadIdx.x != 0) return;
    if (m.learned) {
        g[j] = m.g_new;
        changes[b] = m.g_new - m.g_old;
    } else if (together) {
        changes[b] = 0.0f;
    }
}

#endif
