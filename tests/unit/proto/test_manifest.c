#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/file.h"
#include "lib/mem.h"
#include "proto/manifest.h"
#include "tests/unit/random.h"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/ds-manifest-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    return file_remove_tree(folder, NULL);
}

static const char *path_of(const char *file)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    return path;
}

static void write_file(const char *file, const void *data, size_t len)
{
    assert_int_equal(file_write_durable(path_of(file), data, len, 0644, NULL), 0);
}

/* Three shards of 1, 2000 and 3 MB bytes on disk and the manifest of them. */
static struct manifest sample(void)
{
    static const size_t sizes[] = {1, 2000, 3000000};
    struct manifest m = {.job = 12, .epoch = 3, .step = 100, .world_size = 3};
    m.layout = mem_strdup("{\"mesh\":[1,2]}");
    m.shards = mem_alloc_array(3, sizeof *m.shards);
    uint8_t *data = mem_alloc(sizes[2]);
    memset(data, 0x5a, sizes[2]);
    for (uint32_t i = 0; i < 3; i++) {
        struct manifest_shard *s = &m.shards[i];
        s->rank = i;
        snprintf(s->file, sizeof s->file, "shard-%05u-of-00003.safetensors", i);
        write_file(s->file, data, sizes[i]);
        assert_int_equal(
            manifest_digest_file(path_of(s->file), &s->bytes, s->xxh3, s->sha256, NULL), 0);
        assert_int_equal(s->bytes, sizes[i]);
    }
    free(data);
    return m;
}

/* The text is fixed to the byte: digests of it are compared between machines and versions. */
static void test_text(void **state)
{
    (void)state;
    struct manifest_shard shard = {.rank = 0, .file = "a b", .bytes = 5};
    memset(shard.xxh3, 'a', 32);
    memset(shard.sha256, 'b', 64);
    struct manifest m = {.job = 1,
                         .epoch = 2,
                         .step = 3,
                         .world_size = 1,
                         .layout = (char *)(uintptr_t) "{}",
                         .shards = &shard};
    struct buf out = {0};
    manifest_encode(&m, &out);
    assert_string_equal(
        buf_cstr(&out),
        "{\"schema\":\"ds/manifest/"
        "v1\",\"job\":1,\"epoch\":2,\"step\":3,\"world_size\":1,\"layout\":{},\"shards\":[{"
        "\"rank\":0,"
        "\"file\":\"a b\",\"bytes\":5,\"xxh3\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"sha256\":"
        "\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"}]}");
    buf_fini(&out);
}

/* Known digests of "abc". */
static void test_digests(void **state)
{
    (void)state;
    uint64_t bytes;
    char xxh3[33], sha256[65];
    write_file("abc", "abc", 3);
    assert_int_equal(manifest_digest_file(path_of("abc"), &bytes, xxh3, sha256, NULL), 0);
    assert_string_equal(sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_string_equal(xxh3, "06b05ab6733a618578af5f94892f3950");
    manifest_digest_text("abc", 3, sha256);
    assert_string_equal(sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    struct err err;
    assert_int_equal(manifest_digest_file(path_of("none"), &bytes, xxh3, sha256, &err),
                     ERR_NOT_FOUND);
    assert_int_equal(manifest_digest_file(folder, &bytes, xxh3, sha256, &err), ERR_CORRUPT);
    assert_int_equal(mkfifo(path_of("fifo"), 0600), 0);
    assert_int_equal(manifest_digest_file(path_of("fifo"), &bytes, xxh3, sha256, &err),
                     ERR_CORRUPT);
}

/* encode and parse are inverse; the file is found again; publishing the same twice is fine,
 * something else a conflict. */
static void test_publish(void **state)
{
    (void)state;
    struct manifest m = sample();
    struct manifest again;
    struct buf text = {0};
    struct buf text_again = {0};
    struct err err = {0};
    assert_int_equal(manifest_read(&again, folder, &err), ERR_NOT_FOUND);
    manifest_encode(&m, &text);
    assert_int_equal(manifest_publish(folder, buf_cstr(&text), text.len, &err), 0);
    assert_int_equal(manifest_publish(folder, buf_cstr(&text), text.len, &err), 0);
    assert_int_equal(manifest_read(&again, folder, &err), 0);
    manifest_encode(&again, &text_again);
    assert_string_equal(buf_cstr(&text), buf_cstr(&text_again));
    assert_int_equal(again.job, 12);
    assert_int_equal(again.shards[2].bytes, 3000000);
    assert_int_equal(manifest_publish(folder, "{}", 2, &err), ERR_CONFLICT);
    assert_int_equal(manifest_publish("/nonexistent/folder", "{}", 2, &err), ERR_NOT_FOUND);
    manifest_fini(&again);
    assert_int_equal(manifest_read(&again, folder, &err), 0); /* the conflict changed nothing */
    manifest_fini(&again);
    manifest_fini(&m);
    manifest_fini(&m);
    buf_fini(&text);
    buf_fini(&text_again);
}

/* A missing, short or long shard and a flipped bit are found, with file and rank in the message;
 * strict also finds what keeps the xxh3. */
static void test_verify(void **state)
{
    (void)state;
    struct manifest m = sample();
    struct err err = {0};
    assert_int_equal(manifest_verify(&m, folder, 1, &err), 0);
    assert_int_equal(manifest_verify(&m, folder, 0, &err), 0);
    const char *last = m.shards[2].file;
    int fd = open(path_of(last), O_RDWR);
    static const off_t places[] = {0, 1500000, 2999999};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(pwrite(fd, "\x5b", 1, places[i]), 1);
        assert_int_equal(manifest_verify(&m, folder, 0, &err), ERR_CORRUPT);
        assert_non_null(
            strstr(err.text, "shard-00002-of-00003.safetensors (rank 2) has another xxh3"));
        assert_int_equal(pwrite(fd, "\x5a", 1, places[i]), 1);
    }
    assert_int_equal(manifest_verify(&m, folder, 1, &err), 0);
    assert_int_equal(ftruncate(fd, 2999999), 0);
    assert_int_equal(manifest_verify(&m, folder, 0, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "(rank 2) has 2999999 bytes, the manifest says 3000000"));
    close(fd);
    unlink(path_of(last));
    assert_int_equal(manifest_verify(&m, folder, 0, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "(rank 2) is missing"));
    manifest_fini(&m);
    m = sample();
    m.shards[1].sha256[0] = m.shards[1].sha256[0] == 'a' ? 'b' : 'a';
    assert_int_equal(manifest_verify(&m, folder, 0, &err), 0);
    assert_int_equal(manifest_verify(&m, folder, 1, &err), ERR_CORRUPT);
    manifest_fini(&m);
}

/* Cut anywhere, or with any byte replaced, a manifest is refused or says the same facts in another
 * form; it never crashes. */
static void test_damage(void **state)
{
    (void)state;
    random_start("manifest damage");
    struct manifest m = sample();
    struct manifest got;
    struct buf text = {0};
    struct err err;
    manifest_encode(&m, &text);
    for (size_t len = 0; len < text.len; len++) {
        assert_int_equal(manifest_parse(&got, (const char *)text.data, len, "m", &err),
                         ERR_CORRUPT);
        assert_null(got.shards);
    }
    for (int i = 0; i < 20000; i++) {
        struct buf copy = {0};
        buf_append(&copy, text.data, text.len);
        copy.data[random_below(copy.len)] = (uint8_t)random_next();
        if (manifest_parse(&got, (const char *)copy.data, copy.len, "m", &err) == 0) {
            assert_int_equal(got.world_size, 3);
            manifest_fini(&got);
        }
        buf_fini(&copy);
    }
    manifest_fini(&m);
    buf_fini(&text);
}

/* Each rule of a manifest has a message of its own. */
static void test_refused(void **state)
{
    (void)state;
#define HEAD                                                                                       \
    "{\"schema\":\"ds/manifest/"                                                                   \
    "v1\",\"job\":1,\"epoch\":2,\"step\":3,\"world_size\":1,\"layout\":{},\"shards\":["
#define X32  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define TAIL ",\"bytes\":5,\"xxh3\":\"" X32 "\",\"sha256\":\"" X32 X32 "\"}"
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"[]", "m: not a manifest: its schema is not ds/manifest/v1 (written by another version?)"},
        {"{\"schema\":\"ds/manifest/v2\"}",
         "m: not a manifest: its schema is not ds/manifest/v1 (written by another version?)"},
        {"{\"schema\":\"ds/manifest/v1\"}",
         "m: not a manifest: other keys than schema, job, epoch, step, world_size, layout, shards"},
        {HEAD "]}", "m: not a manifest: not one shard for each rank of world_size"},
        {HEAD "{\"rank\":1,\"file\":\"a\"" TAIL "]}",
         "m: not a manifest: the shards are not those of rank 0, 1, 2 ..."},
        {HEAD "{\"rank\":0,\"file\":\"../a\"" TAIL "]}",
         "m: not a manifest: shard of rank 0: '../a' is not a file name (allowed: no '/', no '.' "
         "in front, at most 127 bytes)"},
        {HEAD "{\"rank\":0,\"file\":\"\"" TAIL "]}",
         "m: not a manifest: shard of rank 0: '' is not a file name (allowed: no '/', no '.' in "
         "front, at most 127 bytes)"},
        {HEAD "{\"rank\":0,\"file\":\"a\",\"more\":1" TAIL "]}",
         "m: not a manifest: a shard has other keys than rank, file, bytes, xxh3, sha256"},
        {HEAD "{\"rank\":0,\"file\":\"a\",\"bytes\":-5,\"xxh3\":\"" X32 "\",\"sha256\":\"" X32 X32
              "\"}]}",
         "m: not a manifest: a shard has other keys than rank, file, bytes, xxh3, sha256"},
        {HEAD "{\"rank\":0,\"file\":\"a\",\"bytes\":5,\"xxh3\":\"A\",\"sha256\":\"" X32 X32 "\"}]}",
         "m: not a manifest: shard of rank 0: a digest is not 32 lower-case hex digits"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct manifest m;
        struct err err;
        assert_int_equal(manifest_parse(&m, cases[i].text, strlen(cases[i].text), "m", &err),
                         ERR_CORRUPT);
        assert_string_equal(err.text, cases[i].message);
    }
    struct manifest m;
    assert_int_equal(manifest_parse(&m, HEAD "{\"rank\":0,\"file\":\"a\"" TAIL "]}",
                                    strlen(HEAD "{\"rank\":0,\"file\":\"a\"" TAIL "]}"), "m", NULL),
                     0);
    manifest_fini(&m);
}

/* A layout from a rank gets one form whatever its spacing and order, or is refused. */
static void test_layout(void **state)
{
    (void)state;
    char *canonical;
    char *again;
    struct err err;
    assert_int_equal(
        manifest_layout(" {\"b\": [1, 2.5],\n \"a\": {\"x\": \"\xc3\xa4\"}} ", &canonical, &err),
        0);
    assert_string_equal(canonical, "{\"a\":{\"x\":\"\xc3\xa4\"},\"b\":[1,2.5]}");
    assert_int_equal(manifest_layout(canonical, &again, &err), 0);
    assert_string_equal(canonical, again);
    free(canonical);
    free(again);
    static const char *const bad[] = {"", "[]", "5", "{", "{\"a\":1,\"a\":2}", "{}x", "null"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(manifest_layout(bad[i], &canonical, &err), ERR_INVALID);
        assert_null(canonical);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_layout),
        cmocka_unit_test_setup_teardown(test_digests, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_publish, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_verify, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_damage, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
