#include <stdlib.h>
#include <string.h>

#include "daemon/views_db.h"
#include "lib/mem.h"

#define NODE_COLUMNS                                                                               \
    "SELECT id, name, state, reason, by_user, since_ms, last_seen_ms, addr, version FROM node "

static int add_gpus(struct views *v, uint64_t node_id, Ds__Node *node, struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(v,
                    "SELECT idx, uuid, model, health, job_id, memory_bytes FROM gpu"
                    " WHERE node_id = ?1 AND present = 1 ORDER BY idx",
                    &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)node_id);
    for (;;) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            return 0;
        }
        Ds__Gpu *gpu = mem_alloc(sizeof *gpu);
        ds__gpu__init(gpu);
        views_push(&node->gpus, &node->n_gpus, gpu);
        gpu->index = (uint32_t)views_u64(stmt, 0);
        gpu->uuid = views_text(stmt, 1);
        gpu->model = views_text(stmt, 2);
        gpu->health = views_text(stmt, 3);
        gpu->has_job = views_has(stmt, 4);
        gpu->job = views_u64(stmt, 4);
        gpu->has_memory_bytes = 1;
        gpu->memory_bytes = views_u64(stmt, 5);
    }
}

static int read_node(struct views *v, sqlite3_stmt *stmt, Ds__Node *node, struct err *err)
{
    uint64_t id = views_u64(stmt, 0);
    node->name = views_text(stmt, 1);
    node->state = views_text(stmt, 2);
    node->reason = views_text(stmt, 3);
    node->by = views_text(stmt, 4);
    node->since = views_i64(stmt, 5);
    node->has_last_seen_at = 1;
    node->last_seen_at = views_i64(stmt, 6);
    node->addr = views_text(stmt, 7);
    node->version = views_text(stmt, 8);
    if (v->live.node != NULL) {
        node->has_connected = 1;
        node->connected = v->live.node(v->live.world, id, &node->last_seen_at);
    }
    return add_gpus(v, id, node, err);
}

static int fill_list(struct views *v, const Ds__NodeListRequest *request, Ds__NodeList *list,
                     struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(v, NODE_COLUMNS "WHERE ?1 IS NULL OR state = ?1 ORDER BY name", &stmt, err));
    sqlite3_bind_text(stmt, 1, request->state, -1, SQLITE_STATIC);
    for (;;) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            return 0;
        }
        Ds__Node *node = mem_alloc(sizeof *node);
        ds__node__init(node);
        views_push(&list->items, &list->n_items, node);
        TRY(read_node(v, stmt, node, err));
    }
}

int views_node_list(struct views *v, const Ds__NodeListRequest *request, Ds__NodeList **out,
                    struct err *err)
{
    Ds__NodeList *list = mem_alloc(sizeof *list);
    ds__node_list__init(list);
    int rc = views_begin(v, err);
    if (rc == 0) {
        rc = fill_list(v, request, list, err);
        views_end(v);
    }
    if (rc != 0) {
        ds__node_list__free_unpacked(list, NULL);
        return rc;
    }
    *out = list;
    return 0;
}

int views_node(struct views *v, const char *name, Ds__Node **out, struct err *err)
{
    sqlite3_stmt *stmt;
    bool row;
    TRY(views_query(v, NODE_COLUMNS "WHERE name = ?1", &stmt, err));
    sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC);
    TRY(views_step(v, stmt, &row, err));
    if (!row) {
        return err_set(err, ERR_NOT_FOUND, "there is no node '%.200s' (dsctl node list)", name);
    }
    Ds__Node *node = mem_alloc(sizeof *node);
    ds__node__init(node);
    int rc = read_node(v, stmt, node, err);
    sqlite3_reset(stmt);
    if (rc != 0) {
        ds__node__free_unpacked(node, NULL);
        return rc;
    }
    *out = node;
    return 0;
}
