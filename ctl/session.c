#include "ctl/session.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "proto/format.h"

#define CONNECT_MS   10000
#define RETRY_MS_MIN 100
#define RETRY_MS_MAX 2000

void session_init(struct session *s, const char *server, int64_t timeout_ms, FILE *errors)
{
    const char *env = getenv("DS_SERVER");
    *s = (struct session){.timeout_ms = timeout_ms, .errors = errors};
    s->address = server != NULL               ? server
                 : env != NULL && env[0] != 0 ? env
                                              : SESSION_DEFAULT_SERVER;
}

static void drop(struct session *s)
{
    client_destroy(s->client);
    s->client = NULL;
}

void session_fini(struct session *s)
{
    drop(s);
}

/* "cannot connect to ADDRESS: why (is it running?)" -> "why", so that the line says each thing
 * once. */
static void reword(const struct session *s, int64_t waited_ms, struct err *err)
{
    if (err != NULL && err->code == ERR_TIMEOUT) {
        struct buf waited = {0};
        format_duration(&waited, waited_ms);
        err_set(err, ERR_TIMEOUT,
                "no answer from the coordinator at %s within %s (--timeout gives it longer)",
                s->address, buf_cstr(&waited));
        buf_fini(&waited);
    }
    if (err == NULL || err->code != ERR_UNREACHABLE) {
        return;
    }
    struct err cause = *err;
    char *why = strstr(cause.text, s->address);
    why = why != NULL ? why + strlen(s->address) : cause.text;
    why += strncmp(why, ": ", 2) == 0 ? 2 : 0;
    char *advice = strstr(why, " (");
    if (advice != NULL) {
        *advice = 0;
    }
    err_set(err, ERR_UNREACHABLE,
            "cannot reach the coordinator at %s: %s (start dsd, or set --server/DS_SERVER)",
            s->address, why);
}

static int connect_if_needed(struct session *s, int64_t timeout_ms, struct err *err)
{
    if (s->client != NULL) {
        return 0;
    }
    int64_t limit = timeout_ms > 0 && timeout_ms < CONNECT_MS ? timeout_ms : CONNECT_MS;
    int rc = client_connect(&s->client, s->address, "dsctl", limit, err);
    if (rc == ERR_TIMEOUT || rc == ERR_UNREACHABLE) {
        s->lost = true;
        reword(s, limit, err);
        return rc;
    }
    TRY(rc);
    const Ds__HelloReply *server = client_server(s->client);
    log_debug("connected to cluster %s at %s, version %s, term %" PRIu64, server->cluster,
              s->address, server->version, server->term);
    return 0;
}

int session_open(struct session *s, struct err *err)
{
    return connect_if_needed(s, s->timeout_ms, err);
}

int session_call_within(struct session *s, uint16_t method, const void *request, void *reply,
                        int64_t timeout_ms, struct err *err)
{
    ProtobufCMessage *message = NULL;
    int64_t start_ms = clock_boot_ms();
    uint64_t id = 0;
    int outcome = 0;
    memcpy(reply, &message, sizeof message);
    s->lost = false;
    TRY(connect_if_needed(s, timeout_ms, err));
    int rc = client_send(s->client, method, request, &id, err);
    if (rc == ERR_TOO_LARGE) {
        return rc;
    }
    if (rc == 0) {
        rc = client_receive(s->client, &id, &message, &outcome, timeout_ms, err);
    }
    if (rc != 0) {
        /* A late reply must not be taken for the next one's. */
        s->lost = true;
        drop(s);
        reword(s, timeout_ms, err);
        return rc;
    }
    memcpy(reply, &message, sizeof message);
    log_debug("%s: %s after %" PRId64 " ms", rpc_find(method)->name, err_text(outcome),
              clock_boot_ms() - start_ms);
    return outcome;
}

int session_call(struct session *s, uint16_t method, const void *request, void *reply,
                 struct err *err)
{
    int64_t timeout_ms = s->timeout_ms > 0 ? s->timeout_ms : rpc_find(method)->deadline_ms;
    return session_call_within(s, method, request, reply, timeout_ms, err);
}

int session_call_patiently(struct session *s, uint16_t method, const void *request, void *reply,
                           int64_t timeout_ms, int64_t give_up_ms, struct err *err)
{
    int64_t pause_ms = RETRY_MS_MIN;
    bool said = false;
    for (;;) {
        int rc = session_call_within(s, method, request, reply, timeout_ms, err);
        if (!s->lost) {
            if (said) {
                fprintf(s->errors, "dsctl: the coordinator is back\n");
            }
            return rc;
        }
        int64_t left = give_up_ms < 0 ? INT64_MAX : give_up_ms - clock_boot_ms();
        if (left <= 0) {
            return rc;
        }
        if (!said) {
            fprintf(s->errors, "dsctl: no answer from the coordinator at %s, trying again\n",
                    s->address);
            said = true;
        }
        clock_sleep_ms(pause_ms < left ? pause_ms : left);
        pause_ms = pause_ms * 2 < RETRY_MS_MAX ? pause_ms * 2 : RETRY_MS_MAX;
    }
}
