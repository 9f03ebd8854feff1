/* The CPU kernel of `add_adapters_`: see geometry.py for the formula, slots.py for the words and the layout of a slot.
 *
 * Plain C over the vectors of vectors.h. All sums are in float32; where the processor multiplies bfloat16 itself,
 * compress(x) is rounded to bfloat16 first. y is rounded once.
 *
 * Decoding is bound by memory: a slot's numbers are read once for up to TOKENS tokens, and everything else stays in the
 * first caches. Loads may run over the end of a row by less than a vector: slots and scratch have room for that.
 */
#include <stdlib.h>

#include "products.h"

/* Tokens, and rows of tokens, that are computed together: as many as stay in the first cache. */
enum { TOKENS = 16, COLUMNS = 64 };

/* For Python, which unpacks what `pack` packed. */
const int pair = PAIR;

/* n numbers, or up to a vector more: each copy is written over by the next. */
static inline void copy(float *to, const float *from, long n) {
    for (long j = 0; j < n; j += W) store(to + j, load(from + j));
}

static void widen_all(float *to, const num *from, long n, struct ahead *ahead) {
    long j = 0;
    for (; j + W <= n; j += W) {
        ask(ahead, 1);
        store(to + j, widen(from + j));
    }
    if (j < n) {
        num rest[W] = {0};
        memcpy(rest, from + j, (n - j) * sizeof(num));
        store(to + j, widen(rest));
    }
}

/* y[i] += z[i mod period] for i < n; z goes on for W numbers more than it needs. */
static void add_all(num *y, const float *z, long n, long period, struct ahead *ahead) {
    long i = 0, at = 0, step = W % period;
    for (; i + W <= n; i += W) {
        ask(ahead, 1);
        narrow(y + i, widen(y + i) + load(z + at));
        at += step;
        if (at >= period) at -= period;
    }
    if (i < n) {
        num rest[W] = {0};
        memcpy(rest, y + i, (n - i) * sizeof(num));
        narrow(rest, widen(rest) + load(z + at));
        memcpy(y + i, rest, (n - i) * sizeof(num));
    }
}

/* n numbers of x as factors, filled up with zeros to a multiple of STEP. */
static void factors_of(factor *s, float *x, long n) {
    memset(x + n, 0, (up(n, STEP) - n) * sizeof(float));
    for (long j = 0; j < up(n, STEP); j += W) factors(s + j, load(x + j));
}

struct slots {
    int64_t k, d, inputs_start, inputs, outputs_start, outputs, count, capacity;
    const num *buffer;
    const int32_t *table;
    const float *const *turns; /* of each slot: cos, then sin, rows of up(side / 2, 16) */
};

struct run {
    int64_t slot, start, stop;
};

struct step {
    int64_t runs_count;
    const struct run *runs;
    const int64_t *order;
};

struct geometry {
    int32_t kind, side, blocks, rows, taken, written, inputs_grouped, outputs_grouped, rotated;
};

enum { EMPTY, MORA, LORA };

/* Scratch of a call, in one piece of memory that each thread keeps. */
struct scratch {
    float *x, *s, *z, *spread;
    factor *factors;
    int *column; /* row → its place among the rows that are computed, -1: it is not */
};

static _Thread_local void *memory;
static _Thread_local size_t memory_size;

/* 0: there is no memory. Room for 64 more numbers stands after each part. */
static int take(struct scratch *t, long x, long s, long z, long spread, long factors, long rows) {
    long sizes[6] = {x, s, z, spread, factors * (long)sizeof(factor) / 4 + 1, rows}, total = 0;
    for (int i = 0; i < 6; i++) total += sizes[i] = up(sizes[i] + 4 * 16, 16);
    if (memory_size < (size_t)total * 4) {
        free(memory);
        memory_size = 0;
        if (posix_memalign(&memory, 64, total * 4)) return memory = NULL, 0;
        memset(memory, 0, total * 4);
        memory_size = total * 4;
    }
    float *p = memory;
    t->x = p, p += sizes[0];
    t->s = p, p += sizes[1];
    t->z = p, p += sizes[2];
    t->spread = p, p += sizes[3];
    t->factors = (factor *)p, p += sizes[4];
    t->column = (int *)p;
    return 1;
}

/* `size` numbers in `side` contiguous groups, the first `size mod side` of them one longer. */
static inline long group_start(long j, long side, long size) { return j * (size / side) + least(j, size % side); }
static inline long group_of(long i, long side, long size) {
    long length = size / side, longer = size % side, cut = longer * (length + 1);
    return i < cut ? i / (length + 1) : longer + (i - cut) / length;
}

/* wrap(x)[0 : taken] of one token; what another process holds is zero. */
static void unwrap(float *to, const num *x, const struct slots *a, const struct geometry *g, struct ahead *ahead) {
    if (a->inputs == a->k) {
        widen_all(to, x, least(a->k, g->taken), ahead);
    } else {
        memset(to, 0, a->inputs_start * sizeof(float));
        widen_all(to + a->inputs_start, x, a->inputs, ahead);
        memset(to + a->inputs_start + a->inputs, 0, (a->k - a->inputs_start - a->inputs) * sizeof(float));
    }
    for (long filled = a->k; filled < g->taken; filled += least(filled, g->taken - filled))
        memcpy(to + filled, to, least(filled, g->taken - filled) * sizeof(float));
    if (!g->inputs_grouped) /* an unwrapped block is filled up */
        for (long p = g->taken; p < (long)g->blocks * g->side; p++) to[p] = 0;
}

/* `row` of compress(x), from wrap(x). */
static void compress_row(float *s, const float *x, const struct geometry *g, const float *turns, long size, int row) {
    long side = g->side, half = side / 2, padded = up(half, 16);
    if (g->inputs_grouped) {
        long length = size / side, longer = size % side;
        for (long j = 0; j < side; j++) {
            float sum = 0;
            for (long stop = length + (j < longer); stop > 0; stop--) sum += *x++;
            s[j] = sum;
        }
    } else if (!g->rotated) {
        for (long j = 0; j < side; j += W) {
            vec sum = load(x + row * side + j);
            for (long b = row + g->rows; b < g->blocks; b += g->rows) sum += load(x + b * side + j);
            store(s + j, sum);
        }
    } else {
        const float *cosines = turns, *sines = turns + g->blocks * padded;
        for (int second = 0; second < 2; second++)
            for (long j = 0; j < half; j += W) {
                vec sum = {0};
                for (long b = row; b < g->blocks; b += g->rows) {
                    vec u = load(x + b * side + j), v = load(x + b * side + half + j);
                    vec c = load(cosines + b * padded + j), d = load(sines + b * padded + j);
                    sum += second ? v * c + u * d : u * c - v * d;
                }
                store(s + second * half + j, sum);
            }
    }
}

/* decompress for outputs `start` to `stop` of one token, whose rows stand in z by `column`. Returns the period after
 * which `to` would repeat itself, and W numbers after which it ends. */
static long spread(float *to, const float *z, long z_width, const int *column, const struct geometry *g, long start,
                   long stop, long size) {
    long side = g->side, n = stop - start;
    if (g->outputs_grouped) {
        for (long j = group_of(start, side, size), i = start; i < stop; j++) {
            long end = least(stop, group_start(j + 1, side, size));
            vec value = z[j] - (vec){0};
            for (; i < end; i += W) store(to + i - start, value);
            i = end;
        }
        return n;
    }
    long flat = start % (g->rows * side), row = flat / side, offset = flat % side;
    n = least(n, g->rows * side);
    for (long i = 0; i < n + W; offset = 0, row = row + 1 < g->rows ? row + 1 : 0) {
        long piece = least(side - offset, n + W - i);
        if (column[row] >= 0)
            copy(to + i, z + column[row] * z_width + offset, piece);
        else
            memset(to + i, 0, piece * sizeof(float));
        i += piece;
    }
    return n;
}

/* Numbers the rows whose result is wanted and whose inputs this process holds; returns how many there are. */
static int choose_rows(int *column, const struct slots *a, const struct geometry *g, long start, long stop) {
    long side = g->side, flat = g->rows * side, from = a->inputs_start, to = from + a->inputs, count = 0;
    for (long row = 0; row < g->rows; row++) {
        int wanted = g->outputs_grouped || stop - start >= flat;
        if (!wanted) {
            long offset = (row * side - start % flat + flat) % flat; /* from the first wanted to this row's first */
            wanted = offset < stop - start || offset > flat - side;
        }
        int held = g->inputs_grouped || a->inputs == a->k;
        for (long b = row; b < g->blocks && !held; b += g->rows)
            held = (b * side < to && (b + 1) * side > from) || (b + 1) * side > a->k;
        column[row] = wanted && held ? count++ : -1;
    }
    return count;
}

static int add_mora(const struct slots *a, const struct geometry *g, const num *m, const float *turns,
                    const int64_t *order, long tokens, num *y, long y_width, const num *x, long x_width,
                    struct ahead *ahead) {
    long side = g->side, s_width = up(side, STEP), z_width = up(side, W);
    long start = a->outputs_start, stop = least(start + a->outputs, g->written);
    if (start >= stop) return 1;
    long columns = g->rows > COLUMNS ? g->rows : COLUMNS, x_size = a->k + (g->blocks + 1) * side;
    struct scratch t;
    if (!take(&t, x_size, side + STEP, columns * z_width, stop - start + W, columns * s_width, g->rows)) return 0;
    int rows = choose_rows(t.column, a, g, start, stop);
    if (!rows) return 1;

    long from = 0, to = side; /* rows of M: one run of them where the outputs need no more */
    if (g->outputs_grouped) {
        from = group_of(start, side, a->d);
        to = group_of(stop - 1, side, a->d) + 1;
    } else if (start % side + stop - start <= side) {
        from = start % side;
        to = from + stop - start;
    }

    long at_once = columns / rows < TOKENS ? columns / rows : TOKENS;
    for (; tokens > 0; tokens -= at_once, order += at_once) {
        long count = least(tokens, at_once);
        for (long n = 0; n < count; n++) {
            unwrap(t.x, x + order[n] * x_width, a, g, ahead);
            for (int row = 0; row < g->rows; row++)
                if (t.column[row] >= 0) {
                    compress_row(t.s, t.x, g, turns, a->k, row);
                    factors_of(t.factors + (n * rows + t.column[row]) * s_width, t.s, side);
                }
        }
        packed_product(t.z, z_width, m, side, from, to, t.factors, s_width, count * rows, ahead);
        for (long n = 0; n < count; n++) {
            long period = spread(t.spread, t.z + n * rows * z_width, z_width, t.column, g, start, stop, a->d);
            add_all(y + order[n] * y_width, t.spread, stop - start, period, ahead);
        }
    }
    return 1;
}

static int add_lora(const struct slots *a, long rank, const num *m, const int64_t *order, long tokens, num *y,
                    long y_width, const num *x, long x_width, struct ahead *ahead) {
    long k = a->inputs, d = a->outputs, s_width = up(k, STEP), z_width = up(rank, W);
    struct scratch t;
    if (!take(&t, k + STEP, 0, TOKENS * z_width, d, TOKENS * s_width, 0)) return 0;
    const num *B = m + rank * k;
    for (; tokens > 0; tokens -= TOKENS, order += TOKENS) {
        long count = least(tokens, TOKENS);
        for (long n = 0; n < count; n++) {
            widen_all(t.x, x + order[n] * x_width, k, ahead);
            factors_of(t.factors + n * s_width, t.x, k);
        }
        struct ahead half = {ahead->at, ahead->at + (ahead->end - ahead->at) / 2};
        product(t.z, z_width, m, k, rank, t.factors, s_width, count, &half);
        ahead->at = half.at;
        int lines = parts((ahead->end - ahead->at) / 64, parts(d, W) * count);
        for (long n = 0; n < count; n++) {
            for (long i = 0; i < d; i += W) {
                ask(ahead, lines);
                vec sum = {0};
                for (long j = 0; j < rank; j++) sum += t.z[n * z_width + j] * widen(B + j * d + i);
                store(t.spread + i, sum);
            }
            add_all(y + order[n] * y_width, t.spread, d, d, ahead);
        }
    }
    return 1;
}

static struct ahead next_slot(const struct slots *a, long slot) {
    if (slot >= a->count) return (struct ahead){(const char *)a->buffer, (const char *)a->buffer};
    const struct geometry *g = (const struct geometry *)a->table + slot;
    const num *m = a->buffer + slot * a->capacity;
    long size = g->side * (g->kind == LORA ? a->inputs + a->outputs : up(g->side, PAIR));
    return (struct ahead){(const char *)m, (const char *)(m + size)};
}

/* y[token] += adapter(x[token]) for each run of tokens; rows of y and x are `width` numbers apart. 0: there is
 * no memory for scratch. */
int add_adapters(const struct slots *a, const struct step *step, num *y, int64_t y_width, const num *x,
                 int64_t x_width) {
    for (long i = 0; i < step->runs_count; i++) {
        const struct run *run = step->runs + i;
        if (run->slot >= a->count) continue;
        const struct geometry *g = (const struct geometry *)a->table + run->slot;
        const num *m = a->buffer + run->slot * a->capacity;
        struct ahead ahead = next_slot(a, i + 1 < step->runs_count ? run[1].slot : a->count);
        const int64_t *order = step->order + run->start;
        long tokens = run->stop - run->start;
        if (g->kind == MORA &&
            !add_mora(a, g, m, a->turns[run->slot], order, tokens, y, y_width, x, x_width, &ahead))
            return 0;
        if (g->kind == LORA && !add_lora(a, g->side, m, order, tokens, y, y_width, x, x_width, &ahead)) return 0;
    }
    return 1;
}
