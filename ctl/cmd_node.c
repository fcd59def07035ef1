/* node list, show, drain, resume */
#include <stdlib.h>
#include <string.h>

#include "ctl/cmd.h"
#include "ctl/nodes.h"
#include "ctl/outcome.h"
#include "ctl/text.h"
#include "lib/hostlist.h"
#include "lib/mem.h"

/* A name as people and -o name write it: n1 or node/n1. */
static const char *bare_name(const char *word)
{
    return strncmp(word, "node/", 5) == 0 ? word + 5 : word;
}

int cmd_node_list(struct ctl *ctl, struct buf *out, struct err *err)
{
    Ds__NodeListRequest request = DS__NODE_LIST_REQUEST__INIT;
    Ds__NodeList *reply = NULL;
    char *state = mem_strdup(args_get(&ctl->args, "state"));
    text_upper(state);
    request.state = state;
    int rc = session_call(&ctl->session, RPC_NODE_LIST, &request, &reply, err);
    free(state);
    TRY(rc);
    return output_list(&ctl->output, out, output_json(reply, "ds/node-list/v1"), &node_listing,
                       err);
}

int cmd_node_show(struct ctl *ctl, struct buf *out, struct err *err)
{
    Ds__NodeName request = DS__NODE_NAME__INIT;
    Ds__Node *reply = NULL;
    request.name = (char *)(uintptr_t)bare_name(ctl->args.words[0]);
    TRY(session_call(&ctl->session, RPC_NODE_SHOW, &request, &reply, err));
    return output_one(&ctl->output, out, output_json(reply, "ds/node/v1"), &node_listing, node_page,
                      err);
}

/* ---- drain, resume */

/* The arguments, host lists taken apart, sorted, each name once. */
static int expand_names(const struct args *a, struct hostlist *names, struct err *err)
{
    struct hostlist all = {0};
    struct buf text = {0};
    int rc = 0;
    for (size_t i = 0; i < a->word_count && rc == 0; i++) {
        rc = hostlist_expand(&all, bare_name(a->words[i]), err);
    }
    if (rc == 0) {
        hostlist_compress((const char *const *)all.names, all.count, &text);
        rc = hostlist_expand(names, buf_cstr(&text), err);
    }
    buf_fini(&text);
    hostlist_fini(&all);
    return rc;
}

static int drain(struct ctl *ctl, const struct hostlist *names, const char *reason,
                 json_t **outcomes, struct err *err)
{
    Ds__NodeDrain request = DS__NODE_DRAIN__INIT;
    Ds__NamedOutcomeList *reply = NULL;
    if (names->count > 1) {
        char *question = mem_printf("Drain %zu nodes?", names->count);
        int rc = ctl_confirm(ctl, question, err);
        free(question);
        TRY(rc);
    }
    request.name = names->names;
    request.n_name = names->count;
    request.reason = (char *)(uintptr_t)reason;
    TRY(session_call(&ctl->session, RPC_NODE_DRAIN, &request, &reply, err));
    *outcomes = output_json(reply, "ds/outcome-list/v1");
    return 0;
}

int cmd_node_drain(struct ctl *ctl, struct err *err)
{
    static const struct deed deed = {"node", "name", "draining", "drain"};
    const char *reason = args_get(&ctl->args, "reason");
    struct hostlist names = {0};
    json_t *outcomes = NULL;
    if (reason == NULL || reason[strspn(reason, " \t")] == 0) {
        return err_set(err, ERR_USAGE,
                       "node drain: why is missing (add --reason 'what is wrong with it')");
    }
    int rc = expand_names(&ctl->args, &names, err);
    if (rc == 0) {
        rc = drain(ctl, &names, reason, &outcomes, err);
    }
    hostlist_fini(&names);
    return rc != 0 ? rc : outcome_report(ctl, &deed, outcomes, err);
}

int cmd_node_resume(struct ctl *ctl, struct err *err)
{
    static const struct deed deed = {"node", "name", "resumed", "resume"};
    Ds__NodeNames request = DS__NODE_NAMES__INIT;
    Ds__NamedOutcomeList *reply = NULL;
    struct hostlist names = {0};
    int rc = expand_names(&ctl->args, &names, err);
    if (rc == 0) {
        request.name = names.names;
        request.n_name = names.count;
        rc = session_call(&ctl->session, RPC_NODE_RESUME, &request, &reply, err);
    }
    hostlist_fini(&names);
    return rc != 0 ? rc : outcome_report(ctl, &deed, output_json(reply, "ds/outcome-list/v1"), err);
}
