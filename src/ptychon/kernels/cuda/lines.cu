// The far field in three launches a frame, with the fast Fourier transforms inside: rows on the way to the detector, columns there
// and back with what is known at the detector in between, rows on the way back with the update of the object. Each kernel does what
// the one it names does, and its transforms.
#include "pixels.cuh"
#include "fft.cuh"

// ---------------------------------------------------------------- rows to the detector

// exit_wave, and its rows transformed.
KERNEL exit_rows(
    const float2* O, int W, const float2* probes, int select, const int* order, int first, const int* corners, const int* index,
    int K, int P, int Q, float2* wave, float* o_peaks, float* p_peaks)
{
    SHARED_CELLS(cells);
    const Place8 at = in_rows(Q);
    const int n = P * Q, b = blockIdx.y;
    const Frame f = frame_at(order, first + b, corners, index);
    const float2* p = probes + pick(select, f.u, b) * K * n;
    float2* out = wave + (size_t)b * K * n;
    float o_top = 0.0f, p_top = 0.0f;
    for LINES(at, row, P) {
        const int y = row + at.line, i = y * Q + at.t;
        const bool real = y < P;
        float2 o[E], v[E];
        float power[E] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        load8(o, O + (size_t)(f.y + y) * W + f.x + at.t, at.T, real);
        for (int k = 0; k < K; k++) {
            load8(v, p + (size_t)k * n + i, at.T, real);
            UNROLL
            for POINTS(m) {
                power[m] += abs2(v[m]);
                v[m] = mul(v[m], o[m]);
            }
            transform(v, cells + at.line * LINE_CELLS(Q), at.t, Q, -1.0f);
            store8(v, out + (size_t)k * n + i, at.T, real);
        }
        UNROLL
        for POINTS(m) {
            o_top = fmaxf(o_top, abs2(o[m]));
            p_top = fmaxf(p_top, power[m]);
        }
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

// reflect_open, and its rows transformed.
KERNEL open_rows(
    const float2* waves, const float2* O, int W, const float2* probes, const int* order, int first, const int* corners,
    const int* index, int K, int P, int Q, const float* settings, float2* out)
{
    SHARED_CELLS(cells);
    const Place8 at = in_rows(Q);
    const int n = P * Q, b = blockIdx.y;
    const float turn = 1.0f / settings[3];
    const Frame f = frame_at(order, first + b, corners, index);
    for LINES(at, row, P) {
        const int y = row + at.line, i = y * Q + at.t;
        const bool real = y < P;
        float2 o[E], v[E], old[E];
        load8(o, O + (size_t)(f.y + y) * W + f.x + at.t, at.T, real);
        for (int k = 0; k < K; k++) {
            load8(old, waves + ((size_t)f.j * K + k) * n + i, at.T, real);
            load8(v, probes + ((size_t)f.u * K + k) * n + i, at.T, real);
            UNROLL
            for POINTS(m) v[m] = sub(scale(1.0f + turn, mul(v[m], o[m])), scale(turn, old[m]));
            transform(v, cells + at.line * LINE_CELLS(Q), at.t, Q, -1.0f);
            store8(v, out + ((size_t)b * K + k) * n + i, at.T, real);
        }
    }
}

// cavity_wave, and, in `wave`, its rows transformed.
KERNEL cavity_rows(
    const float* precision, const float2* natural, int W, const float2* probes, const float2* messages, const float* g,
    const int* order, int first, const int* corners, const int* index, int P, int Q, const double* parts, float* cavities,
    float2* psi_c, float2* wave)
{
    SHARED_CELLS(cells);
    const Place8 at = in_rows(Q);
    const int n = P * Q, b = blockIdx.y;
    const Frame f = frame_at(order, first + b, corners, index);
    const Cavity c = cavity_of(parts, b, n, g[f.j], cavities);
    for LINES(at, row, P) {
        const int y = row + at.line, i = y * Q + at.t;
        const bool real = y < P;
        const size_t o = (size_t)(f.y + y) * W + f.x + at.t;
        float2 p[E], eta[E], phi[E];
        float lambda[E];
        load8(p, probes + (size_t)f.u * n + i, at.T, real);
        load8(eta, natural + o, at.T, real);
        load8(phi, messages + (size_t)f.j * n + i, at.T, real);
        UNROLL
        for POINTS(m) lambda[m] = real ? precision[o + m * at.T] : 1.0f;
        UNROLL
        for POINTS(m) {
            const float2 psi = scale(1.0f / lambda[m], mul(p[m], eta[m]));
            p[m] = sub(scale(c.keep, psi), scale(c.drop, phi[m]));
        }
        store8(p, psi_c + (size_t)b * n + i, at.T, real);
        transform(p, cells + at.line * LINE_CELLS(Q), at.t, Q, -1.0f);
        store8(p, wave + (size_t)b * n + i, at.T, real);
    }
}

// ---------------------------------------------------------------- columns, there and back

// modulus_change between the transforms of the columns.
KERNEL modulus_columns(
    float2* wave, const float* amplitude, int by_slot, const unsigned char* mask, int masks, const int* order, int first, int K,
    int P, int Q, float in_scale, float out_scale, double* misfit)
{
    SHARED_CELLS(cells);
    const Place8 at = in_columns(P);
    const int n = P * Q, b = blockIdx.y, j = order[first + b], step = at.T * Q;
    float2* w = wave + (size_t)b * K * n;
    const float* y = amplitude + (size_t)(by_slot ? b : j) * n;
    const unsigned char* valid = mask + (masks == 1 ? 0 : (size_t)j * n);
    float2* own = cells + at.line * LINE_CELLS(P);
    double total = 0.0;
    for LINES(at, column, Q) {
        const int x = column + at.line, i = at.t * Q + x;
        const bool real = x < Q;
        float2 v[E];
        float known[E], power[E] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        bool measured[E];
        UNROLL
        for POINTS(m) {
            measured[m] = real && valid[i + m * step];
            known[m] = real ? y[i + m * step] : 0.0f;
        }
        for (int k = 0; k < K; k++) {
            load8(v, w + (size_t)k * n + i, step, real);
            transform(v, own, at.t, P, -1.0f);
            UNROLL
            for POINTS(m) power[m] += abs2(v[m]);
            if (K > 1) store8(v, w + (size_t)k * n + i, step, real);
        }
        UNROLL
        for POINTS(m) power[m] = out_scale * modulus_factor(power[m], known[m], measured[m], in_scale, &total);
        for (int k = 0; k < K; k++) {
            if (K > 1) load8(v, w + (size_t)k * n + i, step, real);
            UNROLL
            for POINTS(m) v[m] = scale(power[m], v[m]);
            transform(v, own, at.t, P, 1.0f);
            store8(v, w + (size_t)k * n + i, step, real);
        }
    }
    total = block_sum(total);
    if (threadIdx.x == 0) misfit[(size_t)(first + b) * gridDim.x + blockIdx.x] = total;
}

// posterior between the transforms of the columns.
KERNEL posterior_columns(
    float2* wave, const float* amplitude, float offset, const unsigned char* mask, int masks, const int* order, int first, int P,
    int Q, const float* cavities, const float* noise_variance, int laplace, float in_scale, float out_scale, double* variances,
    double* noise)
{
    SHARED_CELLS(cells);
    const Place8 at = in_columns(P);
    const int n = P * Q, b = blockIdx.y, j = order[first + b], step = at.T * Q;
    float2* w = wave + (size_t)b * n;
    const float* a = amplitude + (size_t)j * n;
    const unsigned char* valid = mask + (masks == 1 ? 0 : (size_t)j * n);
    float2* own = cells + at.line * LINE_CELLS(P);
    const float v0 = 1.0f / cavities[2 * b], s = noise_variance[j], inverse = 1.0f / (v0 + 2.0f * s);
    double variance = 0.0, moment = 0.0;
    for LINES(at, column, Q) {
        const int x = column + at.line, i = at.t * Q + x;
        const bool real = x < Q;
        float2 v[E];
        float known[E];
        bool measured[E];
        UNROLL
        for POINTS(m) {
            measured[m] = real && valid[i + m * step];
            known[m] = real ? a[i + m * step] : 0.0f;
        }
        load8(v, w + i, step, real);
        transform(v, own, at.t, P, -1.0f);
        UNROLL
        for POINTS(m) {
            const float r0 = in_scale * sqrtf(abs2(v[m]));
            const float4 found = posterior_pixel(r0, known[m], offset, measured[m], laplace, v0, s, inverse);
            v[m] = scale(found.x * in_scale * out_scale, v[m]);
            if (real) {
                variance += found.y;
                moment += found.z;
            }
        }
        transform(v, own, at.t, P, 1.0f);
        store8(v, w + i, step, real);
    }
    variance = block_sum(variance);
    moment = block_sum(moment);
    if (threadIdx.x == 0) {
        variances[b * gridDim.x + blockIdx.x] = variance;
        noise[(size_t)(first + b) * gridDim.x + blockIdx.x] = moment;
    }
}

// ---------------------------------------------------------------- rows back to the object

// wave (B, n), rows transformed back in place; blockIdx.y: wave.
KERNEL rows_back(float2* wave, int P, int Q)
{
    SHARED_CELLS(cells);
    const Place8 at = in_rows(Q);
    float2* w = wave + (size_t)blockIdx.y * P * Q;
    for LINES(at, row, P) {
        const int y = row + at.line, i = y * Q + at.t;
        float2 v[E];
        load8(v, w + i, at.T, y < P);
        transform(v, cells + at.line * LINE_CELLS(Q), at.t, Q, 1.0f);
        store8(v, w + i, at.T, y < P);
    }
}

// object_step after the transform of the rows.
KERNEL object_rows(
    float2* O, int W, const float2* probes, const float* peaks, const float2* change, const int* order, int first,
    const int* corners, const int* index, int K, int P, int Q, int root, const float* steps)
{
    SHARED_CELLS(cells);
    const Place8 at = in_rows(Q);
    const int n = P * Q, b = blockIdx.y;
    const Frame f = frame_at(order, first + b, corners, index);
    const float2* p = probes + (size_t)f.u * K * n;
    const float2* d = change + (size_t)b * K * n;
    const float peak = peaks[f.u], step = root ? steps[0] / sqrtf(peak) : steps[0], a = steps[1], floor = steps[2] * peak;
    for LINES(at, row, P) {
        const int y = row + at.line, i = y * Q + at.t;
        const bool real = y < P;
        float2* o = O + (size_t)(f.y + y) * W + f.x + at.t;
        float2 old[E], z[E], v[E], total[E];
        float power[E];
        load8(old, o, at.T, real);
        UNROLL
        for POINTS(m) {
            power[m] = 0.0f;
            total[m] = complex(0.0f, 0.0f);
        }
        for (int k = 0; k < K; k++) {
            load8(z, p + (size_t)k * n + i, at.T, real);
            load8(v, d + (size_t)k * n + i, at.T, real);
            transform(v, cells + at.line * LINE_CELLS(Q), at.t, Q, 1.0f);
            UNROLL
            for POINTS(m) {
                power[m] += abs2(z[m]);
                total[m] = add(total[m], conj_mul(z[m], v[m]));
            }
        }
        UNROLL
        for POINTS(m) old[m] = add(old[m], scale(object_weight(power[m], step, a, floor, root), total[m]));
        store8(old, o, at.T, real);
    }
}

// both_step after the transform of the rows.
KERNEL both_rows(
    float2* O, int W, float2* probe, float2* change, const int* order, int first, const int* corners, const int* index, int K,
    int P, int Q, const float* o_peaks, const float* p_peaks, const float* steps, int keep)
{
    SHARED_CELLS(cells);
    const Place8 at = in_rows(Q);
    const int n = P * Q;
    const Frame f = frame_at(order, first, corners, index);
    const float o_floor = steps[5] * parts_max(o_peaks, gridDim.x), p_floor = steps[2] * parts_max(p_peaks, gridDim.x);
    const float step = steps[0], a = steps[1], p_step = steps[3], p_a = steps[4];
    for LINES(at, row, P) {
        const int y = row + at.line, i = y * Q + at.t;
        const bool real = y < P;
        float2* o = O + (size_t)(f.y + y) * W + f.x + at.t;
        float2 old[E], z[E], v[E], total[E];
        float power[E], pull[E];
        load8(old, o, at.T, real);
        UNROLL
        for POINTS(m) {
            power[m] = 0.0f;
            pull[m] = p_step / (p_a * abs2(old[m]) + o_floor);
            total[m] = complex(0.0f, 0.0f);
        }
        for (int k = 0; k < K; k++) {
            const size_t e = (size_t)k * n + i;
            load8(z, probe + e, at.T, real);
            load8(v, change + e, at.T, real);
            transform(v, cells + at.line * LINE_CELLS(Q), at.t, Q, 1.0f);
            UNROLL
            for POINTS(m) {
                power[m] += abs2(z[m]);
                total[m] = add(total[m], conj_mul(z[m], v[m]));
                v[m] = scale(pull[m], conj_mul(old[m], v[m]));
                if (!keep) v[m] = add(z[m], v[m]);
            }
            store8(v, (keep ? change : probe) + e, at.T, real);
        }
        UNROLL
        for POINTS(m) old[m] = add(old[m], scale(object_weight(power[m], step, a, p_floor, 0), total[m]));
        store8(old, o, at.T, real);
    }
}

// reflect_close after the transform of the rows.
KERNEL close_rows(
    float2* waves, const float2* O, int W, const float2* probes, const float2* back_O, const float2* back_probes,
    const float2* change, const double* misfit, const float* valid_pixels, int masks, const int* order, int first,
    const int* corners, const int* index, int K, int P, int Q, const float* settings)
{
    SHARED_CELLS(cells);
    const Place8 at = in_rows(Q);
    const int n = P * Q, b = blockIdx.y;
    const Frame f = frame_at(order, first + b, corners, index);
    const float share = share_of(misfit, first + b, valid_pixels, masks == 1 ? 0 : f.j, settings), beta = settings[3];
    for LINES(at, row, P) {
        const int y = row + at.line, i = y * Q + at.t;
        const bool real = y < P;
        const size_t o = (size_t)(f.y + y) * W + f.x + at.t;
        float2 v[E], e[E], back[E];
        for (int k = 0; k < K; k++) {
            const size_t p = ((size_t)f.u * K + k) * n + i;
            load8(v, change + ((size_t)b * K + k) * n + i, at.T, real);
            UNROLL
            for POINTS(m) {
                const int step = m * at.T;
                e[m] = real ? mul(probes[p + step], O[o + step]) : v[m];
                back[m] = real && back_O ? mul(back_probes[p + step], back_O[o + step]) : e[m];
            }
            transform(v, cells + at.line * LINE_CELLS(Q), at.t, Q, 1.0f);
            UNROLL
            for POINTS(m) v[m] = reflected(e[m], back[m], back_O != nullptr, scale(share, v[m]), beta);
            store8(v, waves + ((size_t)f.j * K + k) * n + i, at.T, real);
        }
    }
}

// message_step after the transform of the rows.
KERNEL message_rows(
    float* precision, float2* natural, int W, const float2* probes, float2* messages, float* g, float2* back, const float2* psi_c,
    const int* order, int first, const int* corners, const int* index, int P, int Q, const float* cavities,
    const double* variances, const float* damping, int together, float* changes, double* skips)
{
    SHARED_CELLS(cells);
    const Place8 at = in_rows(Q);
    const int n = P * Q, b = blockIdx.y;
    const Frame f = frame_at(order, first + b, corners, index);
    const float2* p = probes + (size_t)f.u * n;
    float2* phi = messages + (size_t)f.j * n;
    const float2* s = psi_c + (size_t)b * n;
    float2* w = back + (size_t)b * n;
    const Message message = message_of(variances, cavities, b, n, damping, first + b, skips);
    for LINES(at, row, P) {
        const int y = row + at.line, i = y * Q + at.t;
        const bool real = y < P;
        const size_t o = (size_t)(f.y + y) * W + f.x + at.t;
        float2 v[E], mean[E], old[E], z[E], eta[E];
        float lambda[E];
        load8(v, w + i, at.T, real);
        load8(mean, s + i, at.T, real);
        load8(old, phi + i, at.T, real);
        load8(z, p + i, at.T, real);
        load8(eta, natural + o, at.T, real);
        UNROLL
        for POINTS(m) lambda[m] = real ? precision[o + m * at.T] : 1.0f;
        transform(v, cells + at.line * LINE_CELLS(Q), at.t, Q, 1.0f);
        if (!real) continue;
        UNROLL
        for POINTS(m) {
            if (message.learned)
                message_pixel(message, v[m], mean[m], &old[m], z[m], together ? &v[m] : nullptr, &eta[m], &lambda[m]);
            else v[m] = complex(0.0f, 0.0f);
        }
        if (together) store8(v, w + i, at.T, true);
        if (!message.learned) continue;
        store8(old, phi + i, at.T, true);
        if (together) continue;
        store8(eta, natural + o, at.T, true);
        UNROLL
        for POINTS(m) precision[o + m * at.T] = lambda[m];
    }
    message_scalars(message, f.j, b, together, g, changes);
}
