#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/rpc.h"
#include "daemon/work.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "proto/manifest.h"

#define MANIFEST_BYTES_MAX (64u * 1024u * 1024u)

void rpc_ckpt_list(struct call *call, const ProtobufCMessage *request)
{
    struct err err = {0};
    Ds__CkptList *list = NULL;
    int rc = views_ckpt_list(call->dsd->views, (const Ds__CkptListRequest *)request, &list, &err);
    call_answer(call, rc, (ProtobufCMessage *)list, &err);
}

static void answer_ckpt(struct call *call, uint64_t id)
{
    struct err err = {0};
    Ds__Ckpt *ckpt = NULL;
    int rc = views_ckpt(call->dsd->views, id, true, &ckpt, &err);
    call_answer(call, rc, (ProtobufCMessage *)ckpt, &err);
}

void rpc_ckpt_show(struct call *call, const ProtobufCMessage *request)
{
    answer_ckpt(call, ((const Ds__CkptId *)request)->id);
}

/* ------------------------------------------------------------------ CKPT_VERIFY */

struct verify {
    struct work work;
    uint64_t id;
    char *path;   /* owned */
    char *sha256; /* owned; of the manifest, as committed */
    bool corrupt; /* the bytes were read and are wrong; text in work.err */
};

/* What says that the bytes are wrong, and not that they could not be read: only the former is held
 * against a checkpoint. */
static bool is_verdict(int code)
{
    return code == ERR_CORRUPT || code == ERR_NOT_FOUND || code == ERR_INVALID ||
           code == ERR_DATA || code == ERR_TOO_LARGE;
}

static int check_manifest(const struct verify *v, struct manifest *m, struct err *err)
{
    struct buf text = {0};
    char *file = mem_printf("%s/%s", v->path, MANIFEST_FILE);
    char sha256[65];
    int rc = file_read(file, MANIFEST_BYTES_MAX, &text, err);
    if (rc == 0) {
        manifest_digest_text(text.data, text.len, sha256);
        rc = strcmp(sha256, v->sha256) == 0
                 ? manifest_parse(m, (const char *)text.data, text.len, file, err)
                 : err_set(
                       err, ERR_CORRUPT,
                       "%s is not the manifest that was committed (sha256 %.16s..., not %.16s...)",
                       file, sha256, v->sha256);
    }
    buf_fini(&text);
    free(file);
    return rc;
}

static void verify_run(struct work *w)
{
    struct verify *v = (struct verify *)w;
    struct manifest m = {0};
    if (access(v->path, R_OK | X_OK) != 0) {
        w->rc =
            err_set_errno(&w->err, "cannot read the checkpoint in %s on the coordinator", v->path);
        return;
    }
    w->rc = check_manifest(v, &m, &w->err);
    if (w->rc == 0) {
        w->rc = manifest_verify(&m, v->path, 1, &w->err);
    }
    v->corrupt = is_verdict(w->rc);
    manifest_fini(&m);
}

static void verdict_done(struct call *call, const struct effect *reply)
{
    if (reply->u.reply.code != 0) {
        call_fail(call, reply->u.reply.code, "%s", reply->u.reply.text);
    } else {
        answer_ckpt(call, call->id);
    }
}

static void verify_finish(struct work *w)
{
    struct verify *v = (struct verify *)w;
    struct call *call = w->call;
    if (call->dsd->stopping) {
        call_fail(call, ERR_UNREACHABLE, "dsd is stopping");
    } else if (w->rc != 0 && !v->corrupt) {
        call_fail(call, w->rc, "%s (nothing was changed)", w->err.text);
    } else {
        struct input in = {.kind = INPUT_CKPT_VERIFIED};
        in.u.ckpt.ckpt = v->id;
        in.u.ckpt.ok = !v->corrupt;
        in.u.ckpt.text = v->corrupt ? w->err.text : NULL;
        call->id = v->id;
        call_commit(call, &in, verdict_done);
    }
    free(v->path);
    free(v->sha256);
    free(v);
}

static int check_verifiable(struct views *views, const Ds__Ckpt *ckpt, struct err *err)
{
    bool published;
    TRY(views_ckpt_published(views, ckpt->id, &published, err));
    if (strcmp(ckpt->state, "WRITING") == 0 || strcmp(ckpt->state, "DELETED") == 0 ||
        ckpt->sha256 == NULL) {
        return err_set(err, ERR_CONFLICT, "checkpoint %llu is %s: there is nothing to verify",
                       (unsigned long long)ckpt->id, ckpt->state);
    }
    if (!published) {
        return err_set(
            err, ERR_AGAIN,
            "checkpoint %llu was committed a moment ago, its manifest is not in place yet (try "
            "again)",
            (unsigned long long)ckpt->id);
    }
    return 0;
}

void rpc_ckpt_verify(struct call *call, const ProtobufCMessage *request)
{
    struct views *views = call->dsd->views;
    struct err err = {0};
    Ds__Ckpt *ckpt = NULL;
    int rc = views_ckpt(views, ((const Ds__CkptId *)request)->id, false, &ckpt, &err);
    if (rc == 0) {
        rc = check_verifiable(views, ckpt, &err);
    }
    if (rc != 0) {
        call_answer(call, rc, NULL, &err);
    } else {
        struct verify *v = mem_alloc(sizeof *v);
        v->id = ckpt->id;
        v->path = mem_strdup(ckpt->path);
        v->sha256 = mem_strdup(ckpt->sha256);
        work_start(&v->work, call, verify_run, verify_finish);
    }
    rpc_free((ProtobufCMessage *)ckpt);
}
