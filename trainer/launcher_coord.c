#include "trainer/launcher_coord.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/buf_json.h"
#include "lib/clock.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "proto/manifest.h"
#include "proto/rpc.h"
#include "report/lines.h"

#define CONNECTIONS_EXTRA                                                                          \
    8 /* a rank that reconnects before its old connection was seen to close                        \
       */

struct connection {
    int fd; /* -1: free */
    bool greeted;
    struct buf in, out;
};
struct entry {
    char *key;
    struct buf value;
};
struct waiter { /* a STORE_GET for a key that is not there yet */
    size_t connection;
    uint64_t request_id;
    int64_t deadline_ms;
    char *key;
};
struct save { /* a checkpoint whose shards come in */
    uint64_t step;
    uint32_t have;
    bool committed;
    struct manifest manifest;
};

struct coord {
    struct coord_options o;
    int listen_fd, metrics_fd;
    struct connection *connections;
    size_t connection_count;
    struct entry *entries;
    size_t entry_count, entry_capacity;
    struct waiter *waiters;
    size_t waiter_count, waiter_capacity;
    struct save *saves;
    size_t save_count, save_capacity;
    bool metrics_failed;
    uint64_t metric_step; /* the newest written: repeats are dropped */
    struct err *err;      /* of coord_handle */
};

/* ---- life */

int coord_create(struct coord **out, const struct coord_options *options, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct coord *c = mem_alloc(sizeof *c);
    c->o = *options;
    c->o.socket_path = mem_strdup(options->socket_path);
    c->o.ckpt_dir = mem_strdup(options->ckpt_dir);
    c->o.metrics_path = mem_strdup(options->metrics_path);
    c->connection_count = options->world + CONNECTIONS_EXTRA;
    c->connections = mem_alloc_array(c->connection_count, sizeof *c->connections);
    for (size_t i = 0; i < c->connection_count; i++) {
        c->connections[i].fd = -1;
    }
    c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int rc = lines_open(options->metrics_path, &c->metrics_fd, err);
    if (rc != 0) {
        /* said */
    } else if (strlen(options->socket_path) >= sizeof address.sun_path) {
        rc = err_set(err, ERR_CONFIG, "socket path too long: %s", options->socket_path);
    } else {
        snprintf(address.sun_path, sizeof address.sun_path, "%s", options->socket_path);
        if (c->listen_fd < 0 ||
            bind(c->listen_fd, (struct sockaddr *)&address, sizeof address) != 0 ||
            listen(c->listen_fd, 128) != 0) {
            rc = err_set_errno(err, "cannot listen on %s", options->socket_path);
        }
    }
    if (rc != 0) {
        coord_destroy(c);
        return rc;
    }
    *out = c;
    return 0;
}

static void close_connection(struct coord *c, size_t i)
{
    struct connection *x = &c->connections[i];
    close(x->fd);
    buf_fini(&x->in);
    buf_fini(&x->out);
    *x = (struct connection){.fd = -1};
    size_t kept = 0;
    for (size_t w = 0; w < c->waiter_count; w++) {
        if (c->waiters[w].connection == i) {
            free(c->waiters[w].key);
        } else {
            c->waiters[kept++] = c->waiters[w];
        }
    }
    c->waiter_count = kept;
}

void coord_destroy(struct coord *c)
{
    if (c == NULL) {
        return;
    }
    for (size_t i = 0; i < c->connection_count; i++) {
        if (c->connections[i].fd >= 0) {
            close_connection(c, i);
        }
    }
    for (size_t i = 0; i < c->entry_count; i++) {
        free(c->entries[i].key);
        buf_fini(&c->entries[i].value);
    }
    for (size_t i = 0; i < c->save_count; i++) {
        manifest_fini(&c->saves[i].manifest);
    }
    if (c->listen_fd >= 0) {
        close(c->listen_fd);
        unlink(c->o.socket_path);
    }
    if (c->metrics_fd >= 0) {
        close(c->metrics_fd);
    }
    free(c->connections);
    free(c->entries);
    free(c->waiters);
    free(c->saves);
    free((char *)c->o.socket_path);
    free((char *)c->o.ckpt_dir);
    free((char *)c->o.metrics_path);
    free(c);
}

/* ---- answers */

static void reply(struct coord *c, size_t i, const struct frame *f, const ProtobufCMessage *message)
{
    rpc_pack(&c->connections[i].out, f->method, FRAME_REPLY, f->request_id, message);
}

static void reply_empty(struct coord *c, size_t i, const struct frame *f)
{
    const Ds__Empty empty = DS__EMPTY__INIT;
    reply(c, i, f, &empty.base);
}

static void reply_error(struct coord *c, size_t i, const struct frame *f, const struct err *why)
{
    rpc_pack_error(&c->connections[i].out, f->method, f->request_id, why->code, why->text);
}

static void reply_value(struct coord *c, size_t i, uint64_t request_id, const struct buf *value)
{
    Ds__StoreValue message = DS__STORE_VALUE__INIT;
    message.value.data = value->data;
    message.value.len = value->len;
    rpc_pack(&c->connections[i].out, RPC_STORE_GET, FRAME_REPLY, request_id, &message.base);
}

static bool is_ours(const struct coord *c, uint64_t job, uint64_t epoch, struct err *why)
{
    if (job == c->o.job && epoch == c->o.epoch) {
        return true;
    }
    err_set(why, ERR_STALE, "job %" PRIu64 " epoch %" PRIu64 " is not run here", job, epoch);
    return false;
}

/* ---- the rendezvous store */

static const struct buf *store_find(const struct coord *c, const char *key)
{
    for (size_t i = 0; i < c->entry_count; i++) {
        if (strcmp(c->entries[i].key, key) == 0) {
            return &c->entries[i].value;
        }
    }
    return NULL;
}

static void store_set(struct coord *c, const Ds__StoreSet *m)
{
    struct buf *value = (struct buf *)store_find(c, m->key);
    if (value == NULL) {
        void *items = c->entries;
        mem_grow(&items, &c->entry_capacity, c->entry_count + 1, sizeof *c->entries);
        c->entries = items;
        c->entries[c->entry_count] = (struct entry){.key = mem_strdup(m->key)};
        value = &c->entries[c->entry_count++].value;
    }
    buf_reset(value);
    buf_append(value, m->value.data, m->value.len);
    size_t kept = 0;
    for (size_t w = 0; w < c->waiter_count; w++) {
        if (strcmp(c->waiters[w].key, m->key) == 0) {
            reply_value(c, c->waiters[w].connection, c->waiters[w].request_id, value);
            free(c->waiters[w].key);
        } else {
            c->waiters[kept++] = c->waiters[w];
        }
    }
    c->waiter_count = kept;
}

static void store_get(struct coord *c, size_t i, const struct frame *f, const Ds__StoreGet *m)
{
    const struct buf *value = store_find(c, m->key);
    if (value != NULL) {
        reply_value(c, i, f->request_id, value);
        return;
    }
    void *items = c->waiters;
    mem_grow(&items, &c->waiter_capacity, c->waiter_count + 1, sizeof *c->waiters);
    c->waiters = items;
    uint64_t wait_ms = m->wait_ms < 3600000 ? m->wait_ms : 3600000;
    c->waiters[c->waiter_count++] =
        (struct waiter){.connection = i,
                        .request_id = f->request_id,
                        .deadline_ms = clock_boot_ms() + (int64_t)wait_ms,
                        .key = mem_strdup(m->key)};
}

static void expire_waiters(struct coord *c)
{
    int64_t now = clock_boot_ms();
    size_t kept = 0;
    for (size_t w = 0; w < c->waiter_count; w++) {
        struct waiter *x = &c->waiters[w];
        if (x->deadline_ms > now) {
            c->waiters[kept++] = *x;
            continue;
        }
        char text[256];
        snprintf(text, sizeof text, "nobody set %.128s in time", x->key);
        rpc_pack_error(&c->connections[x->connection].out, RPC_STORE_GET, x->request_id,
                       ERR_TIMEOUT, text);
        free(x->key);
    }
    c->waiter_count = kept;
}

/* ---- steps and shards */

/* JSON has no NaN: text. */
static void put_double(struct buf *line, const char *key, double value)
{
    const char *quote = isfinite(value) ? "" : "\"";
    buf_printf(line, ",\"%s\":%s%.17g%s", key, quote, value, quote);
}

static void write_metric(struct coord *c, const Ds__Metric *m)
{
    if (m->step <= c->metric_step) {
        return; /* sent again because an acknowledgement was lost */
    }
    c->metric_step = m->step;
    struct buf line = {0};
    buf_printf(&line, "{\"step\":%" PRIu64 ",\"epoch\":%" PRIu64 ",\"tokens\":%" PRIu64, m->step,
               m->epoch, m->tokens);
    put_double(&line, "loss", m->loss);
    const struct {
        const char *key;
        protobuf_c_boolean there;
        double value;
    } rest[] = {
        {"mtp_loss", m->has_mtp_loss, m->mtp_loss},
        {"grad_norm", m->has_grad_norm, m->grad_norm},
        {"lr", m->has_lr, m->lr},
        {"tokens_per_s", m->has_tokens_per_s, m->tokens_per_s},
        {"balance_maxvio", m->has_balance_maxvio, m->balance_maxvio},
        {"valid_loss", m->has_valid_loss, m->valid_loss},
        {"valid_maxvio", m->has_valid_maxvio, m->valid_maxvio},
    };
    for (size_t i = 0; i < sizeof rest / sizeof rest[0]; i++) {
        if (rest[i].there) {
            put_double(&line, rest[i].key, rest[i].value);
        }
    }
    if (m->layer_maxvio != NULL) {
        buf_append_str(&line, ",\"layer_maxvio\":");
        buf_json_text(&line, m->layer_maxvio);
    }
    buf_printf(&line, ",\"step_ms\":%" PRIu64 "}\n", m->step_ms);
    struct err why = {0};
    if (file_write_all(c->metrics_fd, line.data, line.len, &why) != 0 && !c->metrics_failed) {
        c->metrics_failed = true; /* once is enough; a full disk may be freed again */
        log_warn("%s has gaps from step %" PRIu64 " on: %s", c->o.metrics_path, m->step, why.text);
    }
    buf_fini(&line);
}

static struct save *find_save(struct coord *c, uint64_t step)
{
    for (size_t i = 0; i < c->save_count; i++) {
        if (c->saves[i].step == step) {
            return &c->saves[i];
        }
    }
    void *items = c->saves;
    mem_grow(&items, &c->save_capacity, c->save_count + 1, sizeof *c->saves);
    c->saves = items;
    struct save *s = &c->saves[c->save_count++];
    *s = (struct save){
        .step = step,
        .manifest = {.job = c->o.job, .epoch = c->o.epoch, .step = step, .world_size = c->o.world}};
    s->manifest.shards = mem_alloc_array(c->o.world, sizeof *s->manifest.shards);
    return s;
}

static int publish(struct coord *c, struct save *s, struct err *err)
{
    char folder[PATH_MAX];
    struct buf text = {0};
    uint64_t bytes = 0;
    snprintf(folder, sizeof folder, "%s/step-%010" PRIu64, c->o.ckpt_dir, s->step);
    for (uint32_t i = 0; i < c->o.world; i++) {
        bytes += s->manifest.shards[i].bytes;
    }
    manifest_encode(&s->manifest, &text);
    int rc = manifest_publish(folder, buf_cstr(&text), text.len, err);
    buf_fini(&text);
    if (rc != 0) {
        return err_wrap(err, "cannot commit the checkpoint of step %" PRIu64, s->step);
    }
    s->committed = true;
    c->o.committed(c->o.ctx, s->step, bytes);
    return 0;
}

/* 0, or *why for the rank; *fatal when the run cannot go on. */
static int take_shard(struct coord *c, const Ds__ShardReport *m, bool *fatal, struct err *why)
{
    struct manifest_shard shard = {.rank = m->shard->rank, .bytes = m->shard->bytes};
    snprintf(shard.file, sizeof shard.file, "%s", m->shard->file);
    snprintf(shard.xxh3, sizeof shard.xxh3, "%s", m->shard->xxh3);
    snprintf(shard.sha256, sizeof shard.sha256, "%s", m->shard->sha256);
    if (m->world_size != c->o.world || shard.rank >= c->o.world) {
        return err_set(why, ERR_INVALID, "rank %u of %u reports a shard, this run has %u ranks",
                       shard.rank, m->world_size, c->o.world);
    }
    TRY(manifest_check_shard(&shard, why));
    char *layout = NULL;
    TRY(manifest_layout(m->layout, &layout, why));
    struct save *s = find_save(c, m->step);
    if (s->manifest.layout != NULL && strcmp(s->manifest.layout, layout) != 0) {
        free(layout);
        return err_set(why, ERR_INVALID, "rank %u reports another layout than the ranks before",
                       shard.rank);
    }
    free(s->manifest.layout);
    s->manifest.layout = layout;
    struct manifest_shard *slot = &s->manifest.shards[shard.rank];
    s->have += slot->file[0] == 0;
    if (!s->committed) {
        *slot = shard;
    }
    if (s->have < c->o.world || s->committed) {
        return 0;
    }
    int rc = publish(c, s, why);
    *fatal = rc != 0;
    return rc;
}

/* ---- requests */

static int dispatch(struct coord *c, size_t i, const struct frame *f,
                    const ProtobufCMessage *message)
{
    struct err why = {0};
    bool fatal = false;
    const Ds__RankHello *hello = (const Ds__RankHello *)message;
    const Ds__StepReport *steps = (const Ds__StepReport *)message;
    const Ds__ShardReport *shard = (const Ds__ShardReport *)message;
    const Ds__GuardReport *guard = (const Ds__GuardReport *)message;
    const Ds__StoreSet *set = (const Ds__StoreSet *)message;
    const Ds__StoreGet *get = (const Ds__StoreGet *)message;
    if (f->method != RPC_RANK_HELLO && !c->connections[i].greeted) {
        err_set(&why, ERR_PROTOCOL, "say RANK_HELLO first");
        reply_error(c, i, f, &why);
        return 0;
    }
    switch (f->method) {
    case RPC_RANK_HELLO:
        if (is_ours(c, hello->job, hello->epoch, &why)) {
            c->connections[i].greeted = true;
            reply_empty(c, i, f);
        }
        break;
    case RPC_STEP_REPORT:
        if (is_ours(c, steps->job, steps->epoch, &why)) {
            for (size_t k = 0; k < steps->n_metric; k++) {
                write_metric(c, steps->metric[k]);
            }
            reply_empty(c, i, f);
        }
        break;
    case RPC_SHARD_REPORT:
        if (is_ours(c, shard->job, shard->epoch, &why) && take_shard(c, shard, &fatal, &why) == 0) {
            reply_empty(c, i, f);
        }
        break;
    case RPC_GUARD_REPORT: /* it is in guard.jsonl */
        if (is_ours(c, guard->job, guard->epoch, &why)) {
            reply_empty(c, i, f);
        }
        break;
    case RPC_STORE_SET:
        if (is_ours(c, set->job, set->epoch, &why)) {
            store_set(c, set);
            reply_empty(c, i, f);
        }
        break;
    case RPC_STORE_GET:
        if (is_ours(c, get->job, get->epoch, &why)) {
            store_get(c, i, f, get);
        }
        break;
    default:
        err_set(&why, ERR_PROTOCOL, "method %u is not served here", f->method);
    }
    if (why.code != 0) {
        reply_error(c, i, f, &why);
    }
    return fatal ? err_set(c->err, why.code, "%s", why.text) : 0;
}

/* Handles the whole frames in the input. ERR_PROTOCOL: drop the connection. */
static int take_frames(struct coord *c, size_t i, bool *drop)
{
    struct connection *x = &c->connections[i];
    for (;;) {
        struct frame f;
        size_t used;
        struct err why = {0};
        int rc = frame_decode(x->in.data, x->in.len, FRAME_PAYLOAD_MAX, &f, &used, &why);
        if (rc == ERR_AGAIN) {
            return 0;
        }
        ProtobufCMessage *message = NULL;
        if (rc == 0 && f.kind != FRAME_REQUEST) {
            rc = err_set(&why, ERR_PROTOCOL, "a rank sent frame kind %d", (int)f.kind);
        }
        if (rc == 0) {
            rc = rpc_unpack(&f, &message, &why);
        }
        if (rc != 0) {
            log_warn("report socket: %s", why.text);
            *drop = true;
            return 0;
        }
        rc = dispatch(c, i, &f, message);
        rpc_free(message);
        buf_consume(&x->in, used);
        TRY(rc);
    }
}

/* ---- sockets */

static int receive(struct coord *c, size_t i)
{
    struct connection *x = &c->connections[i];
    bool drop = false;
    ssize_t got = read(x->fd, buf_reserve(&x->in, 65536), 65536);
    if (got > 0) {
        x->in.len += (size_t)got;
        TRY(take_frames(c, i, &drop));
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        drop = true;
    }
    if (drop) {
        close_connection(c, i);
    }
    return 0;
}

static void send_pending(struct coord *c, size_t i)
{
    struct connection *x = &c->connections[i];
    if (x->out.len == 0) {
        return;
    }
    ssize_t put = send(x->fd, x->out.data, x->out.len, MSG_NOSIGNAL);
    if (put > 0) {
        buf_consume(&x->out, (size_t)put);
    } else if (put < 0 && errno != EAGAIN && errno != EINTR) {
        close_connection(c, i);
    }
}

static void accept_connection(struct coord *c)
{
    int fd = accept4(c->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    for (size_t i = 0; fd >= 0 && i < c->connection_count; i++) {
        if (c->connections[i].fd < 0) {
            c->connections[i] = (struct connection){.fd = fd};
            return;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
}

size_t coord_poll_max(const struct coord *c)
{
    return c->connection_count + 1;
}

size_t coord_poll_fill(struct coord *c, struct pollfd *fds)
{
    size_t n = 0;
    fds[n++] = (struct pollfd){.fd = c->listen_fd, .events = POLLIN};
    for (size_t i = 0; i < c->connection_count; i++) {
        const struct connection *x = &c->connections[i];
        if (x->fd >= 0) {
            fds[n++] = (struct pollfd){.fd = x->fd,
                                       .events = (short)(POLLIN | (x->out.len > 0 ? POLLOUT : 0))};
        }
    }
    return n;
}

int coord_poll_timeout(const struct coord *c)
{
    int64_t next = -1;
    int64_t now = clock_boot_ms();
    for (size_t w = 0; w < c->waiter_count; w++) {
        int64_t left = c->waiters[w].deadline_ms > now ? c->waiters[w].deadline_ms - now : 0;
        next = next < 0 || left < next ? left : next;
    }
    return (int)next;
}

static size_t connection_of(const struct coord *c, int fd)
{
    size_t i = 0;
    while (i < c->connection_count && c->connections[i].fd != fd) {
        i++;
    }
    return i;
}

int coord_handle(struct coord *c, const struct pollfd *fds, size_t count, struct err *err)
{
    c->err = err;
    expire_waiters(c);
    for (size_t k = 0; k < count; k++) {
        if (fds[k].revents == 0) {
            continue;
        }
        if (fds[k].fd == c->listen_fd) {
            accept_connection(c);
            continue;
        }
        size_t i = connection_of(c, fds[k].fd);
        if (i < c->connection_count && (fds[k].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
            TRY(receive(c, i));
        }
    }
    for (size_t i = 0; i < c->connection_count; i++) {
        if (c->connections[i].fd >= 0) {
            send_pending(c, i);
        }
    }
    return 0;
}
