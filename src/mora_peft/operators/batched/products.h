/* Small matrices times a few columns: the dot products and the sums that adapters are made of.
 *
 * M is kept *packed*, so that a column of it lies side by side and sums of many outputs grow in registers without ever
 * being added across a vector: packed[j / PAIR][i][j mod PAIR] = M[i][j], and zeros where a last pair is not full.
 * A LoRA's A has few outputs and long rows; it stays row by row, and its dot products are summed across.
 */
#include <string.h>

#include "vectors.h"

/* The next slot's numbers: asked for little by little while this one's are computed, so that neither waits. */
struct ahead {
    const char *at, *end;
};

static inline void ask(struct ahead *ahead, int lines) {
    for (int l = 0; l < lines; l++) __builtin_prefetch(ahead->at + 64 * l, 0, 2);
    if (ahead->at < ahead->end) ahead->at += 64 * lines;
}

/* For each of `columns` columns of s and `rows` rows of m, `length` apart, a vector that is still to be summed:
 * v[c · rows + r]. Rows after `last` count as `last`. */
static inline __attribute__((always_inline)) void dots(vec *v, const int rows, const int columns, const num *m,
                                                       long length, long last, const factor *s, long s_width,
                                                       part lanes) {
    const num *row[4];
    vec sum[W] = {{0}};
    long j = 0;
    UNROLLED for (int r = 0; r < rows; r++) row[r] = m + least(r, last) * length;
    for (; j + STEP <= length; j += STEP)
        UNROLLED for (int r = 0; r < rows; r++) {
            part p = row_part(row[r] + j);
            UNROLLED for (int c = 0; c < columns; c++)
                sum[c * rows + r] = add_dot(sum[c * rows + r], p, s + c * s_width + j);
        }
    if (j < length)
        UNROLLED for (int r = 0; r < rows; r++) {
            part p = keep(row_part(row[r] + j), lanes);
            UNROLLED for (int c = 0; c < columns; c++)
                sum[c * rows + r] = add_dot(sum[c * rows + r], p, s + c * s_width + j);
        }
    UNROLLED for (int n = 0; n < rows * columns; n++) v[n] = sum[n];
}

/* z[0 : W] of one column: two rows at a time, so that m is read nearly as it lies in memory. */
static __attribute__((noinline)) void tall(float *z, const num *m, long length, long last, const factor *s, part lanes,
                                           struct ahead *ahead, int lines) {
    vec v[W];
    if (last >= W - 1)
        UNROLLED for (int r = 0; r < W; r += 2) {
            ask(ahead, lines);
            dots(v + r, 2, 1, m + r * length, length, 1, s, 0, lanes);
        }
    else {
        memset(v, 0, sizeof v);
        for (int r = 0; r <= last; r += 2) {
            ask(ahead, lines);
            dots(v + r, 2, 1, m + r * length, length, last - r, s, 0, lanes);
        }
    }
    store(z, sums(v));
}

/* z[0 : 4] of W / 4 columns. */
static __attribute__((noinline)) void wide(float *z, long z_width, const num *m, long length, long last,
                                           const factor *s, long s_width, part lanes) {
    vec v[W];
    float out[W];
    dots(v, 4, W / 4, m, length, last, s, s_width, lanes);
    store(out, sums(v));
    for (int c = 0; c < W / 4; c++) memcpy(z + c * z_width, out + 4 * c, 4 * sizeof(float));
}

/* z[c][i] = Σ_j m[i][j] s[c][j] for i < rows: m comes from memory once, W rows at a time. */
static void product(float *z, long z_width, const num *m, long length, long rows, const factor *s, long s_width,
                    long columns, struct ahead *ahead) {
    part lanes = first(length % STEP);
    int lines = 2 * (ahead->end - ahead->at) / 64 / rows + 1; /* for every two rows */
    for (long i = 0; i < rows; i += W) {
        long c = 0;
        for (; c + W / 4 <= columns && columns > 1; c += W / 4)
            for (long r = i; r < least(i + W, rows); r += 4) {
                if (!c) ask(ahead, 2 * lines);
                wide(z + c * z_width + r, z_width, m + r * length, length, rows - 1 - r, s + c * s_width, s_width, lanes);
            }
        for (; c < columns; c++)
            tall(z + c * z_width + i, m + i * length, length, rows - 1 - i, s + c * s_width, lanes, ahead, lines);
    }
}

/* Packed M (side, side) from its rows. */
void pack(num *to, const num *m, int64_t side) {
    for (long j = 0; j < side; j += PAIR)
        for (long i = 0; i < side; i++)
            for (long n = 0; n < PAIR; n++) *to++ = j + n < side ? m[i * side + j + n] : 0;
}

/* `width` vectors of z in each of `columns` columns, from packed numbers `m_width` apart. */
static inline __attribute__((always_inline)) void tile(const int width, const int columns, float *z, long z_width,
                                                       const num *m, long m_width, long pairs, const factor *s,
                                                       long s_width, struct ahead *ahead, int lines) {
    vec sum[32] = {{0}};
    for (long j = 0; j < pairs; j++) {
        ask(ahead, lines);
        UNROLLED for (int c = 0; c < columns; c++)
            UNROLLED for (int v = 0; v < width; v++)
                sum[c * width + v] = add_pair(sum[c * width + v], m + j * m_width + v * W * PAIR, s + c * s_width + j * PAIR);
    }
    UNROLLED for (int c = 0; c < columns; c++)
        UNROLLED for (int v = 0; v < width; v++) store(z + c * z_width + v * W, sum[c * width + v]);
}

/* The largest tile of so many columns whose sums stay in registers. */
enum { REGISTERS = W == 16 ? 30 : 14, MOST_COLUMNS = 6, MOST_WIDTH = 12 };

static void any_tile(int width, int columns, float *z, long z_width, const num *m, long m_width, long pairs,
                     const factor *s, long s_width, struct ahead *ahead, int lines) {
#define TILE(w, c)                                                                    \
    case c * 16 + w: tile(w, c, z, z_width, m, m_width, pairs, s, s_width, ahead, lines); return;
#define UP_TO_4(c) TILE(1, c) TILE(2, c) TILE(3, c) TILE(4, c)
    switch (columns * 16 + width) {
        UP_TO_4(1) TILE(5, 1) TILE(6, 1) TILE(7, 1) TILE(8, 1) TILE(9, 1) TILE(10, 1) TILE(11, 1) TILE(12, 1)
        UP_TO_4(2) TILE(5, 2) TILE(6, 2) TILE(7, 2) TILE(8, 2) TILE(9, 2) TILE(10, 2)
        UP_TO_4(3) TILE(5, 3) TILE(6, 3) TILE(7, 3)
        UP_TO_4(4) TILE(5, 4) TILE(6, 4)
        UP_TO_4(5) TILE(5, 5)
        UP_TO_4(6)
    }
}

/* z[c][i] = Σ_j M[i][j] s[c][j] for i from `from` to `to`, and for up to a vector more that mean nothing. */
static void packed_product(float *z, long z_width, const num *m, long side, long from, long to, const factor *s,
                           long s_width, long columns, struct ahead *ahead) {
    long pairs = up(side, PAIR) / PAIR, vectors = up(to - from, W) / W;
    long some = part_of(columns, MOST_COLUMNS), width = part_of(vectors, least(REGISTERS / (some + 1), MOST_WIDTH));
    long steps = pairs * parts(columns, some) * parts(vectors, width);
    int lines = parts((ahead->end - ahead->at) / 64, steps);
    for (long c = 0; c < columns; c += some)
        for (long v = 0; v < vectors; v += width) {
            /* The last tiles may do some of another's again. */
            long column = least(c, columns - some), at = from + least(v, vectors - width) * W;
            any_tile(width, some, z + column * z_width + at, z_width, m + at * PAIR, side * PAIR, pairs,
                     s + column * s_width, s_width, ahead, lines);
        }
}
