#include <stdlib.h>

#include "daemon/views_db.h"
#include "lib/hostlist.h"
#include "lib/mem.h"

static Ds__Reservation *read_reservation(sqlite3_stmt *stmt)
{
    Ds__Reservation *r = mem_alloc(sizeof *r);
    ds__reservation__init(r);
    r->id = views_u64(stmt, 0);
    r->kind = views_text(stmt, 1);
    r->state = views_text(stmt, 2);
    r->start_at = views_i64(stmt, 4);
    r->end_at = views_i64(stmt, 5);
    r->user = views_text(stmt, 6);
    r->account = views_text(stmt, 7);
    r->reason = views_text(stmt, 8);
    r->by = views_text(stmt, 9);
    r->created_at = views_i64(stmt, 10);
    r->has_ended_at = views_has(stmt, 11);
    r->ended_at = views_i64(stmt, 11);
    return r;
}

static int add_nodes(Ds__Reservation *r, const char *text, struct err *err)
{
    struct hostlist names = {0};
    int rc = hostlist_expand(&names, text, err);
    for (size_t i = 0; rc == 0 && i < names.count; i++) {
        views_push(&r->nodes, &r->n_nodes, mem_strdup(names.names[i]));
    }
    hostlist_fini(&names);
    return rc;
}

static int fill(struct views *v, bool all, Ds__ReservationList *list, struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(v,
                    "SELECT id, kind, state, nodes, start_ms, end_ms, user, account, reason, "
                    "by_user, created_ms, ended_ms FROM reservation"
                    " WHERE ?1 OR state IN ('PLANNED','ACTIVE') ORDER BY start_ms, id",
                    &stmt, err));
    sqlite3_bind_int(stmt, 1, all);
    for (;;) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            return 0;
        }
        Ds__Reservation *r = read_reservation(stmt);
        views_push(&list->items, &list->n_items, r);
        TRY(add_nodes(r, (const char *)sqlite3_column_text(stmt, 3), err));
    }
}

int views_reservation_list(struct views *v, bool all, Ds__ReservationList **out, struct err *err)
{
    Ds__ReservationList *list = mem_alloc(sizeof *list);
    ds__reservation_list__init(list);
    int rc = fill(v, all, list, err);
    if (rc != 0) {
        ds__reservation_list__free_unpacked(list, NULL);
        return rc;
    }
    *out = list;
    return 0;
}
