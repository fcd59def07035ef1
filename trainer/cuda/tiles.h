/* Where the tiles of grouped matrices lie: pure index arithmetic, the same on the host and in
 * kernels. Groups are consecutive runs of rows, group g being [offset[g], offset[g + 1]); some may
 * be empty. A row tile is up to 128 rows of one group, counted from the group's first row, so none
 * spans two groups. */
#ifndef TRAINER_CUDA_TILES_H
#define TRAINER_CUDA_TILES_H

#include <stdbool.h>
#include <stdint.h>

#include "trainer/fp8.h"

struct row_tile {
    uint32_t group;
    uint32_t first; /* row */
    uint32_t rows;  /* 1 to 128 */
    uint32_t start; /* the number of the group's first row tile */
};

NUMBER_FN uint32_t tiles_of(uint32_t rows)
{
    return (rows + FP8_TILE - 1) / FP8_TILE;
}

/* Row tile number `tile`, counted through all groups; false: there are fewer. */
NUMBER_FN bool tile_find(const uint32_t *offset, uint32_t groups, uint32_t tile, struct row_tile *t)
{
    uint32_t start = 0;
    for (uint32_t g = 0; g < groups; g++) {
        uint32_t rows = offset[g + 1] - offset[g], count = tiles_of(rows);
        if (tile < start + count) {
            uint32_t within = (tile - start) * FP8_TILE;
            t->group = g;
            t->first = offset[g] + within;
            t->rows = rows - within < FP8_TILE ? rows - within : FP8_TILE;
            t->start = start;
            return true;
        }
        start += count;
    }
    return false;
}

/* The most row tiles that `rows` rows in that many groups can come to: what a caller that does not
 * know the offsets reserves and launches for. */
NUMBER_FN uint32_t tiles_most(uint32_t rows, uint32_t groups)
{
    return rows / FP8_TILE + (groups < rows ? groups : rows);
}

/* ---- the walk of the grouped product over its output tiles of 128 x 128. Tiles are numbered group
 * by group; inside a group in bands of BAND row tiles, down the band first, so that blocks working
 * at the same time share operands in the cache. */

#define TILES_BAND 8

struct product_tile {
    uint32_t group, row, col; /* row and col count 128s inside the group's output */
};

/* Tile number `index` of an output whose group g has rows[g] row tiles (found by tiles_of from
 * offset when m == 0, else all m) and cols column tiles; false: there are fewer. */
NUMBER_FN bool product_tile_find(const uint32_t *offset, uint32_t groups, uint32_t m, uint32_t cols,
                                 uint32_t index, struct product_tile *t)
{
    for (uint32_t g = 0; g < groups; g++) {
        uint32_t rows = m != 0 ? m : tiles_of(offset[g + 1] - offset[g]);
        if (index >= rows * cols) {
            index -= rows * cols;
            continue;
        }
        uint32_t band = index / (TILES_BAND * cols), first = band * TILES_BAND;
        uint32_t high = rows - first < TILES_BAND ? rows - first : TILES_BAND;
        uint32_t within = index - first * cols;
        t->group = g;
        t->row = first + within % high;
        t->col = within / high;
        return true;
    }
    return false;
}

#endif
