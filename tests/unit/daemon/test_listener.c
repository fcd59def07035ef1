#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/listener.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/sock.h"

static uv_loop_t loop;
static struct conn_hub hub;
static struct conn_limits limits;
static char dir[64];
static char path[100];

static void on_frame(struct conn *conn, const struct frame *f)
{
    (void)conn;
    (void)f;
}
static void on_over(struct conn *conn)
{
    (void)conn;
}
static const struct conn_handler handler = {.frame = on_frame, .over = on_over};

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    log_init("test", LOG_ERROR);
    uv_loop_init(&loop);
    limits = conn_limits_default;
    conn_hub_init(&hub, &loop, &limits, &handler, NULL);
    snprintf(dir, sizeof dir, "/tmp/ds-listener-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/dsd.sock", dir);
    return 0;
}

static void close_rest(uv_handle_t *handle, void *unused)
{
    (void)unused;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL); /* a test failed half-way */
    }
}

static int teardown(void **state)
{
    (void)state;
    conn_hub_close_all(&hub);
    uv_walk(&loop, close_rest, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    file_remove_tree(dir, NULL);
    return uv_loop_close(&loop);
}

static void turns(void)
{
    for (int i = 0; i < 4; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        conn_hub_serve(&hub);
        conn_hub_send(&hub);
    }
}

static int dial(const char *address)
{
    int fd = -1;
    return sock_connect(&fd, address, 1000, NULL) == 0 ? fd : -1;
}

/* Leaves a socket as a killed process does. */
static void leave_stale_socket(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    close(fd);
}

/* The socket is for its user and group, knows who connects, replaces a dead one, and is gone after.
 */
static void test_unix(void **state)
{
    (void)state;
    struct err err = {0};
    static struct listener l;
    leave_stale_socket();
    assert_int_equal(listener_open_unix(&l, &hub, path, &err), 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    int fd = dial(path);
    assert_true(fd >= 0);
    turns();
    assert_int_equal(hub.count, 1);
    struct conn *conn = LIST_FIRST(&hub.all);
    assert_true(conn->peer.user[0] != 0);
    close(fd);
    listener_close(&l);
    turns();
    assert_int_not_equal(stat(path, &st), 0);
}

/* A socket that somebody answers on, another kind of file, and a path that does not fit stay as
 * they are, with a reason. */
static void test_unix_refusals(void **state)
{
    (void)state;
    struct err err = {0};
    static struct listener first, second;
    assert_int_equal(listener_open_unix(&first, &hub, path, &err), 0);
    assert_int_equal(listener_open_unix(&second, &hub, path, &err), ERR_CONFLICT);
    assert_non_null(strstr(err.text, "another program answers"));
    listener_close(&second);
    turns();
    int fd = dial(path);
    assert_true(fd >= 0); /* the first one is unharmed */
    close(fd);
    listener_close(&first);
    turns();

    assert_int_equal(file_write_durable(path, "x", 1, 0600, &err), 0);
    assert_int_equal(listener_open_unix(&second, &hub, path, &err), ERR_CONFLICT);
    assert_non_null(strstr(err.text, "not a socket"));
    listener_close(&second);
    turns();
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 1);

    char longer[200];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    assert_int_equal(listener_open_unix(&second, &hub, longer, &err), ERR_INVALID);
    listener_close(&second);
    turns();
}

/* Only loopback addresses are listened on, and they say which port they got. */
static void test_tcp(void **state)
{
    (void)state;
    struct err err = {0};
    static struct listener l;
    static const char *const refused[] = {"0.0.0.0:0", "[::]:0",     "192.0.2.1:0",
                                          "127.0.0.1", ":6818",      "127.0.0.1:x",
                                          "",          "127.0.0.1:", "127.0.0.1:70000"};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        if (listener_open_tcp(&l, &hub, refused[i], &err) == 0) {
            fail_msg("%s was accepted", refused[i]);
        }
        listener_close(&l);
        turns();
    }
    assert_int_equal(listener_open_tcp(&l, &hub, "127.0.0.1:0", &err), 0);
    assert_null(strstr(l.name, ":0"));
    int fd = dial(l.name);
    assert_true(fd >= 0);
    turns();
    assert_int_equal(hub.count, 1);
    assert_string_equal(((struct conn *)LIST_FIRST(&hub.all))->peer.user, "");
    close(fd);

    static struct listener other;
    assert_int_equal(listener_open_tcp(&other, &hub, l.name, &err), ERR_CONFLICT);
    listener_close(&other);
    listener_close(&l);
}

/* Past the limit newcomers are closed and those inside stay. */
static void test_too_many(void **state)
{
    (void)state;
    struct err err = {0};
    static struct listener l;
    limits.connections_max = 3;
    log_init("test", LOG_ERROR);
    assert_int_equal(listener_open_unix(&l, &hub, path, &err), 0);
    int fds[5];
    for (int i = 0; i < 5; i++) {
        fds[i] = dial(path);
        assert_true(fds[i] >= 0);
        turns();
    }
    assert_int_equal(hub.count, 3);
    char c;
    assert_int_equal(read(fds[4], &c, 1), 0);
    assert_true(read(fds[0], &c, 1) < 0);
    close(fds[0]);
    turns();
    fds[0] = dial(path);
    turns();
    assert_true(read(fds[0], &c, 1) < 0);
    for (int i = 0; i < 5; i++) {
        close(fds[i]);
    }
    listener_close(&l);
}

/* Out of file descriptors: newcomers are turned away without a busy loop or a crash, and accepted
 * again when there is room. */
static void test_no_descriptors(void **state)
{
    (void)state;
    struct err err = {0};
    static struct listener l;
    assert_int_equal(listener_open_unix(&l, &hub, path, &err), 0);
    turns();
    struct rlimit old, tight;
    getrlimit(RLIMIT_NOFILE, &old);
    int newcomers[3];
    for (int i = 0; i < 3; i++) {
        newcomers[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    }
    int probe = dup(0);
    close(probe);
    tight = (struct rlimit){.rlim_cur = (rlim_t)probe, .rlim_max = old.rlim_max};
    setrlimit(RLIMIT_NOFILE, &tight);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", path);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(connect(newcomers[i], (struct sockaddr *)&addr, sizeof addr), 0);
    }
    turns();
    assert_int_equal(hub.count, 0);
    char c;
    assert_int_equal(read(newcomers[0], &c, 1), 0);
    setrlimit(RLIMIT_NOFILE, &old);
    int fd = dial(path);
    turns();
    assert_int_equal(hub.count, 1);
    close(fd);
    for (int i = 0; i < 3; i++) {
        close(newcomers[i]);
    }
    listener_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unix, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unix_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tcp, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_descriptors, setup, teardown),
    };
    return cmocka_run_group_tests_name("listener", tests, NULL, NULL);
}
