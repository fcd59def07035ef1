/* cuBLASLt is column-major: c^T = b^T a^T, so our b is its A and our a its B. An FP8 operand [rows,
 * k] is its [k, rows] column-major, A transposed: the one form Hopper has. */
#include "trainer/cuda/gemm.h"

#include <string.h>

#include <cublasLt.h>

#include "trainer/cuda/state.h"

#define PLANS_MAX 512

/* What a plan depends on. Compared as bytes: made of memset zeros. */
struct key {
    size_t m, n, k, batch, lda, ldb, ldc, stride_a, stride_b, stride_c;
    uint32_t type, c_type, flags, align_a, align_b, align_c;
};

struct plan {
    struct key key;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c; /* the library's a is our b */
    cublasLtMatmulAlgo_t algorithm;
};

static struct plan plans[PLANS_MAX];
static size_t plan_count;

#define TRY_LT(call)                                                                               \
    do {                                                                                           \
        cublasStatus_t status_ = (call);                                                           \
        if (status_ != CUBLAS_STATUS_SUCCESS) {                                                    \
            return GEMM_ERROR + (int)status_;                                                      \
        }                                                                                          \
    } while (0)

static uint32_t alignment(const void *p)
{
    uintptr_t low = (uintptr_t)p & (0 - (uintptr_t)p);
    return low == 0 || low > 256 ? 256 : (uint32_t)low;
}

static struct key key_of(const struct gemm *g)
{
    struct key k;
    memset(&k, 0, sizeof k);
    k.m = g->m;
    k.n = g->n;
    k.k = g->k;
    k.batch = g->batch;
    k.lda = g->a.ld;
    k.ldb = g->b.ld;
    k.ldc = g->ldc;
    k.stride_a = g->a.stride;
    k.stride_b = g->b.stride;
    k.stride_c = g->stride_c;
    k.type = g->type;
    k.c_type = g->c_type;
    k.flags = (g->a.transposed ? 1u : 0) | (g->b.transposed ? 2u : 0) | (g->beta != 0 ? 4u : 0) |
              (uint32_t)g->a.scale_kind << 3 | (uint32_t)g->b.scale_kind << 5;
    k.align_a = alignment(g->a.data);
    k.align_b = alignment(g->b.data);
    k.align_c = alignment(g->c);
    return k;
}

static cudaDataType_t data_type(enum gemm_type t)
{
    return t == GEMM_F32 ? CUDA_R_32F : t == GEMM_BF16 ? CUDA_R_16BF : CUDA_R_8F_E4M3;
}

static int layout(cublasLtMatrixLayout_t *l, enum gemm_type type, size_t rows, size_t cols,
                  size_t ld, size_t batch, size_t stride)
{
    int32_t count = (int32_t)batch;
    int64_t step = (int64_t)stride;
    TRY_LT(cublasLtMatrixLayoutCreate(l, data_type(type), rows, cols, (int64_t)ld));
    TRY_LT(cublasLtMatrixLayoutSetAttribute(*l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                            sizeof count));
    TRY_LT(cublasLtMatrixLayoutSetAttribute(*l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step,
                                            sizeof step));
    return 0;
}

static int set(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t what, const void *value,
               size_t bytes)
{
    TRY_LT(cublasLtMatmulDescSetAttribute(d, what, value, bytes));
    return 0;
}

static int set_scales(struct plan *p, const struct gemm *g)
{
    static const cublasLtMatmulMatrixScale_t modes[] = {
        [GEMM_SCALE_ROW] = CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F,
        [GEMM_SCALE_BLOCK] = CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F,
    };
    int rc = set(p->product, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &modes[g->b.scale_kind],
                 sizeof modes[0]);
    return rc != 0 ? rc
                   : set(p->product, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &modes[g->a.scale_kind],
                         sizeof modes[0]);
}

static int point_scales(const struct plan *p, const struct gemm *g)
{
    int rc = set(p->product, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &g->b.scale, sizeof(void *));
    return rc != 0
               ? rc
               : set(p->product, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &g->a.scale, sizeof(void *));
}

static int describe(struct plan *p, const struct gemm *g)
{
    bool fp8 = g->type == GEMM_FP8;
    /* what BLAS calls transposed, seen from column-major */
    cublasOperation_t op_a = g->b.transposed || fp8 ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t op_b = g->a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    size_t rows_a = op_a == CUBLAS_OP_T ? g->k : g->n, cols_a = op_a == CUBLAS_OP_T ? g->n : g->k;
    size_t rows_b = op_b == CUBLAS_OP_T ? g->m : g->k, cols_b = op_b == CUBLAS_OP_T ? g->k : g->m;
    TRY_LT(cublasLtMatmulDescCreate(&p->product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    int rc = set(p->product, CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof op_a);
    rc = rc != 0 ? rc : set(p->product, CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof op_b);
    if (rc == 0 && fp8) {
        rc = set_scales(p, g);
        rc = rc != 0 ? rc : point_scales(p, g); /* the choice below looks at their alignment */
    }
    rc = rc != 0 ? rc : layout(&p->a, g->type, rows_a, cols_a, g->b.ld, g->batch, g->b.stride);
    rc = rc != 0 ? rc : layout(&p->b, g->type, rows_b, cols_b, g->a.ld, g->batch, g->a.stride);
    return rc != 0 ? rc : layout(&p->c, g->c_type, g->n, g->m, g->ldc, g->batch, g->stride_c);
}

static int choose(struct plan *p)
{
    cublasLtMatmulPreference_t wish = NULL;
    cublasLtMatmulHeuristicResult_t best;
    int found = 0;
    TRY_LT(cublasLtMatmulPreferenceCreate(&wish));
    const struct {
        cublasLtMatmulPreferenceAttributes_t what;
        uint32_t value;
    } aligned[] = {
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, p->key.align_b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, p->key.align_a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, p->key.align_c},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, p->key.align_c},
    };
    cublasStatus_t status = cublasLtMatmulPreferenceSetAttribute(
        wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &cuda_state.workspace_bytes,
        sizeof cuda_state.workspace_bytes);
    for (size_t i = 0; i < sizeof aligned / sizeof aligned[0] && status == CUBLAS_STATUS_SUCCESS;
         i++) {
        status = cublasLtMatmulPreferenceSetAttribute(wish, aligned[i].what, &aligned[i].value,
                                                      sizeof aligned[i].value);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = cublasLtMatmulAlgoGetHeuristic(cuda_state.blaslt, p->product, p->a, p->b, p->c,
                                                p->c, wish, 1, &best, &found);
    }
    cublasLtMatmulPreferenceDestroy(wish);
    TRY_LT(status);
    if (found == 0) {
        return GEMM_ERROR + (int)CUBLAS_STATUS_NOT_SUPPORTED;
    }
    p->algorithm = best.algo;
    return 0;
}

static void plan_fini(struct plan *p)
{
    if (p->product != NULL) {
        cublasLtMatmulDescDestroy(p->product);
    }
    const cublasLtMatrixLayout_t layouts[] = {p->a, p->b, p->c};
    for (size_t i = 0; i < 3; i++) {
        if (layouts[i] != NULL) {
            cublasLtMatrixLayoutDestroy(layouts[i]);
        }
    }
    *p = (struct plan){0};
}

static int find_plan(const struct gemm *g, struct plan **found)
{
    struct key key = key_of(g);
    for (size_t i = 0; i < plan_count && i < PLANS_MAX; i++) {
        if (memcmp(&plans[i].key, &key, sizeof key) == 0) {
            *found = &plans[i];
            return 0;
        }
    }
    struct plan *p = &plans[plan_count % PLANS_MAX]; /* the oldest goes when all are in use */
    plan_fini(p);
    p->key = key;
    int rc = describe(p, g);
    rc = rc != 0 ? rc : choose(p);
    if (rc != 0) {
        plan_fini(p);
        return rc;
    }
    plan_count++;
    *found = p;
    return 0;
}

int gemm_run(const struct gemm *g)
{
    struct plan *p;
    if (g->m == 0 || g->n == 0) {
        return 0;
    }
    int rc = find_plan(g, &p);
    if (rc == 0 && g->type == GEMM_FP8) {
        rc = point_scales(p, g);
    }
    if (rc != 0) {
        return rc;
    }
    TRY_LT(cublasLtMatmul(cuda_state.blaslt, p->product, &g->alpha, g->b.data, p->a, g->a.data,
                          p->b, &g->beta, g->c, p->c, g->c, p->c, &p->algorithm,
                          cuda_state.workspace, cuda_state.workspace_bytes, cuda_state.stream));
    return 0;
}
