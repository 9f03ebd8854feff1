/* Vectors of W numbers for one dtype and any processor: NUM is 0 for float32, 1 for bfloat16, 2 for float16.
 *
 * Made of what gcc 12 and clang 12 offer on every processor, and of AVX-512 where it is better: widening, and the dot
 * product of bfloat16s.
 */
#include <stdint.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define W 16 /* numbers in a vector of float32 */
#elif defined(__AVX__)
#define W 8
#else
#define W 4
#endif

/* Before loops whose arrays must become registers. */
#define UNROLLED _Pragma("GCC unroll 16")

typedef float vec __attribute__((vector_size(4 * W)));
typedef uint32_t bits __attribute__((vector_size(4 * W)));
typedef float vec_in_memory __attribute__((vector_size(4 * W), aligned(4), may_alias));

static inline vec load(const float *p) { return *(const vec_in_memory *)p; }
static inline void store(float *p, vec v) { *(vec_in_memory *)p = v; }

/* The dtype: `widen` and `narrow` a vector of W numbers. */
#if NUM == 0
typedef float num;
static inline vec widen(const num *p) { return load(p); }
static inline void narrow(num *p, vec v) { store(p, v); }
#elif NUM == 1
typedef uint16_t num;
typedef uint16_t half __attribute__((vector_size(2 * W)));
typedef uint16_t half_in_memory __attribute__((vector_size(2 * W), aligned(2), may_alias));
static inline vec widen(const num *p) {
    half h = *(const half_in_memory *)p;
#ifdef __AVX512F__
    return (vec)((bits)_mm512_cvtepu16_epi32((__m256i)h) << 16);
#else
    return (vec)(__builtin_convertvector(h, bits) << 16);
#endif
}
static inline void narrow(num *p, vec v) {
#ifdef __AVX512BF16__
    *(half_in_memory *)p = (half)_mm512_cvtneps_pbh((__m512)v);
#else
    bits u = (bits)v, nan = (bits)(v != v);
    u = (u + 0x7fff + (u >> 16 & 1)) & ~nan | (u | 0x400000) & nan; /* to nearest even; a NaN stays one */
    *(half_in_memory *)p = __builtin_convertvector(u >> 16, half);
#endif
}
#else
typedef _Float16 num;
typedef _Float16 half __attribute__((vector_size(2 * W)));
typedef _Float16 half_in_memory __attribute__((vector_size(2 * W), aligned(2), may_alias));
#ifdef __AVX512F__
static inline vec widen(const num *p) { return (vec)_mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
static inline void narrow(num *p, vec v) { _mm256_storeu_si256((void *)p, _mm512_cvtps_ph((__m512)v, 8)); }
#else
static inline vec widen(const num *p) { return __builtin_convertvector((half) * (const half_in_memory *)p, vec); }
static inline void narrow(num *p, vec v) { *(half_in_memory *)p = __builtin_convertvector(v, half); }
#endif
#endif

/* A step of a dot product: STEP numbers of a row of M with as many of s, which is kept as `factor`s. */
#if NUM == 1 && defined(__AVX512BF16__)
#define STEP 32
typedef num factor;
typedef __m512bh part;
typedef __m512bh part_in_memory __attribute__((aligned(2), may_alias));
static inline part first(int n) { return (part)_mm512_maskz_set1_epi16((1u << n) - 1, -1); }
static inline part row_part(const num *m) { return *(const part_in_memory *)m; }
static inline part keep(part m, part lanes) { return (part)((__m512i)m & (__m512i)lanes); }
static inline vec add_dot(vec sum, part m, const factor *s) {
    return (vec)_mm512_dpbf16_ps((__m512)sum, m, *(const part_in_memory *)s);
}
static inline void factors(factor *s, vec v) { narrow(s, v); }

/* A step of W sums side by side: PAIR numbers of each of W rows of M, with the PAIR factors that are the same for all. */
#define PAIR 2
static inline vec add_pair(vec sum, const num *m, const factor *s) {
    int32_t both;
    __builtin_memcpy(&both, s, sizeof both);
    return (vec)_mm512_dpbf16_ps((__m512)sum, row_part(m), (__m512bh)_mm512_set1_epi32(both));
}
#else
#define STEP W
typedef float factor;
typedef bits part;
static inline part first(int n) {
    part lanes;
    for (int l = 0; l < W; l++) lanes[l] = l < n ? ~0u : 0;
    return lanes;
}
static inline part row_part(const num *m) { return (part)widen(m); }
static inline part keep(part m, part lanes) { return m & lanes; }
static inline vec add_dot(vec sum, part m, const factor *s) { return sum + (vec)m * load(s); }
static inline void factors(factor *s, vec v) { store(s, v); }
#define PAIR 1
static inline vec add_pair(vec sum, const num *m, const factor *s) { return sum + widen(m) * *s; }
#endif

#if W == 16
#define LANES(f, h) f(0, h), f(1, h), f(2, h), f(3, h), f(4, h), f(5, h), f(6, h), f(7, h), \
                    f(8, h), f(9, h), f(10, h), f(11, h), f(12, h), f(13, h), f(14, h), f(15, h)
#elif W == 8
#define LANES(f, h) f(0, h), f(1, h), f(2, h), f(3, h), f(4, h), f(5, h), f(6, h), f(7, h)
#else
#define LANES(f, h) f(0, h), f(1, h), f(2, h), f(3, h)
#endif
#define STAY(l, h) ((l) & (h) ? W + (l) : (l))
#define SWAP(l, h) ((l) & (h) ? W + ((l) ^ (h)) : ((l) ^ (h)))
#define FOLD(h) \
    UNROLLED for (int i = 0; i < h; i++) \
        v[i] = __builtin_shufflevector(v[i], v[i + h], LANES(STAY, h)) + \
               __builtin_shufflevector(v[i], v[i + h], LANES(SWAP, h))

/* W vectors → the vector of their sums: lane l is the sum of v[l]. */
static inline vec sums(vec *v) {
#if W >= 16
    FOLD(8);
#endif
#if W >= 8
    FOLD(4);
#endif
    FOLD(2);
    FOLD(1);
    return v[0];
}

static inline long up(long n, long to) { return (n + to - 1) / to * to; }
static inline long least(long a, long b) { return a < b ? a : b; }
/* How many parts of `most` cover n, and the size of as many equal ones. */
static inline long parts(long n, long most) { return (n + most - 1) / most; }
static inline long part_of(long n, long most) { return parts(n, parts(n, most)); }
