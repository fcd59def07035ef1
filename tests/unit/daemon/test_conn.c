/* The connection over a real socket pair and a real loop, with a handler that only takes notes. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/conn.h"
#include "lib/log.h"
#include "tests/unit/random.h"

enum { FRAMES_MAX = 40000 };

struct world {
    uv_loop_t loop;
    struct conn_hub hub;
    struct conn_limits limits;
    /* what the handler does with each frame */
    bool busy;   /* takes it as a request that waits for a commit */
    size_t echo; /* answers with a frame of so many bytes */
    /* what it saw */
    size_t frames, over;
    uint64_t ids[FRAMES_MAX];
    uint32_t sizes[FRAMES_MAX];
};

static void on_frame(struct conn *conn, const struct frame *f)
{
    struct world *w = conn->hub->world;
    assert_true(w->frames < FRAMES_MAX);
    w->ids[w->frames] = f->request_id;
    w->sizes[w->frames++] = f->payload_bytes;
    for (uint32_t i = 0; i < f->payload_bytes; i++) {
        assert_int_equal(f->payload[i], (uint8_t)(f->request_id + i));
    }
    if (w->busy) {
        conn_busy(conn);
    }
    if (w->echo > 0) {
        uint8_t *payload = calloc(1, w->echo);
        frame_encode(&(struct frame){.method = f->method,
                                     .kind = FRAME_REPLY,
                                     .request_id = f->request_id,
                                     .payload = payload,
                                     .payload_bytes = (uint32_t)w->echo},
                     conn_out(conn));
        free(payload);
        conn_touch(conn);
    }
}

static void on_over(struct conn *conn)
{
    struct world *w = conn->hub->world;
    w->over++;
}

static const struct conn_handler handler = {.frame = on_frame, .over = on_over};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    signal(SIGPIPE, SIG_IGN); /* as the daemon does */
    log_init("test", LOG_ERROR);
    uv_loop_init(&w->loop);
    w->limits = conn_limits_default;
    conn_hub_init(&w->hub, &w->loop, &w->limits, &handler, w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    conn_hub_close_all(&w->hub);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    int left = uv_loop_close(&w->loop);
    free(w);
    return left;
}

/* A few turns as the daemon does them. */
static void turns(struct world *w)
{
    for (int i = 0; i < 4; i++) {
        uv_run(&w->loop, UV_RUN_NOWAIT);
        conn_hub_serve(&w->hub);
        conn_hub_send(&w->hub);
    }
}

/* A connection; *peer is the test's end, non-blocking. */
static struct conn *open_conn(struct world *w, int *peer)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    struct conn *conn = conn_hub_open(&w->hub, fds[0], TRANSPORT_UNIX);
    assert_non_null(conn);
    *peer = fds[1];
    return conn;
}

static void add_frame(struct buf *b, uint64_t id, uint32_t bytes)
{
    uint8_t *payload = calloc(1, bytes + 1);
    for (uint32_t i = 0; i < bytes; i++) {
        payload[i] = (uint8_t)(id + i);
    }
    frame_encode(&(struct frame){.method = 1,
                                 .kind = FRAME_REQUEST,
                                 .request_id = id,
                                 .payload = payload,
                                 .payload_bytes = bytes},
                 b);
    free(payload);
}

/* Writes all of it, with turns in between. */
static void send_all(struct world *w, int fd, const struct buf *b)
{
    size_t at = 0;
    while (at < b->len) {
        ssize_t put = send(fd, b->data + at, b->len - at, MSG_NOSIGNAL);
        if (put > 0) {
            at += (size_t)put;
        } else if (errno != EAGAIN) {
            break; /* it was closed on us */
        }
        turns(w);
    }
}

/* Reads what is there; false when the other side closed. */
static bool receive_some(int fd, size_t *bytes)
{
    static uint8_t room[1 << 20];
    ssize_t got;
    while ((got = read(fd, room, sizeof room)) > 0) {
        *bytes += (size_t)got;
    }
    return got < 0 && errno == EAGAIN;
}

static bool is_open(int fd)
{
    size_t ignored = 0;
    return receive_some(fd, &ignored);
}

/* ------------------------------------------------------------------ framing */

/* Frames cut into pieces of any size arrive whole, once and in order. */
static void test_fragments(void **state)
{
    struct world *w = *state;
    random_start("fragments");
    int fd;
    open_conn(w, &fd);
    struct buf all = {0};
    enum { COUNT = 300 };
    for (uint64_t id = 1; id <= COUNT; id++) {
        add_frame(&all, id, (uint32_t)random_below(id % 10 == 0 ? 9000 : 60));
    }
    size_t at = 0;
    while (at < all.len) {
        size_t piece = random_below(4) == 0 ? 1 : 1 + random_below(5000);
        struct buf part = {.data = all.data + at,
                           .len = piece < all.len - at ? piece : all.len - at};
        send_all(w, fd, &part);
        at += part.len;
    }
    turns(w);
    assert_int_equal(w->frames, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(w->ids[i], i + 1);
    }
    assert_true(is_open(fd));
    close(fd);
    buf_fini(&all);
}

/* A flipped bit anywhere in a frame closes this connection, delivers nothing of the frame, and
 * disturbs no other connection. */
static void test_flipped_bits(void **state)
{
    struct world *w = *state;
    int good;
    open_conn(w, &good);
    struct buf frame = {0};
    add_frame(&frame, 7, 20);
    for (size_t bit = 0; bit < frame.len * 8; bit++) {
        int fd;
        open_conn(w, &fd);
        struct buf bad = {0};
        buf_append(&bad, frame.data, frame.len);
        bad.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        size_t before = w->frames;
        send_all(w, fd, &bad);
        turns(w);
        if (is_open(fd)) {
            /* The length was made larger: the rest of that frame never comes. */
            assert_in_range(bit, 32, 63);
            shutdown(fd, SHUT_WR);
            turns(w);
            assert_false(is_open(fd));
        }
        assert_int_equal(w->frames, before);
        close(fd);
        buf_fini(&bad);
    }
    send_all(w, good, &frame);
    turns(w);
    assert_int_equal(w->frames, 1);
    assert_true(is_open(good));
    close(good);
    buf_fini(&frame);
}

/* Before HELLO a frame over 16 KiB is refused from its header alone; one that just fits is not.
 * After it, 4 MiB is the limit. */
static void test_frame_sizes(void **state)
{
    struct world *w = *state;
    const uint32_t limits[] = {FRAME_PAYLOAD_MAX_HELLO, FRAME_PAYLOAD_MAX};
    for (int greeted = 0; greeted < 2; greeted++) {
        int fd;
        struct conn *conn = open_conn(w, &fd);
        if (greeted) {
            conn_greeted(conn);
        }
        struct buf b = {0};
        size_t before = w->frames;
        add_frame(&b, 1, limits[greeted]);
        send_all(w, fd, &b);
        turns(w);
        assert_int_equal(w->frames, before + 1);
        assert_int_equal(w->sizes[before], limits[greeted]);
        assert_true(is_open(fd));

        buf_reset(&b);
        add_frame(&b, 2, 0);
        b.data[4] = (uint8_t)(limits[greeted] + 1);
        b.data[5] = (uint8_t)((limits[greeted] + 1) >> 8);
        b.data[6] = (uint8_t)((limits[greeted] + 1) >> 16);
        send_all(w, fd, &b);
        turns(w);
        assert_false(is_open(fd));
        assert_int_equal(w->frames, before + 1);
        close(fd);
        buf_fini(&b);
    }
}

/* ------------------------------------------------------------------ back-pressure */

/* With its fill of requests waiting for a commit, a connection is not read; each commit lets more
 * in, until all 20,000 were served once and in order. */
static void test_in_flight(void **state)
{
    struct world *w = *state;
    enum { COUNT = 20000 };
    w->busy = true;
    int fd;
    struct conn *conn = open_conn(w, &fd);
    conn_greeted(conn);
    struct buf all = {0};
    for (uint64_t id = 1; id <= COUNT; id++) {
        add_frame(&all, id, 200);
    }
    size_t at = 0, committed = 0, rounds = 0;
    while (committed < COUNT) {
        ssize_t put;
        while (at < all.len && (put = send(fd, all.data + at, all.len - at, MSG_NOSIGNAL)) > 0) {
            at += (size_t)put;
        }
        turns(w);
        assert_true(conn->in_flight <= w->limits.in_flight_max);
        assert_true(conn->transport.in.len < 4 * 65536u); /* what waits, waits in the kernel */
        while (conn->in_flight > 0) {
            conn_done(conn);
            committed++;
        }
        rounds++;
    }
    turns(w);
    assert_int_equal(w->frames, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(w->ids[i], i + 1);
    }
    assert_true(rounds >= COUNT / w->limits.in_flight_max);
    close(fd);
    buf_fini(&all);
}

/* A peer that asks without reading is not served beyond the high-water mark; when it reads, it gets
 * every answer. */
static void test_high_water(void **state)
{
    struct world *w = *state;
    enum { COUNT = 400, ANSWER = 100000 };
    w->echo = ANSWER;
    int fd;
    struct conn *conn = open_conn(w, &fd);
    conn_greeted(conn);
    struct buf all = {0};
    for (uint64_t id = 1; id <= COUNT; id++) {
        add_frame(&all, id, 10);
    }
    send_all(w, fd, &all);
    turns(w);
    size_t waiting = conn->out.len + transport_unsent(&conn->transport);
    assert_true(w->frames < COUNT);
    assert_in_range(waiting, ANSWER, w->limits.out_high_bytes + 2 * ANSWER);

    size_t received = 0;
    for (int i = 0; i < 10000 && received < (size_t)COUNT * (ANSWER + FRAME_HEADER_BYTES); i++) {
        assert_true(receive_some(fd, &received));
        turns(w);
    }
    assert_int_equal(w->frames, COUNT);
    assert_int_equal(received, (size_t)COUNT * (ANSWER + FRAME_HEADER_BYTES));
    close(fd);
    buf_fini(&all);
}

/* A peer that takes nothing for stalled_ms is dropped; one that takes a little now and then is not.
 */
static void test_stalled_reader(void **state)
{
    struct world *w = *state;
    w->echo = 3000000;
    int idle, slow;
    conn_greeted(open_conn(w, &idle));
    conn_greeted(open_conn(w, &slow));
    struct buf b = {0};
    add_frame(&b, 1, 10);
    send_all(w, idle, &b);
    send_all(w, slow, &b);
    turns(w);
    int64_t now_ms = (int64_t)uv_now(&w->loop);
    uint8_t room[50000];
    for (int i = 0; i < 20; i++) {
        now_ms += w->limits.stalled_ms / 10;
        conn_hub_sweep(&w->hub, now_ms);
        assert_true(read(slow, room, sizeof room) > 0);
        turns(w);
    }
    assert_int_equal(w->over, 1);
    assert_false(is_open(idle));
    assert_true(is_open(slow));
    close(idle);
    close(slow);
    buf_fini(&b);
}

/* ------------------------------------------------------------------ deadlines and endings */

/* Silence instead of HELLO, and a frame that never ends, cost the connection after their time and
 * not before. */
static void test_deadlines(void **state)
{
    struct world *w = *state;
    int silent, slow, fine;
    open_conn(w, &silent);
    conn_greeted(open_conn(w, &slow));
    conn_greeted(open_conn(w, &fine));
    struct buf b = {0};
    add_frame(&b, 1, 1000);
    b.len -= 1;
    send_all(w, slow, &b);
    turns(w);
    int64_t now_ms = (int64_t)uv_now(&w->loop);
    conn_hub_sweep(&w->hub, now_ms + w->limits.first_frame_ms - 1000);
    turns(w);
    assert_int_equal(w->over, 0);
    conn_hub_sweep(&w->hub, now_ms + w->limits.first_frame_ms + 1000);
    turns(w);
    assert_int_equal(w->over, 2);
    assert_false(is_open(silent));
    assert_false(is_open(slow));
    assert_true(is_open(fine));
    close(silent);
    close(slow);
    close(fine);
    buf_fini(&b);
}

/* A peer that closes its side still gets the answers to what it asked; then the connection ends. */
static void test_half_close(void **state)
{
    struct world *w = *state;
    w->busy = true;
    w->echo = 100;
    int fd;
    struct conn *conn = open_conn(w, &fd);
    struct buf b = {0};
    add_frame(&b, 1, 10);
    add_frame(&b, 2, 10);
    send_all(w, fd, &b);
    shutdown(fd, SHUT_WR);
    turns(w);
    assert_int_equal(w->over, 0);
    conn_done(conn);
    turns(w);
    assert_int_equal(w->over, 0);
    conn_done(conn);
    turns(w);
    assert_int_equal(w->over, 1);
    size_t received = 0;
    assert_false(receive_some(fd, &received));
    assert_int_equal(received, 2 * (FRAME_HEADER_BYTES + 100));
    close(fd);
    buf_fini(&b);
}

/* conn_finish sends what is queued before it closes, and looks at nothing that came after. */
static void test_finish(void **state)
{
    struct world *w = *state;
    w->echo = 100;
    int fd;
    struct conn *conn = open_conn(w, &fd);
    struct buf b = {0};
    add_frame(&b, 1, 10);
    send_all(w, fd, &b);
    conn_finish(conn, NULL);
    send_all(w, fd, &b);
    turns(w);
    assert_int_equal(w->frames, 1);
    assert_int_equal(w->over, 1);
    size_t received = 0;
    assert_false(receive_some(fd, &received));
    assert_int_equal(received, FRAME_HEADER_BYTES + 100);
    close(fd);
    buf_fini(&b);
}

/* A peer that vanishes takes its connection with it, whatever was going on. */
static void test_vanished_peer(void **state)
{
    struct world *w = *state;
    w->busy = true;
    w->echo = 2000000;
    int fd;
    struct conn *conn = open_conn(w, &fd);
    struct buf b = {0};
    add_frame(&b, 1, 10);
    send_all(w, fd, &b);
    turns(w);
    conn_done(conn);
    close(fd);
    turns(w);
    assert_int_equal(w->over, 1);
    assert_int_equal(w->hub.count, 0);
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fragments, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flipped_bits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_frame_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_in_flight, setup, teardown),
        cmocka_unit_test_setup_teardown(test_high_water, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stalled_reader, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deadlines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_half_close, setup, teardown),
        cmocka_unit_test_setup_teardown(test_finish, setup, teardown),
        cmocka_unit_test_setup_teardown(test_vanished_peer, setup, teardown),
    };
    return cmocka_run_group_tests_name("conn", tests, NULL, NULL);
}
