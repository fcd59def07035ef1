#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/worker/folder.h"
#include "worker/attempt_dir.h"
#include "worker/store_keep.h"

static void make_order(Ds__AttemptStart *order, uint32_t *gpus)
{
    static char text[] = "x";
    *order = (Ds__AttemptStart)DS__ATTEMPT_START__INIT;
    order->job = 12;
    order->epoch = 2;
    order->name = text;
    order->user = text;
    order->spec = text;
    order->workdir = text;
    order->world_size = 4;
    order->n_gpu_index = 2;
    order->gpu_index = gpus;
    order->master_addr = text;
    order->checkpoint_dir = text;
}

static void found(void *ctx, uint64_t job, uint64_t epoch)
{
    *(uint64_t *)ctx += job * 1000 + epoch;
}

/* An accepted order reads back; one that is torn or of another kind was never accepted; folders
 * with other names are left alone. */
static void test_order_on_disk(void **state)
{
    (void)state;
    struct buf frame = {0};
    struct err err = {0};
    Ds__AttemptStart *again = NULL;
    Ds__AttemptStart order;
    uint32_t gpus[] = {3, 1};
    make_order(&order, gpus);
    assert_int_equal(file_mkdirs(path_of("attempts/notes"), 0700, NULL), 0);
    assert_int_equal(file_mkdirs(path_of("attempts/12-02"), 0700, NULL), 0);
    char *dir = attempt_dir_path(folder, 12, 2);
    assert_int_equal(attempt_dir_read_order(dir, &again, &err), ERR_NOT_FOUND);
    rpc_pack(&frame, RPC_ATTEMPT_START, FRAME_REQUEST, 0, &order.base);
    assert_int_equal(attempt_dir_accept(dir, &frame, &err), 0);
    assert_int_equal(attempt_dir_accept(dir, &frame, &err), 0);
    assert_int_equal(attempt_dir_read_order(dir, &again, &err), 0);
    assert_int_equal(again->world_size, 4);
    assert_int_equal(again->gpu_index[0], 3);
    rpc_free(&again->base);
    uint64_t sum = 0;
    assert_int_equal(attempt_dir_each(folder, found, &sum, &err), 0);
    assert_int_equal(sum, 12002);
    for (size_t cut = 0; cut < frame.len; cut += 7) {
        assert_int_equal(attempt_dir_write(dir, ATTEMPT_ORDER_FILE, frame.data, cut, &err), 0);
        assert_int_equal(attempt_dir_read_order(dir, &again, &err), ERR_CORRUPT);
    }
    frame.data[frame.len - 1] ^= 1;
    assert_int_equal(attempt_dir_write(dir, ATTEMPT_ORDER_FILE, frame.data, frame.len, &err), 0);
    assert_int_equal(attempt_dir_read_order(dir, &again, &err), ERR_CORRUPT);
    buf_fini(&frame);
    free(dir);
}

/* A shim's socket works however deep the state folder is, and nobody listening is told apart. */
static void test_socket_in_deep_folder(void **state)
{
    (void)state;
    struct err err = {0};
    char dir[400];
    snprintf(dir, sizeof dir, "%s/%0200d", folder, 7);
    assert_int_equal(file_mkdirs(dir, 0700, &err), 0);
    assert_int_equal(attempt_dir_connect(dir), -1);
    int listener = attempt_dir_listen(dir, &err);
    assert_true(listener >= 0);
    int client = attempt_dir_connect(dir);
    assert_true(client >= 0);
    close(client);
    close(listener);
    assert_int_equal(attempt_dir_connect(dir), -1);
    assert_int_equal(attempt_dir_listen("/nowhere", &err), -1);
    assert_non_null(strstr(err.text, "/nowhere"));
}

/* ---- rendezvous values */

static void set_value(struct store_keep *keep, const char *key, const char *text)
{
    struct buf out = {0};
    struct frame f;
    size_t used;
    struct err err = {0};
    Ds__StoreSet set = DS__STORE_SET__INIT;
    set.job = 1;
    set.epoch = 1;
    set.key = (char *)key;
    set.value = (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
    rpc_pack(&out, RPC_STORE_SET, FRAME_REQUEST, 1, &set.base);
    assert_int_equal(frame_decode(out.data, out.len, FRAME_PAYLOAD_MAX, &f, &used, &err), 0);
    assert_int_equal(store_keep_set(keep, &f, key, &err), 0);
    buf_fini(&out);
}

static void check_value(const struct store_keep *keep, size_t i, const char *key, const char *text)
{
    struct frame f = store_keep_at(keep, i);
    ProtobufCMessage *m = NULL;
    assert_int_equal(rpc_unpack(&f, &m, NULL), 0);
    const Ds__StoreSet *set = (const Ds__StoreSet *)m;
    assert_string_equal(set->key, key);
    assert_int_equal(set->value.len, strlen(text));
    assert_memory_equal(set->value.data, text, strlen(text));
    rpc_free(m);
}

/* What ranks have set survives the worker, the last value of a key counts, and a torn end is cut
 * off without loss of the rest. */
static void test_store_keep(void **state)
{
    (void)state;
    struct store_keep *keep = store_keep_create(folder);
    assert_int_equal(store_keep_count(keep), 0);
    set_value(keep, "a", "1");
    set_value(keep, "b", "2");
    set_value(keep, "a", "three");
    store_keep_destroy(keep);
    struct stat st;
    assert_int_equal(stat(path_of(STORE_KEEP_FILE), &st), 0);
    assert_int_equal(truncate(path_of(STORE_KEEP_FILE), st.st_size - 3), 0);
    keep = store_keep_create(folder);
    assert_int_equal(store_keep_count(keep), 2);
    check_value(keep, 0, "a", "1");
    set_value(keep, "c", "4");
    store_keep_destroy(keep);
    keep = store_keep_create(folder);
    assert_int_equal(store_keep_count(keep), 3);
    check_value(keep, 1, "b", "2");
    check_value(keep, 2, "c", "4");
    store_keep_destroy(keep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_on_disk),
        cmocka_unit_test(test_socket_in_deep_folder),
        cmocka_unit_test(test_store_keep),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
