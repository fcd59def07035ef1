#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ctl/args.h"
#include "ctl/help.h"
#include "lib/file.h"
#include "lib/mem.h"

static struct args args;
static struct err err;

/* "job list -o json" -> args; returns the code. Words are split at blanks. */
static int parse(const char *line)
{
    static char copy[1024];
    char *argv[64] = {(char[]){"dsctl"}};
    int argc = 1;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " ")) {
        argv[argc++] = word;
    }
    args_fini(&args);
    err = (struct err){0};
    return args_parse(&args, argc, argv, &err);
}

static void assert_command(const char *line, const char *noun, const char *verb)
{
    int rc = parse(line);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    assert_string_equal(args.command->noun, noun);
    assert_string_equal(args.command->verb, verb);
}

static void assert_refused(const char *line, const char *part)
{
    assert_int_equal(parse(line), ERR_USAGE);
    if (strstr(err.text, part) == NULL) {
        fail_msg("'%s' gives '%s', without '%s'", line, err.text, part);
    }
}

static int finish(void **state)
{
    (void)state;
    args_fini(&args);
    return 0;
}

/* Options stand anywhere: before, between and after the words. */
static void test_options_anywhere(void **state)
{
    (void)state;
    const char *const lines[] = {
        "job show 12 -o json",       "job show -o json 12",       "job -o json show 12",
        "-o json job show 12",       "job show 12 -ojson",        "job show 12 -o=json",
        "job show 12 --output json", "job show --output=json 12",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        assert_command(lines[i], "job", "show");
        assert_int_equal(args.word_count, 1);
        assert_string_equal(args.words[0], "12");
        assert_string_equal(args_get(&args, "output"), "json");
    }
}

/* A short form is the same command. */
static void test_short_forms(void **state)
{
    (void)state;
    assert_command("submit x.yaml", "job", "submit");
    assert_command("jobs", "job", "list");
    assert_command("nodes", "node", "list");
    assert_command("logs 3 -f", "job", "logs");
    assert_command("cancel 3 4", "job", "cancel");
    assert_int_equal(args.word_count, 2);
}

/* Letters can be written together; the last one may take a value. */
static void test_letters_together(void **state)
{
    (void)state;
    assert_command("logs 3 -fvn5", "job", "logs");
    assert_true(args_has(&args, "follow"));
    assert_true(args_has(&args, "verbose"));
    assert_string_equal(args_get(&args, "tail"), "5");
}

/* After -- nothing is an option, and - alone is a word. */
static void test_end_of_options(void **state)
{
    (void)state;
    assert_command("submit -- -o", "job", "submit");
    assert_string_equal(args.words[0], "-o");
    assert_command("submit -", "job", "submit");
    assert_string_equal(args.words[0], "-");
}

/* --watch takes a value only with =. */
static void test_optional_value(void **state)
{
    (void)state;
    int64_t ms = 2000;
    assert_command("job show --watch 12", "job", "show");
    assert_true(args_has(&args, "watch"));
    assert_int_equal(args_duration(&args, "watch", &ms, NULL), 0);
    assert_int_equal(ms, 2000);
    assert_command("job show --watch=500ms 12", "job", "show");
    assert_int_equal(args_duration(&args, "watch", &ms, NULL), 0);
    assert_int_equal(ms, 500);
}

/* A repeated option keeps its order; asked for once, the last one counts. */
static void test_repeated(void **state)
{
    (void)state;
    size_t count = 0;
    assert_command("submit x --set a=1 --set=b=2 --key k1 --key k2", "job", "submit");
    const char **all = args_all(&args, "set", &count);
    assert_int_equal(count, 2);
    assert_string_equal(all[0], "a=1");
    assert_string_equal(all[1], "b=2");
    assert_string_equal(args_get(&args, "key"), "k2");
    free(all);
}

/* What is wrong is named, and the nearest right thing with it. */
static void test_refusals(void **state)
{
    (void)state;
    assert_refused("", "no command");
    assert_refused("job", "submit, list, show");
    assert_refused("job lst", "did you mean 'dsctl job list'");
    assert_refused("jbo list", "did you mean 'dsctl job list'");
    assert_refused("job shwo 3", "did you mean 'dsctl job show'");
    assert_refused("list jobs", "did you mean 'dsctl job list'");
    assert_refused("drain n1", "did you mean 'dsctl node drain'");
    assert_refused("sumbit x", "did you mean 'dsctl submit'");
    assert_refused("frobnicate", "commands start with one of job, node, maint, queue, account, "
                                 "quota, ckpt, cost, event, cluster");
    assert_refused("job frobnicate", "after job comes one of submit");
    assert_refused("job list --stat RUNNING", "did you mean '--state'");
    assert_refused("job list --frobnicate", "no such option");
    assert_refused("job list -Z", "unknown option -Z");
    assert_refused("job show 12 --state RUNNING", "job show has no option --state");
    assert_refused("job list --state ASLEEP", "PENDING|STARTING");
    assert_refused("job list -o xml", "table|wide|json");
    assert_refused("job list --sort", "needs a value");
    assert_refused("job list --no-header=yes", "takes no value");
    assert_refused("job show", "too few arguments");
    assert_refused("job show 1 2", "unexpected argument '2'");
}

/* States may be written in any case. */
static void test_choices_in_any_case(void **state)
{
    (void)state;
    assert_command("jobs --state running -o JSON", "job", "list");
}

/* Help wins over what is missing; without a command it is help for the noun or for all. */
static void test_help(void **state)
{
    (void)state;
    assert_int_equal(parse("-h"), 0);
    assert_true(args.help && args.command == NULL && args.noun == NULL);
    assert_int_equal(parse("help"), 0);
    assert_true(args.help && args.command == NULL && args.noun == NULL);
    assert_int_equal(parse("job --help"), 0);
    assert_true(args.help && args.command == NULL);
    assert_string_equal(args.noun, "job");
    assert_int_equal(parse("help job show"), 0);
    assert_true(args.help && args.command != NULL);
    assert_int_equal(parse("job show -h"), 0);
    assert_true(args.help && args.command != NULL);
    assert_int_equal(parse("--version"), 0);
    assert_true(args.version);
    assert_int_equal(parse("job frobnicate -h"), ERR_USAGE);
}

/* Numbers and durations are checked whole. */
static void test_values(void **state)
{
    (void)state;
    uint64_t number = 7;
    int64_t ms = 7;
    assert_command("jobs --limit 25 --timeout 5m", "job", "list");
    assert_int_equal(args_u64(&args, "limit", &number, NULL), 0);
    assert_int_equal(number, 25);
    assert_int_equal(args_duration(&args, "timeout", &ms, NULL), 0);
    assert_int_equal(ms, 300000);
    const char *const bad[] = {"jobs --limit x", "jobs --limit -1", "jobs --limit 1x",
                               "jobs --limit 99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(parse(bad[i]), 0);
        assert_int_equal(args_u64(&args, "limit", &number, &err), ERR_USAGE);
    }
    assert_int_equal(parse("jobs --timeout soon"), 0);
    assert_int_equal(args_duration(&args, "timeout", &ms, &err), ERR_USAGE);
    assert_int_equal(parse("jobs --timeout 0"), 0);
    assert_int_equal(args_duration(&args, "timeout", &ms, &err), ERR_USAGE);
}

/* An id is a number from 1, bare or as -o name prints it. */
static void test_ids(void **state)
{
    (void)state;
    uint64_t id = 0;
    assert_int_equal(args_id("12", "job", &id, NULL), 0);
    assert_int_equal(id, 12);
    assert_int_equal(args_id("job/13", "job", &id, NULL), 0);
    assert_int_equal(id, 13);
    const char *const bad[] = {
        "", "0", "-1", "x", "12x", "ckpt/12", "job/", "job", "18446744073709551616", "1 "};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(args_id(bad[i], "job", &id, &err), ERR_USAGE);
    }
}

/* What the first pass of the parser relies on: a name or letter takes the same kind of value
 * wherever it occurs. */
static void test_options_are_consistent(void **state)
{
    (void)state;
    for (const struct command *c = commands; c->noun != NULL; c++) {
        for (const struct option *o = c->options; o != NULL && o->name != NULL; o++) {
            const struct option *other = args_option(NULL, o->name, strlen(o->name));
            assert_int_equal(other->value == NULL, o->value == NULL);
            assert_int_equal(args_wants_value(other), args_wants_value(o));
            if (o->letter != 0) {
                assert_string_equal(args_option_letter(NULL, o->letter)->name, o->name);
            }
        }
    }
}

/* Each command has one handler, a summary, and names that lead to it. */
static void test_commands_are_whole(void **state)
{
    (void)state;
    for (const struct command *c = commands; c->noun != NULL; c++) {
        size_t used = 0;
        const char *words[] = {c->noun, c->verb};
        assert_true((c->view != NULL) != (c->run != NULL));
        assert_non_null(c->summary);
        assert_non_null(c->arguments);
        assert_true(c->arguments_max >= c->arguments_min);
        assert_ptr_equal(args_command(words, 2, &used), c);
        assert_int_equal(used, 2);
        if (c->alias != NULL) {
            assert_ptr_equal(args_command(&c->alias, 1, &used), c);
            assert_int_equal(used, 1);
        }
    }
}

/* Help mentions every command, every option of a command, and fits into 100 columns. */
static void test_help_is_whole(void **state)
{
    (void)state;
    struct buf all = {0};
    const struct args none = {0};
    help_write(&all, &none);
    for (const struct command *c = commands; c->noun != NULL; c++) {
        struct buf one = {0};
        char *name = mem_printf("%s %s", c->noun, c->verb);
        assert_non_null(strstr(buf_cstr(&all), name));
        help_write(&one, &(struct args){.command = c});
        assert_non_null(strstr(buf_cstr(&one), name));
        for (const struct option *o = c->options; o != NULL && o->name != NULL; o++) {
            char *option = mem_printf("--%s", o->name);
            assert_non_null(strstr(buf_cstr(&one), option));
            free(option);
        }
        buf_append_str(&all, buf_cstr(&one));
        free(name);
        buf_fini(&one);
    }
    for (char *line = strtok(buf_cstr(&all), "\n"); line != NULL; line = strtok(NULL, "\n")) {
        if (strlen(line) > 100) {
            fail_msg("over 100 columns: %s", line);
        }
    }
    buf_fini(&all);
}

/* "--dry-run" as roff has it: \\-\\-dry\\-run. The caller frees. */
static char *roff_option(const char *name)
{
    struct buf text = {0};
    buf_append_str(&text, "\\-\\-");
    for (; *name != 0; name++) {
        buf_append(&text, *name == '-' ? "\\-" : name, *name == '-' ? 2 : 1);
    }
    return buf_cstr(&text);
}

/* The manual page tells of every command and option. */
static void test_manual_is_whole(void **state)
{
    (void)state;
    struct buf page = {0};
    if (file_read("docs/man/dsctl.1", 1 << 20, &page, &err) != 0) {
        fail_msg("%s", err.text);
    }
    const struct option *options = global_options;
    for (const struct command *c = commands;; c++) {
        for (const struct option *o = options; o != NULL && o->name != NULL; o++) {
            char *name = roff_option(o->name);
            if (strstr(buf_cstr(&page), name) == NULL) {
                fail_msg("docs/man/dsctl.1 does not tell of %s", name);
            }
            free(name);
        }
        if (c->noun == NULL) {
            break;
        }
        char *name = mem_printf("%s %s", c->noun, c->verb);
        if (strstr(buf_cstr(&page), name) == NULL) {
            fail_msg("docs/man/dsctl.1 does not tell of %s", name);
        }
        free(name);
        options = c->options;
    }
    buf_fini(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_anywhere),
        cmocka_unit_test(test_short_forms),
        cmocka_unit_test(test_letters_together),
        cmocka_unit_test(test_end_of_options),
        cmocka_unit_test(test_optional_value),
        cmocka_unit_test(test_repeated),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_choices_in_any_case),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_options_are_consistent),
        cmocka_unit_test(test_commands_are_whole),
        cmocka_unit_test(test_help_is_whole),
        cmocka_unit_test(test_manual_is_whole),
    };
    return cmocka_run_group_tests_name("ctl args", tests, NULL, finish);
}
