/* The layers of the model: what they hold, how they are built, run and differentiated. Inside the
 * model only.
 *
 * A layer is built by x_build, which runs twice (param.h): parameters come from the table, `keep`
 * memory holds what the backward pass needs, `scratch` memory is shared by layers that do not run
 * at the same time, `host` memory is for index arithmetic. x_forward writes its output; x_backward
 * takes the gradient of its output, writes (or adds, where said) that of its input and adds to the
 * parameters' gradients.
 *
 * Gradients of activations are those of the summed loss; ctx.grad_scale comes in where parameter
 * gradients are accumulated. So what FP8 rounds does not depend on the size of the global batch. */
#ifndef TRAINER_LAYER_H
#define TRAINER_LAYER_H

#include "trainer/later.h"
#include "trainer/param.h"

/* A batch of sequences, one row a token. */
struct shape {
    size_t batch, seq, rows; /* rows = batch * seq */
};

struct ctx {
    const struct op_table *op;
    const struct model_config *config;
    struct recipe recipe;
    struct comm *comm;      /* the expert group */
    struct overlap *beside; /* owned by the model; where that is more than one rank */
    float grad_scale;       /* of parameter gradients */
    float balance_scale;    /* of the balance loss in the summed loss */
    double balance;         /* sum of balance losses of this pass, without alpha */
    bool count_load;
    struct later *later; /* gradients of weights are put off to there; NULL: not put off */
    float *operand_dy, *operand_x; /* rounded operands of one product */
    const float *rope;             /* table of positions */
    float softmax_scale;
};

struct builder {
    const struct model_config *config;
    const struct mesh *mesh;
    struct params *params;
    struct arena *keep, *scratch, *host;
    struct recipe recipe;
    const struct op_table *op;
    struct shape shape;           /* the largest */
    size_t sequences;             /* the most that its rows are cut into; 0: shape.batch */
    size_t operand_dy, operand_x; /* floats: the most any product needs */
};

/* ---- layer_linear.c: the precision recipe */

/* A stored activation: rounded where the recipe's rest is BF16. */
void store(const struct ctx *c, struct mat y);
/* The grid of what was stored, and then stored as `format`. */
enum op_format recipe_stored(const struct recipe *r, enum precision format,
                             enum recipe_scale scale);
/* Whether storing as `format` changes what store() left: not BF16 where the rest is BF16. */
bool recipe_rounds(const struct recipe *r, enum precision format);
/* y = x on the grid of a format, FP8 in 1x128 tiles; in place allowed. Nothing to do where
 * recipe_rounds says no. */
void store_as(const struct ctx *c, enum precision format, enum recipe_scale scale, struct mat x,
              struct mat y);
/* Whether what was dispatched is the operand of the experts' products as it is. */
bool recipe_sends_operand(const struct recipe *r, enum precision product, enum recipe_tile tile);

/* Whether l multiplies something else than x as it was stored. */
bool linear_rounds_input(const struct recipe *r, const struct linear *l);
/* operand = x as l multiplies it in Fprop; in place allowed; nothing to do where x is its own
 * operand. */
void linear_round(const struct ctx *c, const struct linear *l, struct op_groups groups,
                  struct mat x, struct mat operand);
/* x becomes what is kept of it for Wgrad: Fprop's operand, or itself. */
void linear_keep(const struct ctx *c, const struct linear *l, struct op_groups groups,
                 struct mat x);
/* Of x as kept, Fprop's operand: x itself, or memory that the next call uses again. */
struct mat linear_kept_operand(const struct ctx *c, const struct linear *l, struct op_groups groups,
                               struct mat x);
/* The grid of x as kept; `stored`: that of x before. */
enum op_format linear_kept_format(const struct recipe *r, const struct linear *l,
                                  enum op_format stored);
/* linear_keep, then linear_kept_operand. */
struct mat linear_operand(const struct ctx *c, const struct linear *l, struct op_groups groups,
                          struct mat x);
/* x: the operand. */
void linear_forward(const struct ctx *c, const struct linear *l, struct op_groups groups,
                    struct mat x, struct mat y);
void linear_backward_input(const struct ctx *c, const struct linear *l, struct op_groups groups,
                           struct mat dy, struct mat dx, bool add);
/* x: as kept. */
void linear_backward_weight(const struct ctx *c, const struct linear *l, struct op_groups groups,
                            struct mat dy, struct mat x);
/* Notes how much operand memory l needs at this many rows. */
void linear_reserve(struct builder *b, const struct linear *l, size_t rows);
/* One group of all rows: offset is the caller's two places. */
struct op_groups one_group(size_t rows, size_t offset[2]);

/* ---- layer_kept.c: what is kept for the backward pass */

/* A matrix on a grid coarser than FP32 is kept as codes, and its numbers share scratch with other
 * layers' while they are used. */
struct kept {
    enum op_format format; /* OP_F32: kept as numbers */
    size_t parts;          /* of its columns, equal: no tile spans two */
    struct mat full;       /* the numbers; keep or scratch */
    struct mat codes;      /* keep; absent where numbers are kept */
};
void kept_build(struct kept *k, struct builder *b, enum op_format format, size_t parts, size_t rows,
                size_t cols);
/* At the end of the forward pass: the first rows of `full`, which are on the grid. */
void kept_pack(const struct ctx *c, const struct kept *k, size_t rows);
/* At the beginning of the backward pass: those rows again, to the bit, in `full`. */
struct mat kept_unpack(const struct ctx *c, const struct kept *k, size_t rows);

/* ---- layer_mla.c: multi-head latent attention */

struct mla {
    struct linear a; /* q_a (or, without compression, q) and kv_a with the shared rotary key */
    struct linear q_b, kv_b, o;
    struct vector q_norm, kv_norm;
    struct mat latent;      /* keep: output of a */
    struct mat q_in, kv_in; /* normed latents; keep, or scratch and recomputed */
    float *q_rstd, *kv_rstd, *lse;
    struct mat q, k, kv; /* keep, or scratch and recomputed */
    struct kept out;
    struct mat dout, dq, dk, dkv, dlatent, dnormed; /* scratch */
    float *attention;
};
void mla_build(struct mla *m, struct builder *b, const char *prefix);
/* x: normed; left as kept. */
void mla_forward(const struct ctx *c, struct mla *m, struct shape s, struct mat x, struct mat y);
/* x: as kept. */
void mla_backward(const struct ctx *c, struct mla *m, struct shape s, struct mat x, struct mat dy,
                  struct mat dx);

/* ---- layer_ffn.c: SwiGLU, dense or one per expert */

struct ffn {
    struct linear gate_up, down;
    bool x_is_operand; /* input comes as gate_up multiplies it */
    struct kept gu;
    struct mat act;            /* keep, or scratch and recomputed */
    struct mat dact, dgu, out; /* scratch */
};
/* experts 0: one plain FFN named prefix + {gate,up,down}_proj.weight; else prefix + "N." for
 * experts [first, first + experts). */
void ffn_build(struct ffn *f, struct builder *b, const char *prefix, size_t rows, uint32_t width,
               uint32_t first, uint32_t experts);
/* x: left as kept. */
void ffn_forward(const struct ctx *c, struct ffn *f, struct op_groups groups, struct mat x,
                 struct mat y);
void ffn_backward(const struct ctx *c, struct ffn *f, struct op_groups groups, struct mat x,
                  struct mat dy, struct mat dx, bool add);
/* The same in two parts: dx, then gradients of weights, before f is used again. */
void ffn_backward_input(const struct ctx *c, struct ffn *f, struct op_groups groups, struct mat dy,
                        struct mat dx, bool add);
void ffn_backward_weight(const struct ctx *c, struct ffn *f, struct op_groups groups, struct mat x,
                         struct mat dy);

/* ---- layer_moe.c: routed and shared experts, over the ranks of the expert group */

enum shared_source { SHARED_STORED, SHARED_SENT, SHARED_OWN };

/* One all-to-all. */
struct transfer {
    struct comm *comm;
    const float *from;
    float *to;
    size_t row_bytes;
    bool counts; /* they are exchanged first */
    bool back;   /* from the experts */
};

struct moe {
    struct op_router spec;
    struct linear gate;
    struct ffn routed, shared;
    bool has_shared;
    struct router *router;   /* borrowed: bias and load */
    const struct mesh *mesh; /* borrowed */
    uint32_t experts, local; /* all, and on this rank */
    uint32_t top_k;
    /* keep */
    float *bias, *weight, *fraction; /* fraction: per sequence, of the balance loss */
    int32_t *expert;
    struct mat scores;
    uint32_t *place;                /* of each pair, sorted by expert */
    enum shared_source shared_from; /* the shared experts' input */
    struct mat outgoing;  /* as dispatched; keep, or scratch and recomputed; may be absent */
    struct mat shared_in; /* the same, where it is another than that and the stored one */
    struct kept x_rows;   /* input of the local experts */
    struct kept y_rows;   /* their output for this rank's pairs, in sorted order; in the backward
                             pass its gradient */
    uint32_t *from, *to;  /* arrival <-> merged order */
    /* scratch */
    struct mat logits, dx_rows, sorted, arrived, merged, packed;
    uint32_t *token;
    float *dweight, *loss;
    /* host */
    int32_t *host_expert;
    uint32_t *host_place, *host_token, *host_from, *host_to;
    uint32_t *sent, *received; /* rows: [experts], [ranks * local] */
    size_t *offset;            /* of each local expert's rows, [local + 1] */
    struct transfer transfer;  /* under way */
    size_t *rows_out, *rows_in, *bytes_out, *bytes_in; /* of an all-to-all, [ranks] */
};
void moe_build(struct moe *m, struct builder *b, const char *prefix, struct router *router);
int moe_forward(struct ctx *c, struct moe *m, struct shape s, struct mat x, struct mat y,
                struct err *err);
/* dy is used up. */
int moe_backward(struct ctx *c, struct moe *m, struct shape s, struct mat x, struct mat dy,
                 struct mat dx, struct err *err);

/* ---- layer_exchange.c: rows between the ranks of the tokens and those of the experts. What is
 * begun must be awaited before the next is begun. */

/* Rows of all tokens go to their experts, sorted; row counts go before them. They arrive in
 * m->x_rows.full. */
void exchange_tokens(const struct ctx *c, struct moe *m, struct mat x);
int exchange_tokens_arrived(const struct ctx *c, struct moe *m, size_t *rows, struct err *err);
/* The same ways for gradients of sorted rows, which arrive in `merged`. */
void exchange_gradients(const struct ctx *c, struct moe *m, struct mat sorted);
int exchange_gradients_arrived(const struct ctx *c, struct moe *m, struct mat merged,
                               struct err *err);
/* Rows go back, and come out in `sorted`: of the forward pass, or gradients. */
void exchange_return(const struct ctx *c, struct moe *m, struct mat merged, struct mat sorted,
                     bool forward);
int exchange_returned(const struct ctx *c, struct moe *m, struct mat sorted, bool forward,
                      struct err *err);

/* ---- layer_block.c: one decoder layer */

struct block {
    bool is_moe;
    struct vector input_norm, post_norm;
    struct mla mla;
    struct ffn ffn;
    struct moe moe;
    struct mat x;            /* keep: the input, written by whoever is before */
    struct mat middle;       /* keep */
    struct mat normed, post; /* keep, or scratch and recomputed */
    float *input_rstd, *post_rstd;
    struct mat y, dnormed; /* scratch */
};
void block_build(struct block *k, struct builder *b, uint32_t layer, struct router *router);
int block_forward(struct ctx *c, struct block *k, struct shape s, struct mat out, struct err *err);
/* d: gradient of the output in, of the input out. */
int block_backward(struct ctx *c, struct block *k, struct shape s, struct mat d, struct err *err);

/* ---- layer_head.c: output head and loss, a few rows of logits at a time */

struct head {
    struct linear *lm; /* borrowed: lm_head, or the embedding when tied */
    struct mat logits; /* scratch: some rows */
    float *loss;       /* scratch: of each row */
};
void head_build(struct head *h, struct builder *b, struct linear *lm);
/* The sum of the rows' losses. scale != 0: also dx = scale * gradient, and adds to the head's. */
double head_loss(const struct ctx *c, struct head *h, struct mat x, const int32_t *target,
                 float scale, struct mat dx);
void head_logits(const struct ctx *c, struct head *h, struct mat x, float *host_out);

/* ---- layer_mtp.c: one multi-token prediction module */

struct mtp {
    uint32_t depth; /* 1 and up: predicts this many tokens further than the main model */
    struct vector enorm, hnorm, norm;
    struct linear eh;
    struct block block;
    struct shape shape;
    int32_t *token, *target;                                /* keep */
    struct mat embedded, hidden, joined, out, normed, dout; /* keep */
    float *e_rstd, *h_rstd, *rstd;
    struct mat djoined, dembedded, dhidden; /* scratch */
};
void mtp_build(struct mtp *m, struct builder *b, uint32_t depth, struct router *router);
/* The model's shape is that of fewer tokens a sequence from here on, and no more rows. */
void mtp_set_shape(struct mtp *m, struct shape model);
/* previous [batch, seq + 1 rows each]: what the module before (or the main model) gives. */
int mtp_forward(struct ctx *c, struct mtp *m, const struct linear *embed, struct mat previous,
                struct err *err);
/* m->dout holds the gradient of m->out; adds to dprevious. */
int mtp_backward(struct ctx *c, struct mtp *m, const struct linear *embed, struct mat dprevious,
                 struct err *err);

#endif
