#include "trainer/rope.h"

#include <math.h>

static double mscale(double factor, double m)
{
    return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1;
}

/* The pair index that turns `rotations` times within the original context. */
static double correction(const struct model_config *c, double rotations)
{
    const double turn = 6.283185307179586;
    return c->qk_rope_head_dim *
           log(c->rope.original_max_position_embeddings / (rotations * turn)) /
           (2 * log(c->rope_theta));
}

/* Between the pairs that turn often (kept) and those that do not complete a turn (interpolated):
 * 0..1. */
static double interpolated_share(const struct model_config *c, size_t pair)
{
    double low = floor(correction(c, c->rope.beta_fast));
    double high = ceil(correction(c, c->rope.beta_slow));
    low = fmax(low, 0);
    high = fmin(high, c->qk_rope_head_dim - 1.0);
    if (low == high) {
        high += 0.001;
    }
    return fmin(fmax(((double)pair - low) / (high - low), 0), 1);
}

void rope_table(const struct model_config *c, size_t positions, float *table)
{
    size_t pairs = c->qk_rope_head_dim / 2;
    double magnitude = 1;
    if (c->rope.yarn) {
        bool both = c->rope.mscale != 0 && c->rope.mscale_all_dim != 0;
        magnitude = both ? mscale(c->rope.factor, c->rope.mscale) /
                               mscale(c->rope.factor, c->rope.mscale_all_dim)
                         : mscale(c->rope.factor, 1);
    }
    for (size_t i = 0; i < pairs; i++) {
        double frequency = 1 / pow(c->rope_theta, 2.0 * (double)i / c->qk_rope_head_dim);
        if (c->rope.yarn) {
            double share = interpolated_share(c, i);
            frequency = frequency / c->rope.factor * share + frequency * (1 - share);
        }
        for (size_t t = 0; t < positions; t++) {
            float angle = (float)t * (float)frequency;
            table[(t * pairs + i) * 2] = (float)(cos((double)angle) * magnitude);
            table[(t * pairs + i) * 2 + 1] = (float)(sin((double)angle) * magnitude);
        }
    }
}

double rope_softmax_scale(const struct model_config *c)
{
    double scale = 1 / sqrt((double)c->qk_nope_head_dim + c->qk_rope_head_dim);
    if (c->rope.yarn && c->rope.mscale_all_dim != 0) {
        double m = mscale(c->rope.factor, c->rope.mscale_all_dim);
        scale *= m * m;
    }
    return scale;
}
