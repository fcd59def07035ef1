#include "trainer/cursor.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

static uint64_t end_of(const struct skip *s)
{
    return s->first + s->count;
}

void cursor_fini(struct cursor *c)
{
    free(c->skips);
    *c = (struct cursor){0};
}

void cursor_skip(struct cursor *c, uint64_t first, uint64_t count)
{
    assert(count <= UINT64_MAX - first);
    if (count == 0) {
        return;
    }
    uint64_t end = first + count;
    size_t from = 0; /* those in [from, to) become one with the new range */
    while (from < c->skip_count && end_of(&c->skips[from]) < first) {
        from++;
    }
    size_t to = from;
    for (; to < c->skip_count && c->skips[to].first <= end; to++) {
        first = c->skips[to].first < first ? c->skips[to].first : first;
        end = end_of(&c->skips[to]) > end ? end_of(&c->skips[to]) : end;
    }
    void *grown = c->skips;
    mem_grow(&grown, &c->skip_capacity, c->skip_count + 1, sizeof *c->skips);
    c->skips = grown;
    memmove(c->skips + from + 1, c->skips + to, (c->skip_count - to) * sizeof *c->skips);
    c->skips[from] = (struct skip){first, end - first};
    c->skip_count = c->skip_count - (to - from) + 1;
}

uint64_t cursor_nth(const struct cursor *c, uint64_t n)
{
    uint64_t at = c->position;
    for (size_t i = 0; i < c->skip_count; i++) {
        const struct skip *s = &c->skips[i];
        if (end_of(s) <= at) {
            continue;
        }
        if (s->first > at) {
            if (n < s->first - at) {
                break;
            }
            n -= s->first - at;
        }
        at = end_of(s);
    }
    return at + n;
}

void cursor_advance(struct cursor *c, uint64_t n)
{
    c->position = n == 0 ? c->position : cursor_nth(c, n - 1) + 1;
}

uint64_t cursor_skipped(const struct cursor *c, uint64_t first, uint64_t count)
{
    uint64_t end = first + count;
    uint64_t sum = 0;
    for (size_t i = 0; i < c->skip_count; i++) {
        uint64_t low = c->skips[i].first > first ? c->skips[i].first : first;
        uint64_t high = end_of(&c->skips[i]) < end ? end_of(&c->skips[i]) : end;
        sum += high > low ? high - low : 0;
    }
    return sum;
}
