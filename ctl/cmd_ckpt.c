/* ckpt list, show, verify */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ckpts.h"
#include "ctl/cmd.h"
#include "ctl/outcome.h"
#include "lib/mem.h"
#include "proto/format.h"

int cmd_ckpt_list(struct ctl *ctl, struct buf *out, struct err *err)
{
    Ds__CkptListRequest request = DS__CKPT_LIST_REQUEST__INIT;
    Ds__CkptList *reply = NULL;
    if (ctl->args.word_count > 0) {
        request.has_job = 1;
        TRY(args_id(ctl->args.words[0], "job", &request.job, err));
    }
    TRY(session_call(&ctl->session, RPC_CKPT_LIST, &request, &reply, err));
    return output_list(&ctl->output, out, output_json(reply, "ds/ckpt-list/v1"), &ckpt_listing,
                       err);
}

int cmd_ckpt_show(struct ctl *ctl, struct buf *out, struct err *err)
{
    Ds__CkptId request = DS__CKPT_ID__INIT;
    Ds__Ckpt *reply = NULL;
    TRY(args_id(ctl->args.words[0], "ckpt", &request.id, err));
    TRY(session_call(&ctl->session, RPC_CKPT_SHOW, &request, &reply, err));
    return output_one(&ctl->output, out, output_json(reply, "ds/ckpt/v1"), &ckpt_listing, ckpt_page,
                      err);
}

/* ---- verify */

static void append_verdict(struct buf *out, const Ds__Ckpt *c)
{
    buf_printf(out, "checkpoint %" PRIu64 " (job %" PRIu64 ", step %" PRIu64 "): ok, ", c->id,
               c->job, c->step);
    format_bytes(out, c->bytes);
    buf_printf(out, " in %u shard%s read back\n", c->shards, c->shards == 1 ? "" : "s");
}

/* One checkpoint. Its line goes to stdout, or to stderr when it is not as it was written. */
static int verify(struct ctl *ctl, uint64_t id, json_t *items)
{
    Ds__CkptId request = DS__CKPT_ID__INIT;
    Ds__Ckpt *reply = NULL;
    struct err e = {0};
    request.id = id;
    int rc = session_call(&ctl->session, RPC_CKPT_VERIFY, &request, &reply, &e);
    if (rc != 0) {
        ctl_note(ctl, "cannot verify checkpoint %" PRIu64 ": %s", id, e.text);
        return rc;
    }
    if (strcmp(reply->state, "COMMITTED") != 0) {
        ctl_note(ctl, "checkpoint %" PRIu64 " (job %" PRIu64 ", step %" PRIu64 ") is %s: %s",
                 reply->id, reply->job, reply->step, reply->state,
                 reply->reason != NULL ? reply->reason : "it cannot be loaded");
        rc = ERR_FAILED;
    } else if (output_for_people(&ctl->output)) {
        struct buf line = {0};
        append_verdict(&line, reply);
        rc = ctl_write(ctl, &line, NULL);
    }
    json_array_append_new(items, output_json(reply, NULL));
    return rc;
}

static int verify_all(struct ctl *ctl, const uint64_t *ids, size_t count, struct err *err)
{
    json_t *list = json_pack("{s:s, s:[]}", "schema", "ds/ckpt-list/v1", "items");
    struct tally tally = {0};
    struct buf out = {0};
    int rc = 0;
    for (size_t i = 0; i < count; i++) {
        tally_add(&tally, verify(ctl, ids[i], json_object_get(list, "items")));
    }
    if (!output_for_people(&ctl->output)) {
        rc = output_list(&ctl->output, &out, json_incref(list), &ckpt_listing, err);
    }
    rc = rc != 0 ? rc : ctl_write(ctl, &out, err);
    json_decref(list);
    return rc != 0 ? rc : tally_result(&tally, err);
}

int cmd_ckpt_verify(struct ctl *ctl, struct err *err)
{
    const struct args *a = &ctl->args;
    uint64_t *ids = mem_alloc_array(a->word_count, sizeof *ids);
    int rc = 0;
    for (size_t i = 0; i < a->word_count && rc == 0; i++) {
        rc = args_id(a->words[i], "ckpt", &ids[i], err);
    }
    rc = rc != 0 ? rc : verify_all(ctl, ids, a->word_count, err);
    free(ids);
    return rc;
}
