/* Adapters by token on a CPU: y += put(M · take(x)) with each token's own M, read where it lies in `Slots.buffer`.
 *
 * Plain C behind one function, called by ctypes; native.py mirrors the structs. What the fields of a slot mean is said
 * in geometry.py and slots.py. Sums are float32; in bfloat16 with AVX512-BF16, s is rounded to bfloat16
 * before the product, as it is between any two layers of such a model.
 *
 * A token costs rows · r̂² multiply-adds and one reading of its M, r̂² numbers; tokens that follow each other and use
 * the same slot share the reading, up to BATCH rows of s at a time.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

enum { FLOAT32, BFLOAT16, FLOAT16 };
enum { EMPTY, MORA, LORA };
enum { BATCH = 64, PAD = 32, TILE = 16 };

typedef struct {
    int32_t kind, side, blocks, rows, taken, written, inputs_grouped, outputs_grouped, rotated;
} Slot;

typedef struct {
    const char *buffer;         /* (count, capacity) numbers */
    int64_t capacity;
    const Slot *table;          /* (count) */
    const float *const *turns;  /* per slot: cos, then sin, each (blocks, r̂ / 2); or NULL */
    int32_t dtype, k, d, in_start, in_count, out_start, out_count;
} Layer;

static inline float from_bf16(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline uint16_t to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    return (u & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (uint16_t)rounded;
}

/* to[i] += from[i], from in the layer's dtype */
static void gather(float *to, const char *from, int64_t start, int64_t n, int dtype) {
    if (dtype == FLOAT32) {
        const float *f = (const float *)from + start;
        for (int64_t i = 0; i < n; i++) to[i] += f[i];
    } else if (dtype == BFLOAT16) {
        const uint16_t *f = (const uint16_t *)from + start;
        for (int64_t i = 0; i < n; i++) to[i] += from_bf16(f[i]);
    } else {
        const _Float16 *f = (const _Float16 *)from + start;
        for (int64_t i = 0; i < n; i++) to[i] += (float)f[i];
    }
}

/* to[i] += from[i], to in the layer's dtype, rounded once */
static void scatter(char *to, int64_t start, const float *from, int64_t n, int dtype) {
    if (dtype == FLOAT32) {
        float *t = (float *)to + start;
        for (int64_t i = 0; i < n; i++) t[i] += from[i];
    } else if (dtype == BFLOAT16) {
        uint16_t *t = (uint16_t *)to + start;
        for (int64_t i = 0; i < n; i++) t[i] = to_bf16(from_bf16(t[i]) + from[i]);
    } else {
        _Float16 *t = (_Float16 *)to + start;
        for (int64_t i = 0; i < n; i++) t[i] = (_Float16)((float)t[i] + from[i]);
    }
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

/* Group j of n contiguous ones of `size` numbers, the first size mod n of them one longer: where it starts. */
static int64_t group_start(int64_t size, int64_t n, int64_t j) { return j * (size / n) + lesser(j, size % n); }

/* take: x (in_count) → s (rows, pitch), which is zero at first. `block` has room for r̂ numbers. */
static void take(const Layer *l, const Slot *g, const float *angles, const char *x, float *s, int64_t pitch, float *block) {
    const int64_t r_hat = g->side, first = l->in_start, last = first + l->in_count;
    if (g->inputs_grouped) {
        for (int64_t j = 0; j < r_hat; j++) {
            int64_t start = larger(group_start(l->k, r_hat, j), first);
            int64_t stop = lesser(group_start(l->k, r_hat, j + 1), last);
            for (int64_t i = start; i < stop; i++) gather(s + j, x, i - first, 1, l->dtype);
        }
        return;
    }
    for (int64_t b = 0; b < g->blocks; b++) {
        float *row = s + (b % g->rows) * pitch, *to = g->rotated ? block : row;
        if (g->rotated) memset(block, 0, r_hat * sizeof(float));
        /* The block is the stretch [b r̂, (b + 1) r̂) of the inputs, repeated endlessly or once. */
        for (int64_t done = 0; done < r_hat;) {
            int64_t at = b * r_hat + done, from = at % l->k;
            int64_t n = lesser(lesser(r_hat - done, l->k - from), g->taken - at);
            if (n <= 0) break;
            int64_t start = larger(from, first), stop = lesser(from + n, last);
            if (start < stop) gather(to + done + (start - from), x, start - first, stop - start, l->dtype);
            done += n;
        }
        if (g->rotated) {
            const int64_t half = r_hat / 2;
            const float *cos = angles + b * half, *sin = angles + (g->blocks + b) * half, *other = block + half;
            for (int64_t j = 0; j < half; j++) row[j] += block[j] * cos[j] - other[j] * sin[j];
            for (int64_t j = 0; j < half; j++) row[half + j] += other[j] * cos[j] + block[j] * sin[j];
        }
    }
}

/* put: y (out_count) += what rows of M s (rows, r̂, end to end) mean for each output. */
static void put(const Layer *l, const Slot *g, char *y, const float *out) {
    const int64_t first = l->out_start, last = first + l->out_count;
    if (g->outputs_grouped) {
        for (int64_t j = 0; j < g->side; j++) {
            int64_t start = larger(group_start(l->d, g->side, j), first);
            int64_t stop = lesser(group_start(l->d, g->side, j + 1), last);
            for (int64_t i = start; i < stop; i++) scatter(y, i - first, out + j, 1, l->dtype);
        }
        return;
    }
    const int64_t period = (int64_t)g->rows * g->side, reach = lesser(last, g->written);
    for (int64_t at = first; at < reach;) {
        int64_t from = at % period, n = lesser(period - from, reach - at);
        scatter(y, at - first, out + from, n, l->dtype);
        at += n;
    }
}

/* Σ m[i] s[i] */
static float dot(const char *m, int64_t start, const float *s, int64_t n, int dtype) {
    float sum = 0;
    if (dtype == FLOAT32) {
        const float *f = (const float *)m + start;
        for (int64_t i = 0; i < n; i++) sum += f[i] * s[i];
    } else if (dtype == BFLOAT16) {
        const uint16_t *f = (const uint16_t *)m + start;
        for (int64_t i = 0; i < n; i++) sum += from_bf16(f[i]) * s[i];
    } else {
        const _Float16 *f = (const _Float16 *)m + start;
        for (int64_t i = 0; i < n; i++) sum += (float)f[i] * s[i];
    }
    return sum;
}

#ifdef __AVX512BF16__
/* The sums of 16 vectors' lanes, as one vector. */
static inline __m512 sums(__m512 *v) {
    __m512 w[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        __m512 low = _mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), high = _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]);
        w[i] = _mm512_add_ps(low, high);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512d a = _mm512_castps_pd(w[2 * i]), b = _mm512_castps_pd(w[2 * i + 1]);
        w[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        w[i] = _mm512_add_ps(_mm512_shuffle_f32x4(w[2 * i], w[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(w[2 * i], w[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(w[0], w[1], 0x88), _mm512_shuffle_f32x4(w[0], w[1], 0xdd));
}

/* R rows of M (R, m) with V rows of s, R · V = 16 sums held in registers; m is padded in s with zeros. */
#define DEFINE_TILE(R, V)                                                                                            \
    static inline void tile_##R##x##V(const uint16_t *M, int64_t m, const uint16_t *s, int64_t pitch, float *out,     \
                                      int64_t out_pitch) {                                                            \
        const int64_t whole = m / PAD * PAD;                                                                          \
        const __mmask32 tail = (1u << (m % PAD)) - 1;                                                                 \
        __m512 sum[16];                                                                                               \
        _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++) sum[i] = _mm512_setzero_ps();                           \
        for (int64_t c = 0; c < m; c += PAD) {                                                                        \
            __m512bh left[R];                                                                                         \
            _Pragma("GCC unroll 16") for (int r = 0; r < R; r++) left[r] =                                            \
                (__m512bh)(c < whole ? _mm512_loadu_si512(M + r * m + c)                                              \
                                     : _mm512_maskz_loadu_epi16(tail, M + r * m + c));                                \
            _Pragma("GCC unroll 16") for (int v = 0; v < V; v++) {                                                    \
                const __m512bh right = (__m512bh)_mm512_loadu_si512(s + v * pitch + c);                               \
                _Pragma("GCC unroll 16") for (int r = 0; r < R; r++) sum[v * R + r] =                                 \
                    _mm512_dpbf16_ps(sum[v * R + r], left[r], right);                                                 \
            }                                                                                                         \
        }                                                                                                             \
        float lanes[16];                                                                                              \
        _mm512_storeu_ps(lanes, sums(sum));                                                                           \
        for (int v = 0; v < V; v++) memcpy(out + v * out_pitch, lanes + v * R, R * sizeof(float));                    \
    }
DEFINE_TILE(16, 1)
DEFINE_TILE(8, 2)
DEFINE_TILE(4, 4)

/* out (count, out_pitch) = s (count, pitch) times M (n, m) transposed, by tiles of 16 rows of M, each read from memory
 * once. Meanwhile the same rows of `next`, the matrix that will be read after this one, are fetched. */
static void product_bf16(const uint16_t *M, const uint16_t *next, int64_t n, int64_t m, const uint16_t *s, int64_t count,
                         int64_t pitch, float *out, int64_t out_pitch) {
    int64_t i = 0;
    for (; i + TILE <= n; i += TILE) {
        const uint16_t *tile = M + i * m;
        for (int64_t line = 0; line < TILE * m; line += 32) _mm_prefetch((const char *)(next + i * m + line), _MM_HINT_T1);
        int64_t v = 0;
        for (; v + 4 <= count; v += 4)
            for (int r = 0; r < TILE; r += 4)
                tile_4x4(tile + r * m, m, s + v * pitch, pitch, out + v * out_pitch + i + r, out_pitch);
        for (; v + 2 <= count; v += 2)
            for (int r = 0; r < TILE; r += 8)
                tile_8x2(tile + r * m, m, s + v * pitch, pitch, out + v * out_pitch + i + r, out_pitch);
        for (; v < count; v++) tile_16x1(tile, m, s + v * pitch, pitch, out + v * out_pitch + i, out_pitch);
    }
    for (; i < n; i++)
        for (int64_t v = 0; v < count; v++) {
            __m512 sum = _mm512_setzero_ps();
            for (int64_t c = 0; c < m; c += PAD) {
                const __mmask32 mask = m - c >= PAD ? ~0u : (1u << (m - c)) - 1;
                sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_maskz_loadu_epi16(mask, M + i * m + c),
                                       (__m512bh)_mm512_loadu_si512(s + v * pitch + c));
            }
            out[v * out_pitch + i] = _mm512_reduce_add_ps(sum);
        }
}
#endif

/* out (count, out_pitch) = s (count, pitch) times M (n, m) transposed. `half` has room for count · pitch numbers. */
static void product(const Layer *l, const char *M, const char *next, int64_t n, int64_t m, const float *s, int64_t count, int64_t pitch,
                    float *out, int64_t out_pitch, uint16_t *half) {
#ifdef __AVX512BF16__
    if (l->dtype == BFLOAT16) {
        for (int64_t i = 0; i < count * pitch; i++) half[i] = to_bf16(s[i]);
        product_bf16((const uint16_t *)M, (const uint16_t *)next, n, m, half, count, pitch, out, out_pitch);
        return;
    }
#else
    (void)next;
#endif
    for (int64_t i = 0; i < n; i++)
        for (int64_t v = 0; v < count; v++) out[v * out_pitch + i] = dot(M, i * m, s + v * pitch, m, l->dtype);
}

/* Tokens [0, count) of one slot, a few at a time. */
static void run(const Layer *l, int slot, int next, char *y, int64_t y_stride, const char *x, int64_t x_stride, int64_t count) {
    const int size = l->dtype == FLOAT32 ? 4 : 2;
    const Slot *g = l->table + slot;
    const char *M = l->buffer + slot * l->capacity * size, *after = l->buffer + next * l->capacity * size;
    /* A LoRA is two products: A (r, inputs held), then B transposed (r, outputs held), added row by row. */
    const int64_t rows = g->kind == MORA ? g->rows : 1;
    const int64_t width = g->kind == MORA ? g->side : l->in_count;
    const int64_t height = g->side;
    const int64_t pitch = (width + PAD - 1) / PAD * PAD;
    const int64_t batch = larger(1, BATCH / rows);
    const int64_t most = lesser(batch, count) * rows;
    const int64_t spare = larger(height, l->out_count) + PAD;
    float *s = malloc((most * (pitch + height) + spare) * sizeof(float) + most * pitch * sizeof(uint16_t) + 64);
    if (!s) return;
    float *out = s + most * pitch, *block = out + most * height;
    uint16_t *half = (uint16_t *)(block + spare);
    for (int64_t t = 0; t < count; t += batch) {
        const int64_t now = lesser(batch, count - t);
        memset(s, 0, now * rows * pitch * sizeof(float));
        for (int64_t i = 0; i < now; i++) {
            const char *from = x + (t + i) * x_stride * size;
            if (g->kind == MORA)
                take(l, g, l->turns[slot], from, s + i * rows * pitch, pitch, block);
            else
                gather(s + i * pitch, from, 0, width, l->dtype);
        }
        product(l, M, t + batch < count ? M : after, height, width, s, now * rows, pitch, out, height, half);
        for (int64_t i = 0; i < now; i++) {
            char *to = y + (t + i) * y_stride * size;
            if (g->kind == MORA) {
                put(l, g, to, out + i * rows * height);
                continue;
            }
            memset(block, 0, l->out_count * sizeof(float));
            for (int64_t r = 0; r < height; r++) {
                const float a = out[i * height + r];
                const int64_t start = height * l->in_count + r * l->out_count;
                if (l->dtype == FLOAT32) {
                    const float *b = (const float *)M + start;
                    for (int64_t j = 0; j < l->out_count; j++) block[j] += a * b[j];
                } else if (l->dtype == BFLOAT16) {
                    const uint16_t *b = (const uint16_t *)M + start;
                    for (int64_t j = 0; j < l->out_count; j++) block[j] += a * from_bf16(b[j]);
                } else {
                    const _Float16 *b = (const _Float16 *)M + start;
                    for (int64_t j = 0; j < l->out_count; j++) block[j] += a * (float)b[j];
                }
            }
            scatter(to, 0, block, l->out_count, l->dtype);
        }
    }
    free(s);
}

/* y (tokens, out_count) += each token's adapter on x (tokens, in_count). Rows lie y_stride and x_stride numbers apart;
 * slots says which slot each token uses, below 0 none. */
void add_adapters(const Layer *l, char *y, int64_t y_stride, const char *x, int64_t x_stride, const int32_t *slots,
                  int64_t tokens) {
    const int size = l->dtype == FLOAT32 ? 4 : 2;
    for (int64_t t = 0; t < tokens;) {
        int64_t stop = t + 1;
        while (stop < tokens && slots[stop] == slots[t]) stop++;
        if (slots[t] >= 0 && l->table[slots[t]].kind != EMPTY)
            run(l, slots[t], stop < tokens && slots[stop] >= 0 ? slots[stop] : slots[t], y + t * y_stride * size, y_stride, x + t * x_stride * size, x_stride, stop - t);
        t = stop;
    }
}
