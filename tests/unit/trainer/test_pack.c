#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "lib/buf.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "trainer/data.h"
#include "trainer/pack.h"
#include "trainer/tokenizer_bytes.h"

static char dir[64];
static struct tokenizer *bytes;

#define BYTES .tokenizer = bytes, .tokenizer_name = "bytes", .eod = TOKENIZER_BYTES_EOD

static int setup(void **state)
{
    (void)state;
    bytes = tokenizer_bytes_create();
    snprintf(dir, sizeof dir, "/tmp/test_pack.XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    tokenizer_close(bytes);
    return file_remove_tree(dir, NULL);
}

static char *path_of(const char *name)
{
    static char path[4][128];
    static int next;
    next = (next + 1) % 4;
    snprintf(path[next], sizeof path[next], "%s/%s", dir, name);
    return path[next];
}

static void write_file(const char *name, const void *data, size_t len)
{
    assert_int_equal(file_write_durable(path_of(name), data, len, 0600, NULL), 0);
}

/* The corpus as text, with '\0' where a document ends. */
static char *read_back(const char *prefix, struct dataset *d)
{
    struct err err = {0};
    if (dataset_open(d, path_of(prefix), &err) != 0) {
        fail_msg("%s", err.text);
    }
    int32_t *tokens = mem_alloc_array((size_t)d->tokens, sizeof *tokens);
    assert_int_equal(dataset_read(d, 0, (size_t)d->tokens, TOKENIZER_BYTES_VOCAB, tokens, &err), 0);
    char *text = mem_alloc((size_t)d->tokens + 1);
    for (uint64_t i = 0; i < d->tokens; i++) {
        text[i] = (char)(tokens[i] == TOKENIZER_BYTES_EOD ? 0 : tokens[i]);
    }
    assert_int_equal(tokens[d->tokens - 1], TOKENIZER_BYTES_EOD);
    free(tokens);
    return text;
}

/* All 256 bytes survive, each file is a document with its end token, empty files vanish. */
static void test_files(void **state)
{
    (void)state;
    uint8_t all[255];
    for (int i = 0; i < 255; i++) {
        all[i] = (uint8_t)(i + 1);
    }
    write_file("a", all, sizeof all);
    write_file("empty", "", 0);
    write_file("b", "hello", 5);
    const char *inputs[] = {path_of("a"), path_of("empty"), path_of("b")};
    struct pack_options o = {BYTES, .inputs = inputs, .input_count = 3, .prefix = path_of("c"),
                             .document_bytes = 16384};
    struct pack_counts train;
    struct pack_counts valid;
    assert_int_equal(pack_run(&o, &train, &valid, NULL), 0);
    assert_int_equal(train.documents, 2);
    assert_int_equal(train.tokens, 255 + 1 + 5 + 1);
    struct dataset d;
    char *text = read_back("c", &d);
    assert_int_equal(d.type, DATA_UINT16);
    assert_int_equal(d.documents, 2);
    assert_memory_equal(text, all, 255);
    assert_memory_equal(text + 255, "\0hello", 7);
    free(text);
    dataset_close(&d);
}

/* Long text is cut at blank lines past the goal, at a line past twice, anywhere past four times;
 * nothing is lost. */
static void test_cut(void **state)
{
    (void)state;
    struct buf in = {0};
    buf_append_str(&in, "aaaaaaaa\n\nbbb\r\n\r\n"); /* blank lines before the goal of 16 do not cut,
                                                       the one at 15 does */
    buf_append_str(&in, "cccccccccccccccccccc\n\ndd");
    for (int i = 0; i < 5; i++) {
        buf_append_str(&in, "eeeeeeeeee\n"); /* no blank line: a line past 32 */
    }
    for (int i = 0; i < 200; i++) {
        buf_append_str(&in, "f"); /* no line at all: 64 */
    }
    write_file("long", in.data, in.len);
    const char *inputs[] = {path_of("long")};
    struct pack_options o = {BYTES, .inputs = inputs, .input_count = 1, .prefix = path_of("c"),
                             .document_bytes = 16};
    struct pack_counts train;
    struct pack_counts valid;
    assert_int_equal(pack_run(&o, &train, &valid, NULL), 0);
    struct dataset d;
    char *text = read_back("c", &d);
    const char *expect[] = {"aaaaaaaa\n\nbbb\r\n\r\n", "cccccccccccccccccccc\n\n",
                            "ddeeeeeeeeee\neeeeeeeeee\neeeeeeeeee\n"};
    const char *p = text;
    for (int i = 0; i < 3; i++) {
        assert_string_equal(p, expect[i]);
        p += strlen(p) + 1;
    }
    struct buf joined = {0};
    for (uint64_t i = 0; i < d.tokens; i++) {
        if (text[i] != 0) {
            buf_append(&joined, &text[i], 1);
        }
    }
    assert_int_equal(joined.len, in.len);
    assert_memory_equal(joined.data, in.data, in.len);
    while (p < text + d.tokens) {
        assert_in_range(strlen(p), 1, 64);
        p += strlen(p) + 1;
    }
    buf_fini(&joined);
    buf_fini(&in);
    free(text);
    dataset_close(&d);

    o.document_bytes = 0;
    assert_int_equal(pack_run(&o, &train, &valid, NULL), 0);
    assert_int_equal(train.documents, 1);
}

/* Gzipped text gives the corpus of the plain text; a damaged one is refused and leaves no output.
 */
static void test_gzip(void **state)
{
    (void)state;
    struct buf in = {0};
    for (int i = 0; i < 300000; i++) {
        buf_printf(&in, "line %d\n%s", i, i % 50 == 0 ? "\n" : "");
    }
    write_file("plain", in.data, in.len);
    gzFile gz = gzopen(path_of("packed.gz"), "wb");
    assert_int_equal(gzwrite(gz, in.data, (unsigned)in.len), (int)in.len);
    assert_int_equal(gzclose(gz), Z_OK);
    struct pack_counts train;
    struct pack_counts valid;
    const char *one[] = {path_of("plain")};
    struct pack_options o = {BYTES, .inputs = one, .input_count = 1, .prefix = path_of("p"),
                             .document_bytes = 16384};
    assert_int_equal(pack_run(&o, &train, &valid, NULL), 0);
    const char *two[] = {path_of("packed.gz")};
    o.inputs = two;
    o.prefix = path_of("g");
    assert_int_equal(pack_run(&o, &train, &valid, NULL), 0);
    struct buf a = {0};
    struct buf b = {0};
    assert_int_equal(file_read(path_of("p.bin"), 1 << 30, &a, NULL), 0);
    assert_int_equal(file_read(path_of("g.bin"), 1 << 30, &b, NULL), 0);
    assert_int_equal(a.len, b.len);
    assert_int_equal(a.len, 2 * (in.len + train.documents));
    assert_memory_equal(a.data, b.data, a.len);

    buf_reset(&a);
    assert_int_equal(file_read(path_of("packed.gz"), 1 << 30, &a, NULL), 0);
    struct err err = {0};
    o.prefix = path_of("bad");
    write_file("packed.gz", a.data, a.len / 2);
    assert_int_equal(pack_run(&o, &train, &valid, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "packed.gz"));
    a.data[a.len / 2] ^= 0x10;
    write_file("packed.gz", a.data, a.len);
    assert_int_equal(pack_run(&o, &train, &valid, &err), ERR_DATA);
    assert_int_not_equal(access(path_of("bad.bin"), F_OK), 0);
    assert_int_not_equal(access(path_of("bad.bin.tmp"), F_OK), 0);
    assert_int_not_equal(access(path_of("bad.idx"), F_OK), 0);
    buf_fini(&a);
    buf_fini(&b);
    buf_fini(&in);
}

/* The validation split is disjoint from training, about as large as asked, spread over the text,
 * and the same every time. */
static void test_split(void **state)
{
    (void)state;
    struct buf in = {0};
    for (int i = 0; i < 1000; i++) {
        buf_printf(&in, "document %04d %.*s\n\n", i, i % 30, "..............................");
    }
    write_file("text", in.data, in.len);
    const char *inputs[] = {path_of("text")};
    struct pack_options o = {BYTES,
                             .inputs = inputs,
                             .input_count = 1,
                             .prefix = path_of("s"),
                             .document_bytes = 15,
                             .valid_share = 0.1};
    struct pack_counts train;
    struct pack_counts valid;
    assert_int_equal(pack_run(&o, &train, &valid, NULL), 0);
    assert_int_equal(train.documents + valid.documents, 1000);
    double share = (double)valid.tokens / (double)(valid.tokens + train.tokens);
    assert_true(share > 0.08 && share < 0.12);
    struct dataset d;
    char *text = read_back("s", &d);
    int seen[1000] = {0};
    for (char *p = text; p < text + d.tokens; p += strlen(p) + 1) {
        seen[atoi(p + strlen("document "))]++;
    }
    dataset_close(&d);
    free(text);
    text = read_back("s-valid", &d);
    int last = -1;
    for (char *p = text; p < text + d.tokens; p += strlen(p) + 1) {
        int i = atoi(p + strlen("document "));
        seen[i]++;
        assert_true(i - last < 60); /* no long stretch without */
        last = i;
    }
    dataset_close(&d);
    free(text);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(seen[i], 1);
    }
    buf_fini(&in);
}

/* What cannot be packed says so. */
static void test_refused(void **state)
{
    (void)state;
    struct pack_counts train;
    struct pack_counts valid;
    struct err err = {0};
    write_file("empty", "", 0);
    write_file("short", "abc", 3);
    const char *inputs[1] = {path_of("empty")};
    char *prefix = mem_strdup(path_of("r"));
    struct pack_options o = {BYTES, .inputs = inputs, .input_count = 1, .prefix = prefix,
                             .document_bytes = 16384};
    assert_int_equal(pack_run(&o, &train, &valid, &err), ERR_DATA);
    inputs[0] = path_of("nothing");
    assert_int_equal(pack_run(&o, &train, &valid, &err), ERR_NOT_FOUND);
    inputs[0] = dir;
    assert_int_equal(pack_run(&o, &train, &valid, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "folder"));
    inputs[0] = path_of("short");
    o.valid_share = 0.05;
    assert_int_equal(pack_run(&o, &train, &valid, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "--document-bytes"));
    o.prefix = path_of("short/folder/x"); /* a file stands where a folder would be made */
    assert_int_not_equal(pack_run(&o, &train, &valid, &err), 0);
    assert_non_null(strstr(err.text, "short"));
    free(prefix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files), cmocka_unit_test(test_cut),     cmocka_unit_test(test_gzip),
        cmocka_unit_test(test_split), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
